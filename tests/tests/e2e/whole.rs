//! Moves of a whole process.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::program::Program;
use crate::target::{Target, unique_name};

on_each_kernel! {
    two_socket {
        the_outcome_in_words_says_what_the_kernel_says
    }
}

on_each_kernel_and_emulated_by_root! {
    two_socket {
        with_include_shared_nothing_of_a_process_stays
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        every_page_of_a_process_moves_but_those_that_others_map
        a_process_is_found_by_its_name
        pages_that_are_written_meanwhile_lose_no_write
        locked_memory_moves_and_stays_locked
        a_process_that_is_home_already_is_left_alone
    }
    dram_cxl {
        memory_goes_to_a_node_without_cpus_and_back
    }
}

fn every_page_of_a_process_moves_but_those_that_others_map(host: &Host) {
    let mut target = Target::start(host, "--cpu 0 --on-node 0 a=anon:4M t=thp:4M h=heap:1M");
    let mut shared_pages = 0;
    for (node, at_least) in [(1, 2304), (0, 2304)] {
        let words = format!("--to {node}");
        let outcome = move_pages(host, &mut target, &words, About::AllAwayFrom(node));
        assert!(outcome.moved_pages >= at_least, "{outcome:?}");
        assert!(outcome.stayed.keys().all(|cause| cause == "shared"), "{outcome:?}");
        shared_pages += outcome.stayed_pages();
        for (area, pages) in [("a", 1024), ("t", 1024), ("h", 256)] {
            assert_eq!(target.where_is(area), format!("{node}*{pages}"));
        }
    }
    assert!(shared_pages > 0, "the C library is on one of the nodes, and others map it too");
}

fn with_include_shared_nothing_of_a_process_stays(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M h=heap:1M k=stack:256K s=shm:1M");
    for node in [1, 0] {
        let words = format!("--to {node} --include-shared");
        let outcome = move_pages(host, &mut target, &words, About::AllAwayFrom(node));
        assert_eq!(outcome.stayed_pages(), 0, "{outcome:?}");
    }
}

fn a_process_is_found_by_its_name(host: &Host) {
    let name = unique_name("shop");
    let mut target = Target::start(host, &format!("--name {name} --on-node 0 a=anon:1M"));
    let _other = Program::start(host, &["sleep", "1000"]);
    let output = host.pagetide(&format!("move {name} --to 1 --mapping [anon]"));
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(target.where_is("a"), "1*256");
    target.check();
}

fn pages_that_are_written_meanwhile_lose_no_write(host: &Host) {
    // Area by area: a running thread may fault in a page elsewhere between the move and our look.
    let mut target = Target::start(host, "--on-node 0 a=anon:1M,touch t=thp:2M,touch");
    for node in [1, 0] {
        for (area, pages) in [("a", 256), ("t", 512)] {
            let range = target.range(area, 0..pages);
            let words = format!("--to {node} --range {range}");
            let outcome = move_pages(host, &mut target, &words, About::Areas(&[area]));
            assert_eq!(outcome.moved_pages, pages, "{outcome:?}");
        }
    }
    assert_eq!((target.where_is("a"), target.where_is("t")), ("0*256".into(), "0*512".into()));
}

fn locked_memory_moves_and_stays_locked(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M,mlock");
    let locked = |target: &Target| host.sh(&format!("grep VmLck /proc/{}/status", target.pid));
    let before = locked(&target);
    let words = format!("--to 1 --range {}", target.range("a", 0..512));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (512, 0));
    assert_eq!((locked(&target), target.where_is("a")), (before, "1*512".into()));
}

fn a_process_that_is_home_already_is_left_alone(host: &Host) {
    let mut target = Target::start(host, "--on-node 1 a=anon:1M");
    let words = format!("--to 1 --range {}", target.range("a", 0..256));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&[]));
    assert_eq!((outcome.found_pages, outcome.calls), (0, 0), "{outcome:?}");
}

fn the_outcome_in_words_says_what_the_kernel_says(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:4M,pin=3");
    let range = target.range("a", 0..1024);
    let words = format!("move {} --to 1 --range {range} --quiet", target.pid);
    let output = host.pagetide(&words);
    let said = output.stdout_text();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("moved 1021 pages (3.9 MiB) in "), "{said}");
    assert_eq!(lines[1], "! stayed 3 pages (12.0 KiB): pinned or busy");
    assert!(lines[2].starts_with("    they move once the I/O or the pin"), "{said}");
    let last = "verified by asking the kernel again: 12.0 KiB on node 0, 3.9 MiB on node 1";
    assert_eq!(lines[3..], [last]);
    assert_eq!((output.code, output.stderr_text().as_ref()), (1, ""));
    target.check();
}

fn memory_goes_to_a_node_without_cpus_and_back(host: &Host) {
    let mut target = Target::start(host, "--cpu 0 --on-node 0 a=anon:4M t=thp:4M");
    for node in [2, 1] {
        let outcome =
            move_pages(host, &mut target, &format!("--to {node}"), About::AllAwayFrom(node));
        assert!(outcome.moved_pages >= 2048, "{outcome:?}");
        assert_eq!(target.where_is("a"), format!("{node}*1024"));
    }
}
