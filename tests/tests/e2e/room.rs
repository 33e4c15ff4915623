//! Destinations without room: refused before the first page, or told apart when they fill up midway.

use crate::host::Host;
use crate::moves::{About, Move, move_pages};
use crate::program::Program;
use crate::target::Target;

on_each_kernel! {
    four_socket {
        a_full_destination_is_refused_before_the_first_page
        processes_that_fit_only_one_by_one_are_refused_before_the_first_page
        a_destination_that_fills_up_midway_keeps_what_fitted
    }
}

/// 160 MiB: what is free on a full node goes up by 31 MiB for each CPU that kept pages of it on its own
/// list, and this does not fit even then.
const PAGES: u64 = 40960;

/// A process that holds all of node 1 but 16 MiB, and what it is to leave.
fn hog(host: &Host, leaves: &str) -> Program {
    let mut hog = Program::start(host, &[host.target, "hog", "1", leaves]);
    let ready = hog.line();
    assert!(ready.starts_with("ready"), "{ready}");
    hog
}

fn a_full_destination_is_refused_before_the_first_page(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:160M");
    let words = format!("{} --to 1 --range {}", target.pid, target.range("a", 0..PAGES));
    host.sh(&format!("pagetide plan {words} --json > /root/room.json"));
    let hog = hog(host, "0");
    let refused = |words: &str| {
        let output = host.pagetide(words);
        let said = output.stderr_text().into_owned();
        assert_eq!((output.code, output.stdout_text().as_ref()), (1, ""), "{said}");
        said
    };
    let said = refused(&format!("move {words}"));
    assert!(!said.contains('\x1b'), "colours are for terminals: {said:?}");
    assert!(said.contains("nothing was moved") && said.contains("node 1 has room for "), "{said}");
    let said_of_plan = refused("move --plan /root/room.json");
    assert!(said_of_plan.contains("node 1 has room for "), "made when there was room: {said}");
    assert_eq!(target.where_is("a"), format!("0*{PAGES}"));

    // What it advises must work.
    let advice = said.lines().find(|line| line.trim().starts_with("--limit ")).unwrap();
    let limit = advice.split_whitespace().nth(1).unwrap();
    let output = host.pagetide(&format!("move {words} --limit {limit}"));
    assert_eq!(output.code, 0, "--limit {limit}: {output:?}");
    hog.kill();
    target.check();
}

fn processes_that_fit_only_one_by_one_are_refused_before_the_first_page(host: &Host) {
    // Of a node of 512 MiB one takes less than is ever free there (the root file system may be on it),
    // and two more than all of it.
    let mut pair =
        [2, 3].map(|node| Target::start(host, &format!("--on-node {node} a=memfd:260M")));
    host.sh("mkdir -p /sys/fs/cgroup/pair");
    for target in &pair {
        host.write("/sys/fs/cgroup/pair/cgroup.procs", &target.pid());
        let alone = host.pagetide(&format!("plan {} --to 1 --kind shmem", target.pid));
        assert_eq!(alone.code, 0, "{}", alone.stdout_text());
    }
    let both = host.pagetide("plan --cgroup /pair --to 1 --kind shmem");
    assert_eq!(both.code, 1, "{}", both.stdout_text());
    let output = host.pagetide("move --cgroup /pair --to 1 --kind shmem --quiet");
    let said = output.stderr_text();
    assert_eq!((output.code, output.stdout_text().as_ref()), (1, ""), "{said}");
    assert!(said.contains("nothing was moved") && said.contains("node 1 has room for "), "{said}");
    let places = pair.each_mut().map(|target| target.where_is("a"));
    assert!(places[0].starts_with("2*") && places[1].starts_with("3*"), "{places:?}");
    drop(pair);
    host.sh("rmdir /sys/fs/cgroup/pair");
}

fn a_destination_that_fills_up_midway_keeps_what_fitted(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:160M");
    let words = format!("--to 1 --rate 16MiB/s --range {}", target.range("a", 0..PAGES));
    let moving = Move::start(host, &target, &words);
    moving.stop_midway(1);
    let hog = hog(host, "0");
    moving.go_on();
    let outcome = moving.finish(&mut target, About::Areas(&["a"]));
    hog.kill();
    assert!(outcome.stayed_only("no_memory") > 0 && outcome.moved_pages > 0, "{outcome:?}");
    assert_eq!(outcome.found_pages, PAGES);

    let words = format!("--to 1 --range {}", target.range("a", 0..PAGES));
    let again = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(again.moved_pages, outcome.stayed_pages(), "there is room again: {again:?}");
}
