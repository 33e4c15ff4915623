//! Moves that are narrowed to some of the memory.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::target::Target;

on_each_kernel! {
    two_socket {
        each_page_size_can_be_moved_alone
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        a_range_moves_its_own_pages_only
        a_range_that_ends_within_a_page_takes_the_whole_page
        a_mapping_is_chosen_by_a_part_of_its_name_or_a_pattern
        each_kind_of_memory_can_be_moved_alone
        a_limit_takes_the_first_pages_and_leaves_the_rest
    }
}

fn a_range_moves_its_own_pages_only(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M b=anon:1M");
    let words = format!("--to 1 --range {}", target.range("a", 100..300));
    let outcome = move_pages(host, &mut target, &words, About::PartOf(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.placement), (200, Some([(1, 200)].into())));
    assert_eq!(target.where_is("a"), "0*100 1*200 0*212");
    assert_eq!(target.where_is("b"), "0*256");
}

fn a_range_that_ends_within_a_page_takes_the_whole_page(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:64K");
    let start = target.area("a").start;
    let range = format!("{:x}-{:x}", start + 0x1800, start + 0x3001);
    let words = format!("--to 1 --range {range}");
    let outcome = move_pages(host, &mut target, &words, About::PartOf(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.placement), (3, Some([(1, 3)].into())));
    assert_eq!(target.where_is("a"), "0*1 1*3 0*12");
}

fn a_mapping_is_chosen_by_a_part_of_its_name_or_a_pattern(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 pool=memfd:1M spare=memfd:1M a=anon:1M");
    let outcome = move_pages(host, &mut target, "--to 1 --mapping pool", About::Areas(&["pool"]));
    assert_eq!(outcome.moved_pages, 256);
    let pattern = "--to 1 --mapping /memfd:sp*";
    let outcome = move_pages(host, &mut target, pattern, About::Areas(&["spare"]));
    assert_eq!(outcome.moved_pages, 256);
    assert_eq!(target.where_is("a"), "0*256");
}

fn each_kind_of_memory_can_be_moved_alone(host: &Host) {
    // The root of the guest calls itself rootfs, not tmpfs: what is there are files.
    let files = "v=file:1M,path=/dev/shm/kinds f=file:1M,path=/root/kinds";
    let areas = format!("a=anon:1M h=heap:1M k=stack:512K s=shm:1M {files}");
    let mut target = Target::start(host, &format!("--on-node 0 {areas}"));
    let kinds = [
        ("heap", "h", 256, About::Marked("heap", 1)),
        ("stack", "k", 128, About::Marked("stack", 1)),
        ("shmem", "s", 256, About::Areas(&["s", "v"])),
    ];
    for (kind, area, pages, about) in kinds {
        let outcome = move_pages(host, &mut target, &format!("--to 1 --kind {kind}"), about);
        assert!(outcome.moved_pages >= pages, "{kind}: {outcome:?}");
        assert_eq!(target.where_is(area), format!("1*{pages}"), "{kind}");
    }
    assert_eq!(target.where_is("v"), "1*256");
    let words = "--to 1 --kind file --mapping kinds";
    let outcome = move_pages(host, &mut target, words, About::Areas(&["f"]));
    assert_eq!(outcome.moved_pages, 256);
    assert_eq!(target.where_is("a"), "0*256");
    let words = format!("--to 1 --kind heap,anon --range {}", target.range("a", 0..256));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.moved_pages, 256, "{outcome:?}");
    assert_eq!(target.where_is("a"), "1*256");
}

fn each_page_size_can_be_moved_alone(host: &Host) {
    let pool = "/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages";
    host.sh(&format!("for pool in {pool}; do echo 2 > $pool; done"));
    let mut target = Target::start(host, "--on-node 0 a=anon:1M t=thp:4M g=hugetlb:4M");
    for (size, area) in [("thp", "t"), ("hugetlb", "g")] {
        assert_eq!(target.where_is(area), "0*1024", "before {size}");
        let words = format!("--to 1 --page-size {size}");
        let outcome = move_pages(host, &mut target, &words, About::Areas(&[area]));
        assert_eq!(outcome.moved_pages, 1024, "{size}: {outcome:?}");
        assert_eq!(target.where_is(area), "1*1024", "after {size}");
    }
    assert_eq!(target.where_is("a"), "0*256");
    let outcome = move_pages(host, &mut target, "--to 1 --page-size 4k", About::AllAwayFrom(1));
    assert!(outcome.moved_pages >= 256, "{outcome:?}");
    assert_eq!(target.where_is("a"), "1*256");
    drop(target);
    host.sh(&format!("for pool in {pool}; do echo 0 > $pool; done"));
}

fn a_limit_takes_the_first_pages_and_leaves_the_rest(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M");
    let range = target.range("a", 0..512);
    let words = format!("move {} --to 1 --range {range} --limit 1MiB", target.pid);
    let output = host.pagetide(&words);
    assert_eq!(output.code, 0, "what was asked for is done: {output:?}");
    assert_eq!(target.where_is("a"), "1*256 0*256");
    let said = output.stdout_text();
    assert!(!said.contains("came back"), "what is beyond the limit did not come back: {said}");
    target.check();
}
