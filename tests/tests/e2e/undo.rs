//! The way back.

use crate::host::Host;
use crate::moves::{About, Move, move_pages, outcome_of};
use crate::said::refusal;
use crate::target::Target;

on_each_kernel_and_emulated! {
    four_socket {
        undo_brings_every_page_back_to_where_it_was
        undo_leaves_alone_what_has_changed_since
        a_move_without_a_record_cannot_be_undone
        moves_are_undone_one_by_one_from_the_last
        a_huge_page_that_moved_for_a_part_of_it_goes_back
        a_move_of_a_whole_process_that_is_killed_midway_is_undone
        undo_takes_what_the_filters_let_through_and_the_rest_later
    }
}

fn undo_brings_every_page_back_to_where_it_was(host: &Host) {
    let words = "a=anon:2M,nodes=0,1,3,2,2 t=thp:6M,nodes=0,1 b=memfd:1M,node=2";
    let mut target = Target::start(host, words);
    let areas = ["a", "t", "b"];
    let before = areas.map(|area| target.nodes_of(area));
    // Of the text, others may map some pages between there and back.
    let there = outcome_of(host, &target, "--to 1 --kind anon,shmem");
    assert_eq!(target.where_is("a"), "1*512");
    let back = outcome_of(host, &target, "--undo");
    assert_eq!((back.moved_pages, back.stayed_pages()), (there.moved_pages, 0), "{back:?}");
    assert_eq!(areas.map(|area| target.nodes_of(area)), before);
    target.check();

    let line = refusal(&host.pagetide(&format!("move {} --undo", target.pid)), 2);
    assert!(line.contains(&target.pid()) && line.contains("nothing to undo"), "{line}");
}

fn undo_leaves_alone_what_has_changed_since(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M b=anon:1M");
    outcome_of(host, &target, "--to 1 --kind anon");
    let elsewhere = format!("--to 2 --no-record --range {}", target.range("a", 100..200));
    move_pages(host, &mut target, &elsewhere, About::PartOf(&["a"]));
    assert_eq!(target.ask("unmap b"), "ok");
    let back = outcome_of(host, &target, "--undo");
    assert_eq!(back.stayed_pages(), 0, "{back:?}");
    assert_eq!(target.where_is("a"), "0*100 2*100 0*312");
    target.check();
}

fn a_move_without_a_record_cannot_be_undone(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    let words = format!("--to 1 --no-record --range {}", target.range("a", 0..256));
    move_pages(host, &mut target, &words, About::Areas(&["a"]));
    refusal(&host.pagetide(&format!("move {} --undo", target.pid)), 2);
    assert_eq!(target.where_is("a"), "1*256");
}

fn moves_are_undone_one_by_one_from_the_last(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    for node in [1, 2, 3] {
        let words = format!("--to {node} --range {}", target.range("a", 0..256));
        move_pages(host, &mut target, &words, About::Areas(&["a"]));
    }
    for node in [2, 1, 0] {
        move_pages(host, &mut target, "--undo", About::Areas(&["a"]));
        assert_eq!(target.where_is("a"), format!("{node}*256"));
    }
}

fn a_huge_page_that_moved_for_a_part_of_it_goes_back(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 t=thp:4M");
    outcome_of(host, &target, &format!("--to 1 --range {}", target.range("t", 700..800)));
    assert_eq!(target.where_is("t"), "0*512 1*512");
    assert_eq!(outcome_of(host, &target, "--undo").moved_pages, 512);
    assert_eq!(target.where_is("t"), "0*1024");
    target.check();
}

fn undo_takes_what_the_filters_let_through_and_the_rest_later(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M t=thp:4M");
    outcome_of(host, &target, "--to 1 --kind anon");
    let undo = |words: &str| outcome_of(host, &target, &format!("--undo {words}")).moved_pages;
    assert_eq!(undo(&format!("--range {}", target.range("a", 0..100))), 100);
    let of_both = format!("{:x}-{:x}", 0, u64::MAX >> 17 << 12);
    assert_eq!(undo(&format!("--page-size thp --limit 2MiB --range {of_both}")), 512);
    assert_eq!(target.where_is("a"), "0*100 1*156");
    assert_eq!(target.where_is("t"), "0*512 1*512");
    outcome_of(host, &target, "--undo");
    assert_eq!(target.where_is("a"), "0*256");
    assert_eq!(target.where_is("t"), "0*1024");
    refusal(&host.pagetide(&format!("move {} --undo", target.pid)), 2);
    target.check();
}

fn a_move_of_a_whole_process_that_is_killed_midway_is_undone(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:160M");
    let moving = Move::start(host, &target, "--to 1");
    moving.stop_midway(1);
    moving.mover.kill();
    outcome_of(host, &target, "--undo");
    assert_eq!(target.where_is("a"), "0*40960");
    target.check();
}
