//! Where first touches go: by the policy of the thread, of the mapping, by the CPU, by free memory.

use super::{expect, on};

#[test]
fn memory_is_placed_where_the_thread_runs() {
    let script = "map a 4; write a 0 2; run-on 2; write a 2 4; where a; cpu";
    expect("two-socket", script, &["ok", "a: 0*2 1*2", "cpu 2 node 1, cpu 2"]);
}

#[test]
fn pages_touched_before_a_policy_keep_their_place_and_those_after_follow_it() {
    let script = "map a 4; write a 0 2; set bind 1; write a 2 4; policy; set default; where a";
    expect("two-socket", script, &["ok", "bind 1", "ok", "a: 0*2 1*2"]);
}

#[test]
fn interleaved_pages_take_turns_over_the_nodes() {
    let script = "map a 64; set interleave 0-3; write a 0 64; where a";
    let said = on("four-socket", script);
    let runs: Vec<&str> = said.lines().nth(1).unwrap().split(' ').skip(1).collect();
    assert_eq!(runs.len(), 64, "{said}");
    for (run, next) in runs.iter().zip(&runs[1..]) {
        let node = |run: &str| run.split('*').next().unwrap().parse::<u32>().unwrap();
        assert_eq!(node(next), (node(run) + 1) % 4, "{said}");
    }
}

#[test]
fn a_policy_of_the_mapping_wins_over_that_of_the_thread() {
    let script =
        "map a 4; map b 4; bind a bind 3; set bind 2; write a 0 4; write b 0 4; where a; where b";
    expect("four-socket", script, &["ok", "ok", "a: 3*4", "b: 2*4"]);
}

#[test]
fn a_memory_only_node_is_filled_by_policy_alone() {
    let script = "map a 4; write a 0 2; set bind 1; write a 2 4; where a; cpu";
    let said = on("dram-cxl", script);
    assert!(said.contains("a: 0*2 1*2"), "{said}");
    assert!(said.contains("node 0"), "a node without CPUs runs nothing: {said}");
}

#[test]
fn huge_pages_are_placed_whole() {
    let script = "map a 1024 huge; set bind 1; write a 0 1; set bind 0; write a 512 513; where a";
    let said = on("two-socket", script);
    let placed = said.lines().last().unwrap();
    // A host without THPs has two base pages instead.
    assert!(["a: 1*512 0*512", "a: 1*1 -*511 0*1 -*511"].contains(&placed), "{said}");
}

#[test]
fn an_untouched_page_is_absent_and_one_only_read_is_the_zero_page() {
    let script = "map a 3; write a 0 1; read a 1 2; where a";
    expect("two-socket", script, &["a: 0*1 errno-14*1 -*1"]);
}

#[test]
fn nodes_and_cpus_that_the_machine_lacks_are_refused() {
    let script = "set bind 7; run-on 63; map a 1; write a 0 1; move a 7";
    expect("four-socket", script, &["errno 22", "errno 22", "errno 19: errno-2147483648*1"]);
}

#[test]
fn what_a_full_node_cannot_hold_goes_to_the_nearest() {
    // 320 MiB of node 0 are taken after 800 of its 1024: what is left falls back to node 1.
    let script =
        "map a 204800; write a 0 204800; node a 0; map b 81920; write b 0 81920; node b 81919";
    expect("two-socket", script, &["node 0", "node 1"]);
}

#[test]
fn more_memory_than_the_machine_has_is_said_in_one_line_and_the_program_goes_on() {
    let script = "map a 1024; set bind 1; write a 0 1024; where a; map b 300000 ; write b 0 300000; where a; set default; cpu";
    let output = super::run(&["--", super::subject(), script]);
    let said = super::text(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    let full = |line: &&str| line.contains("the machine is full");
    assert_eq!(said.lines().filter(full).count(), 1, "{said}");
}
