//! Where pages go: from nodes to nodes, in turn, near the CPUs.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::target::Target;

on_each_kernel_and_emulated! {
    four_socket {
        from_and_to_keep_the_relative_position
        a_node_that_is_not_named_in_from_is_left_alone
        interleave_spreads_pages_by_their_number
        interleave_with_weights_gives_each_node_its_share
        interleave_takes_huge_pages_as_one
        near_cpus_is_where_the_threads_may_run
    }
    dram_cxl {
        near_cpus_chooses_the_nearest_of_several_nodes
    }
}

fn from_and_to_keep_the_relative_position(host: &Host) {
    let mut target = Target::start(host, "a=anon:2M,nodes=0,1");
    let before = target.nodes_of("a");
    let words = format!("--from 0,1 --to 1,2 --range {}", target.range("a", 0..512));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (512, 0), "{outcome:?}");
    let expected: Vec<u64> = before.iter().map(|node| node + 1).collect();
    assert_eq!(target.nodes_of("a"), expected);
}

fn a_node_that_is_not_named_in_from_is_left_alone(host: &Host) {
    let mut target = Target::start(host, "a=anon:1M,nodes=0,1,2,3");
    let words = format!("--from 0,2 --to 1 --range {}", target.range("a", 0..256));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.moved_pages, 128, "{outcome:?}");
    let expected: Vec<u64> = (0..256).map(|page| if page % 4 == 3 { 3 } else { 1 }).collect();
    assert_eq!(target.nodes_of("a"), expected);
}

fn interleave_spreads_pages_by_their_number(host: &Host) {
    let mut target = Target::start(host, "a=anon:2M,node=2");
    let words = format!("--interleave 0-3 --range {}", target.range("a", 0..512));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    let first = target.area("a").start / 4096;
    assert_eq!(target.nodes_of("a"), (0..512).map(|page| (first + page) % 4).collect::<Vec<_>>());
    assert_eq!((outcome.moved_pages, outcome.already_there_pages), (384, 128), "{outcome:?}");
}

fn interleave_with_weights_gives_each_node_its_share(host: &Host) {
    let mut target = Target::start(host, "a=anon:2M,nodes=1,3");
    let words = format!("--interleave 0=3,1=1 --range {}", target.range("a", 0..512));
    move_pages(host, &mut target, &words, About::Areas(&["a"]));
    let first = target.area("a").start / 4096;
    let node_of = |page: u64| u64::from((first + page) % 4 == 3);
    assert_eq!(target.nodes_of("a"), (0..512).map(node_of).collect::<Vec<_>>());
}

fn interleave_takes_huge_pages_as_one(host: &Host) {
    let mut target = Target::start(host, "t=thp:12M,node=0");
    let words = format!("--interleave 1,2 --range {}", target.range("t", 0..3072));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["t"]));
    let first = target.area("t").start / (2 << 20);
    let node_of = |page: u64| 1 + (first + page / 512) % 2;
    assert_eq!(target.nodes_of("t"), (0..3072).map(node_of).collect::<Vec<_>>());
    assert_eq!(outcome.moved_pages, 3072);
}

fn near_cpus_is_where_the_threads_may_run(host: &Host) {
    let areas = "a=anon:2M,nodes=0,1,2,3 t=thp:4M,node=1";
    let mut target = Target::start(host, &format!("--cpu 3 --thread-cpus 3 {areas}"));
    let outcome = move_pages(host, &mut target, "--near-cpus", About::AllAwayFrom(3));
    assert!(outcome.moved_pages >= 384 + 1024, "{outcome:?}");
    assert_eq!((target.where_is("a"), target.where_is("t")), ("3*512".into(), "3*1024".into()));
}

fn near_cpus_chooses_the_nearest_of_several_nodes(host: &Host) {
    let mut target = Target::start(host, "--thread-cpus 0,2 a=anon:3M,nodes=0,1,2");
    let words = format!("--near-cpus --range {}", target.range("a", 0..768));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.moved_pages, 256, "node 2 is nearer to node 0 than to node 1");
    let expected: Vec<u64> = (0..768).map(|page| [0, 1, 0][page % 3]).collect();
    assert_eq!(target.nodes_of("a"), expected);
}
