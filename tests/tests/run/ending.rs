//! How a run ends: exit codes, signals, and a supervisor that dies.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::{actor, pagetide, run, text};

fn code(words: &[&str]) -> Option<i32> {
    run(words).status.code()
}

#[test]
fn the_exit_code_is_the_programs() {
    assert_eq!(code(&["--", actor(), "exit 7"]), Some(7));
    assert_eq!(code(&["--", "true"]), Some(0));
}

#[test]
fn a_signal_that_ends_the_program_counts_from_128_as_in_a_shell() {
    assert_eq!(code(&["--", actor(), "die 15"]), Some(143));
    assert_eq!(code(&["--", actor(), "die 9"]), Some(137));
}

#[test]
fn a_program_that_cannot_be_run_is_named_and_the_code_is_a_shells() {
    let output = run(&["--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    let said = "pagetide: cannot run no-such-program: ENOENT (no such file or directory)\n";
    assert_eq!(text(&output.stderr), said);
    assert_eq!(code(&["--", "/etc/passwd"]), Some(126));
}

#[test]
fn a_run_inside_a_run_is_told_why_it_cannot_be() {
    let inner = pagetide();
    let output = run(&["--", inner.to_str().unwrap(), "run", "--", "true"]);
    let said = text(&output.stderr);
    assert!(said.contains("another supervisor") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_signal_to_the_supervisor_reaches_the_program() {
    let script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut running = Command::new(pagetide())
        .args(["run", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let killed = Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(running.wait().unwrap().code(), Some(5));
}

#[test]
fn a_supervisor_that_is_killed_takes_the_program_with_it() {
    let mut running = Command::new(pagetide())
        .args(["run", "--", "sh", "-c", "echo ready; while :; do sleep 0.1; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    running.kill().unwrap();
    running.wait().unwrap();
    // The pipe ends when the last process that could write to it is gone.
    assert!(lines.next().is_none());
}

#[test]
fn an_ordinary_user_gets_the_same_answers_as_root() {
    let is_root = text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0";
    if !is_root {
        return; // Then every other test of this binary has run as one.
    }
    // Where root's own folders are closed to others, the programs lie elsewhere.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copies = [pagetide(), actor().into()].map(|program| {
        let copy = folder.path().join(program.file_name().unwrap());
        std::fs::copy(&program, &copy).unwrap();
        copy
    });
    assert!(Command::new("chmod").arg("755").arg(folder.path()).status().unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copies[0])
        .args(["run", "--machine", "two-socket", "--"])
        .arg(&copies[1])
        .arg("map a 4; write a 0 2; set bind 1; write a 2 4; where a; move a 0; cpu; run-on 3; cpu")
        .output()
        .unwrap();
    let lines = "ok\na: 0*2 1*2\n0: 0*4\ncpu 0 node 0, cpu 0\nok\ncpu 3 node 1, cpu 3\n";
    assert_eq!(text(&output.stdout), lines, "{output:?}");
}
