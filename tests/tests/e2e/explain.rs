//! What `explain` says of pages of every sort, and what the kernel answers to `--try`.

use lab::Output;
use serde_json::Value;

use crate::host::Host;
use crate::said::refusal;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_hugetlb_page_goes_there_and_back
        a_locked_page_moves_and_a_pinned_one_does_not
        a_destination_outside_the_cpuset_is_refused_by_the_kernel
        a_user_is_told_what_he_could_not_see
    }
}

on_each_kernel_and_emulated_by_root! {
    two_socket {
        a_page_of_its_own_is_explained_and_goes_there_and_back
        a_thp_is_one_folio_wherever_in_it_one_asks
        a_shared_page_stays_and_its_sharers_are_named
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        the_zero_page_is_on_no_node
        a_page_of_a_file_is_told_with_its_place_in_the_file
        memory_that_was_never_touched_has_no_page
        an_address_in_no_mapping_is_refused_with_its_neighbours
        a_policy_is_told_with_where_it_comes_from
        a_page_is_found_by_mapping_and_offset
        a_process_that_has_exited_has_no_pages
    }
}

fn asked(output: &Output) -> Value {
    assert_eq!(output.stderr_text().as_ref(), "", "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1, "{document}");
    document
}

/// A page of an area explained, without a trial.
fn explained(host: &Host, target: &Target, area: &str) -> Value {
    let address = format!("{:x}", target.area(area).start);
    let output = host.pagetide(&format!("explain {} {address} --json", target.pid));
    assert_eq!(output.code, 0, "{output:?}");
    asked(&output)
}

/// The same, with a trial: it must end with `code`, leave the page where it was and as it was.
fn tried(host: &Host, target: &mut Target, area: &str, code: u8) -> Value {
    let before = target.where_is(area);
    let address = format!("{:#x}", target.area(area).start);
    let output = host.pagetide(&format!("explain {} {address} --try --json", target.pid));
    assert_eq!(output.code, code, "{output:?}");
    assert_eq!(target.where_is(area), before, "{output:?}");
    target.check();
    let document = asked(&output);
    assert_eq!(document["trial"]["there"]["moved"] == true, code == 0, "{document}");
    document
}

fn says(document: &Value, words: &str) -> bool {
    let because = document["verdict"]["because"].as_array().unwrap();
    because.iter().any(|sentence| sentence.as_str().unwrap().contains(words))
}

fn a_page_of_its_own_is_explained_and_goes_there_and_back(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    let page = explained(host, &target, "a");
    assert_eq!(page["address"], format!("{:#x}", target.area("a").start));
    assert_eq!([&page["state"], &page["size"]], ["present", "4KiB"]);
    assert_eq!([&page["node"], &page["frame"]["mapcount"]], [0, 1]);
    assert_eq!([&page["mapping"]["kind"], &page["mapping"]["permissions"]], ["anon", "rw-p"]);
    assert_eq!([&page["policy"]["policy"], &page["policy"]["source"]], ["default", "nobody"]);
    let flags = page["frame"]["flags"].as_array().unwrap();
    assert!(flags.iter().any(|flag| flag == "anon") && !flags.iter().any(|flag| flag == "ksm"));
    assert_eq!(page["verdict"]["would"], "move", "{page}");
    let destination = &page["destinations"][0];
    assert_eq!([&destination["node"], &destination["distance"]], [1, 21]);
    assert_eq!([&destination["has_room"], &destination["is_allowed"]], [true, true]);
    let page = tried(host, &mut target, "a", 0);
    assert_eq!(page["trial"]["there"]["to"], 1);
    assert_eq!([&page["trial"]["back"]["to"], &page["trial"]["node"]], [0, 0]);
    let said = host.pagetide(&format!("explain {} {:x}", target.pid, target.area("a").start));
    assert!(said.stdout_text().contains("\nIt would migrate, to node 1 say.\n"), "{said:?}");
}

fn a_thp_is_one_folio_wherever_in_it_one_asks(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 t=thp:4M");
    let page = tried(host, &mut target, "t", 0);
    assert_eq!([&page["size"], &page["verdict"]["would"]], ["thp", "move"]);
    assert_eq!([&page["frame"]["folio"]["pages"], &page["frame"]["folio"]["index"]], [512, 0]);
    let inside = format!("{:x}", target.area("t").start + 0x5123);
    let output = host.pagetide(&format!("explain {} {inside} --try --json", target.pid));
    let page = asked(&output);
    assert_eq!((output.code, &page["size"]), (0, &"thp".into()), "{page}");
    assert_eq!([&page["frame"]["folio"]["pages"], &page["frame"]["folio"]["index"]], [512, 5]);
    assert_eq!(target.where_is("t"), "0*1024");
    assert!(page["trial"]["note"].is_null(), "it is still a THP: {page}");
}

fn a_hugetlb_page_goes_there_and_back(host: &Host) {
    let pool = |node, pages: &str| {
        let folder = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
        host.write(&format!("{folder}/nr_hugepages"), pages);
    };
    (0..2).for_each(|node| pool(node, "2"));
    let mut target = Target::start(host, "--on-node 0 g=hugetlb:4M");
    let page = tried(host, &mut target, "g", 0);
    assert_eq!(page["size"], "hugetlb-2MiB", "{page}");
    assert_eq!(page["balancing"]["may_move"], false);
    let inside = format!("{:x}", target.area("g").start + 0x5000);
    let output = host.pagetide(&format!("explain {} {inside} --try --json", target.pid));
    assert_eq!(output.code, 0, "{output:?}");
    drop(target);
    (0..2).for_each(|node| pool(node, "0"));
}

fn a_shared_page_stays_and_its_sharers_are_named(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 s=shm:1M,shared-with-child");
    let page = tried(host, &mut target, "s", 1);
    assert_eq!(page["verdict"]["would"], "stay", "{page}");
    assert!(says(&page, "--include-shared"), "{page}");
    assert_eq!(page["sharers"][0]["pid"], target.child.unwrap(), "{page}");
    assert_eq!(page["sharers"][0]["address"], page["address"], "{page}");
    assert_eq!(page["frame"]["mapcount"], 2, "{page}");
    assert!(page["trial"]["there"]["answer"].as_str().unwrap().starts_with("EACCES"), "{page}");
}

fn a_locked_page_moves_and_a_pinned_one_does_not(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 l=anon:1M,mlock p=anon:1M,pin=3");
    let page = tried(host, &mut target, "l", 0);
    assert!(says(&page, "mlock does not hold it"), "{page}");
    let page = tried(host, &mut target, "p", 1);
    assert_eq!(page["verdict"]["would"], "move", "no file shows the pin: {page}");
    assert!(says(&page, "only --try tells"), "{page}");
    let answer = page["trial"]["there"]["answer"].as_str().unwrap();
    assert!(answer.contains("pinned, or busy"), "{page}");
    assert_eq!(target.ask("unpin"), "ok");
    tried(host, &mut target, "p", 0);
}

fn the_zero_page_is_on_no_node(host: &Host) {
    let target = Target::start(host, "z=zero:1M");
    let page = explained(host, &target, "z");
    assert_eq!([&page["state"], &page["verdict"]["would"]], ["zero", "stay"], "{page}");
    assert_eq!(page["node"], Value::Null);
    let address = format!("{:x}", target.area("z").start);
    let output = host.pagetide(&format!("explain {} {address} --try --json", target.pid));
    let page = asked(&output);
    assert_eq!((output.code, &page["trial"]["there"]), (1, &Value::Null), "{page}");
    assert!(page["trial"]["note"].as_str().unwrap().contains("nothing was moved"), "{page}");
}

fn a_page_of_a_file_is_told_with_its_place_in_the_file(host: &Host) {
    let target = Target::start(host, "--on-node 0 f=file:1M,path=/root/explained");
    let address = format!("{:x}", target.area("f").start + 0x3000);
    let page = asked(&host.pagetide(&format!("explain {} {address} --json", target.pid)));
    assert_eq!(page["mapping"]["name"], "/root/explained", "{page}");
    assert_eq!([&page["mapping"]["file_offset_bytes"], &page["node"]], [0x3000, 0], "{page}");
    assert_eq!(page["entry"]["file_or_shared"], true);
}

fn memory_that_was_never_touched_has_no_page(host: &Host) {
    let target = Target::start(host, "a=anon:1M");
    // The stack has room to grow below what was used of it.
    let maps = host.sh(&format!("grep stack /proc/{}/maps", target.pid));
    let start = maps.split('-').next().unwrap();
    let page = asked(&host.pagetide(&format!("explain {} {start} --json", target.pid)));
    assert_eq!([&page["state"], &page["verdict"]["would"]], ["absent", "stay"], "{page}");
}

fn an_address_in_no_mapping_is_refused_with_its_neighbours(host: &Host) {
    let target = Target::start(host, "a=anon:1M");
    let line = refusal(&host.pagetide(&format!("explain {} 1000", target.pid)), 2);
    assert!(line.contains("maps nothing at 0x1000: the nearest mapping is"), "{line}");
}

fn a_policy_is_told_with_where_it_comes_from(host: &Host) {
    let target = Target::start(host, "b=anon:1M,bind=1");
    let page = explained(host, &target, "b");
    assert_eq!([&page["policy"]["policy"], &page["policy"]["source"]], ["bind:1", "mapping"]);
    assert_eq!(page["node"], 1, "{page}");
}

fn a_destination_outside_the_cpuset_is_refused_by_the_kernel(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    host.sh("mkdir -p /sys/fs/cgroup/explained");
    host.write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset");
    host.write("/sys/fs/cgroup/explained/cpuset.mems", "0");
    host.write("/sys/fs/cgroup/explained/cgroup.procs", &target.pid());
    let page = tried(host, &mut target, "a", 1);
    assert_eq!([&page["allowed_nodes"], &page["cgroup"]], ["0", "/explained"], "{page}");
    assert!(says(&page, "EACCES"), "{page}");
    assert!(page["trial"]["there"]["answer"].as_str().unwrap().contains("EACCES"), "{page}");
    target.kill();
    host.sh("rmdir /sys/fs/cgroup/explained");
}

fn a_page_is_found_by_mapping_and_offset(host: &Host) {
    let target = Target::start(host, "f=file:1M,path=/root/explained");
    let output = host.pagetide(&format!("explain {} explained+0x2000 --json", target.pid));
    assert_eq!(asked(&output)["address"], format!("{:#x}", target.area("f").start + 0x2000));
    let line = refusal(&host.pagetide(&format!("explain {} unexplained+0", target.pid)), 2);
    assert!(line.contains("`unexplained`"), "{line}");
}

fn a_user_is_told_what_he_could_not_see(host: &Host) {
    let mut target = Target::start_by(host, "as-user 1000", "--on-node 0 a=anon:1M");
    let address = format!("{:x}", target.area("a").start);
    let pid = target.pid();
    let words = ["pagetide", "explain", &pid, &address, "--try", "--json"];
    let output = host.run(&host.as_user().into_iter().chain(words).collect::<Vec<_>>());
    let page = asked(&output);
    assert_eq!(
        (output.code, &page["node"], &page["frame"]),
        (0, &0.into(), &Value::Null),
        "{page}"
    );
    assert!(page["unseen"][0].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{page}");
    target.check();
    let other = Target::start(host, "a=anon:1M");
    let (pid, address) = (other.pid(), format!("{:x}", other.area("a").start));
    let words = [host.target, "as-user", "1000", "pagetide", "explain", &pid, &address];
    assert!(refusal(&host.run(&words), 3).contains("CAP_SYS_PTRACE"));
}

fn a_process_that_has_exited_has_no_pages(host: &Host) {
    let target = Target::start(host, "a=anon:1M");
    let (pid, address) = (target.pid(), format!("{:x}", target.area("a").start));
    target.kill();
    refusal(&host.pagetide(&format!("explain {pid} {address}")), 4);
}
