//! Targets that exit, and pids that are given to others.

use crate::host::Host;
use crate::moves::{Move, Outcome};
use crate::program::Program;
use crate::said::refusal;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_successor_under_the_same_pid_is_never_touched
        a_plan_for_a_process_that_has_gone_is_not_for_its_successor
        a_record_of_a_process_that_has_gone_is_not_for_its_successor
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        a_target_that_exits_midway_is_reported
        a_target_that_exits_midway_is_told_in_words
        a_kernel_thread_has_no_memory_to_move
        a_zombie_is_gone
    }
}

fn a_target_that_exits_midway_is_reported(host: &Host) {
    let target = Target::start(host, "--on-node 0 a=anon:16M");
    let moving = Move::start(host, &target, "--to 1 --kind anon --rate 4MiB/s");
    moving.stop_midway(1);
    target.kill();
    moving.go_on();
    let ended = moving.mover.wait();
    let outcome = Outcome::of(&ended);
    assert_eq!((outcome.end.as_str(), &outcome.placement), ("target_gone", &None), "{outcome:?}");
    assert!(outcome.moved_pages > 0 && outcome.gone_pages > 0, "{outcome:?}");
    assert_eq!((outcome.stayed_pages(), ended.stderr.as_str()), (0, ""), "{outcome:?}");
}

fn a_target_that_exits_midway_is_told_in_words(host: &Host) {
    let target = Target::start(host, "--on-node 0 a=anon:16M");
    let pid = target.pid();
    let words = "--to 1 --kind anon --rate 4MiB/s --quiet";
    let moving = Move::start_in_words(host, &target, words);
    moving.stop_midway(1);
    target.kill();
    moving.go_on();
    let ended = moving.mover.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (4, ""), "{}", ended.stdout);
    let line = format!("! process {pid} exited while its pages were moved");
    assert!(ended.stdout.lines().any(|said| said == line), "{}", ended.stdout);
}

fn a_successor_under_the_same_pid_is_never_touched(host: &Host) {
    let target = Target::start(host, "--on-node 0 a=anon:16M");
    let moving = Move::start(host, &target, "--to 1 --kind anon --rate 4MiB/s");
    moving.stop_midway(1);
    let pid = target.pid;
    target.kill();
    let mut successor = recycled(host, pid);
    moving.go_on();
    let outcome = Outcome::of(&moving.mover.wait());
    assert_eq!(outcome.end, "target_gone", "{outcome:?}");
    assert_eq!(successor.where_is("a"), "0*4096");
    successor.check();
}

/// A process like the one that had this pid.
fn recycled(host: &Host, pid: u32) -> Target {
    let successor = Target::start_by(host, &format!("recycle {pid}"), "--on-node 0 a=anon:16M");
    assert_eq!(successor.pid, pid);
    successor
}

fn a_plan_for_a_process_that_has_gone_is_not_for_its_successor(host: &Host) {
    let target = Target::start(host, "--on-node 0 a=anon:16M");
    let pid = target.pid;
    host.sh(&format!("pagetide plan {pid} --to 1 --kind anon --json > /root/gone.json"));
    target.kill();
    let words = "move --plan /root/gone.json";
    let line = refusal(&host.pagetide(words), 4);
    assert!(line.contains(&format!("no process {pid}")), "{line}");

    let mut successor = recycled(host, pid);
    let line = refusal(&host.pagetide(words), 4);
    assert!(line.contains(&pid.to_string()) && line.contains("not the one"), "{line}");
    assert_eq!(successor.where_is("a"), "0*4096");
}

fn a_record_of_a_process_that_has_gone_is_not_for_its_successor(host: &Host) {
    let target = Target::start(host, "--on-node 1 a=anon:16M");
    let pid = target.pid;
    host.sh(&format!("pagetide move {pid} --to 0 --kind anon --quiet"));
    target.kill();
    let mut successor = recycled(host, pid);
    let line = refusal(&host.pagetide(&format!("move {pid} --undo")), 2);
    assert!(line.contains("nothing to undo"), "{line}");
    assert_eq!(successor.where_is("a"), "0*4096");
}

fn a_zombie_is_gone(host: &Host) {
    let line = "sleep 1000 & echo $!; exec sleep 1000";
    let mut parent = Program::start(host, &["sh", "-c", line]);
    let pid = parent.line();
    host.sh(&format!("kill -9 {pid}; until grep -q 'State:.Z' /proc/{pid}/status; do :; done"));
    for words in ["show PID", "plan PID --to 1", "move PID --to 1"] {
        let line = refusal(&host.pagetide(&words.replace("PID", &pid)), 4);
        assert!(line.contains(&pid), "{line}");
    }
}

fn a_kernel_thread_has_no_memory_to_move(host: &Host) {
    let line = refusal(&host.pagetide("move 2 --to 1"), 4);
    assert!(line.contains("process 2 (kthreadd) is a kernel thread"), "{line}");
}
