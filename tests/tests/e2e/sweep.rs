//! Moves of a whole process, which one call of migrate_pages(2) begins: nothing moves that is not to,
//! and whatever the call leaves has its reason.

use crate::host::Host;
use crate::moves::{About, move_pages, outcome_of};
use crate::numa_maps;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        every_kind_of_page_moves_but_what_others_map_and_what_is_pinned
    }
}

on_each_kernel_and_emulated_by_root! {
    two_socket {
        a_process_that_may_move_as_a_whole_moves_by_one_call
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        a_move_of_a_whole_process_is_undone
    }
}

fn every_kind_of_page_moves_but_what_others_map_and_what_is_pinned(host: &Host) {
    let words = "--on-node 0 a=anon:4M,pin=3 t=thp:4M l=anon:1M,mlock m=memfd:1M \
                 f=file:1M,path=/root/swept s=memfd:2M,shared-with-child";
    let mut target = Target::start(host, words);
    let outcome = move_pages(host, &mut target, "--to 1", About::AllAwayFrom(1));
    assert_eq!(outcome.stayed["pinned_or_busy"], 3, "{outcome:?}");
    assert!(outcome.stayed["shared"] >= 512, "{outcome:?}");
    assert_eq!(outcome.stayed.len(), 2, "{outcome:?}");
    assert_eq!(target.where_is("a"), "0*3 1*1021");
    for (area, pages) in [("t", 1024), ("l", 256), ("m", 256), ("f", 256)] {
        assert_eq!(target.where_is(area), format!("1*{pages}"));
    }
    let child = numa_maps::read(host, target.child.expect("an area is shared with a child"));
    let start = target.area("s").start;
    let shared = child.into_iter().find(|mapping| mapping.range.start == start).unwrap();
    assert_eq!(shared.pages, [(0, 512)].into());
}

fn a_process_that_may_move_as_a_whole_moves_by_one_call(host: &Host) {
    let mut target = Target::start(host, "--cpu 0 --on-node 0 a=anon:4M t=thp:4M h=heap:1M");
    for node in [1, 0] {
        let words = format!("--to {node} --include-shared");
        let outcome = move_pages(host, &mut target, &words, About::AllAwayFrom(node));
        assert_eq!((outcome.calls, outcome.stayed_pages()), (1, 0), "{outcome:?}");
        assert!(outcome.moved_pages >= 2304, "{outcome:?}");
    }
}

fn a_move_of_a_whole_process_is_undone(host: &Host) {
    let mut target = Target::start(host, "a=anon:2M,nodes=0,1 t=thp:4M,node=0 b=memfd:1M,node=0");
    let areas = ["a", "t", "b"];
    let before = areas.map(|area| target.nodes_of(area));
    outcome_of(host, &target, "--to 1");
    assert_eq!(areas.map(|area| target.where_is(area)), ["1*512", "1*1024", "1*256"]);
    outcome_of(host, &target, "--undo");
    assert_eq!(areas.map(|area| target.nodes_of(area)), before);
    target.check();
}
