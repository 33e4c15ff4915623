//! fork and exec: what is inherited, what is shared, and what is forgotten.

use super::{expect, run, subject, text};

#[test]
fn a_child_has_the_policy_and_the_pages_of_its_parent() {
    let script = "map a 2; set bind 1; write a 0 2; child policy, where a; policy";
    expect("two-socket", script, &["ok", "bind 1", "a: 1*2", "bind 1"]);
}

#[test]
fn a_page_that_a_child_writes_is_copied_by_the_childs_policy_and_the_parents_stays() {
    let script = "map a 4; write a 0 4; child set bind 1, write a 0 2, where a; where a";
    expect("two-socket", script, &["ok", "a: 1*2 0*2", "a: 0*4"]);
}

#[test]
fn a_change_of_policy_after_the_fork_does_not_reach_the_child() {
    let script = "set bind 1; child child policy, set bind 0; policy";
    expect("two-socket", script, &["ok", "bind 1", "ok", "bind 1"]);
}

#[test]
fn a_new_program_keeps_the_policy_and_the_affinity() {
    let script =
        "set bind 1; run-on 3; exec policy, cpu, may-run-on, map a 2, write a 0 2, where a";
    let lines = ["ok", "ok", "bind 1", "cpu 3 node 1, cpu 3", "3", "a: 1*2"];
    expect("two-socket", script, &lines);
}

#[test]
fn numactl_binds_the_program_that_it_execs() {
    let numactl = ["numactl", "--interleave=all", subject(), "policy; cpu"];
    let output = run(&[&["--machine", "two-socket", "--"], &numactl[..]].concat());
    // Without the files of that machine numactl knows the nodes of this one only.
    assert!(text(&output.stdout).starts_with("interleave 0"), "{output:?}");
}

#[test]
fn an_exec_that_fails_leaves_everything_as_it_was() {
    let script = "map a 2; set bind 1; write a 0 2; child exec-nothing; where a";
    let output = run(&["--", subject(), script]);
    assert!(text(&output.stdout).ends_with("a: 1*2\n"), "{output:?}");
}

#[test]
fn a_shell_that_starts_hundreds_of_programs_gets_the_answer_of_each() {
    let loop_of = format!("for i in $(seq 200); do {} 'set bind 1; policy'; done", subject());
    let output = run(&["--", "sh", "-c", &loop_of]);
    assert_eq!(text(&output.stdout), "ok\nbind 1\n".repeat(200), "{}", text(&output.stderr));
}
