//! Tests that run programs under `pagetide run` here, without a guest: what the subject
//! (`numa-subject`) is answered must be what a kernel on that machine would answer.
//!
//! It needs `cargo build -p pagetide-cli` of the same profile before it. Where user notification is
//! not to be had (an outer container that intercepts calls), every test fails and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod conformance;
mod contained;
mod ending;
mod files;
mod memory;
mod moving;
mod observing;
mod placing;
mod processes;
mod python;
mod said;
mod soak;
mod threads;
mod tracing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The binary of the cli, beside our own.
fn pagetide() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_numa-subject"));
    let path = beside.with_file_name("pagetide");
    assert!(path.is_file(), "{} is missing: cargo build -p pagetide-cli", path.display());
    path
}

fn subject() -> &'static str {
    env!("CARGO_BIN_EXE_numa-subject")
}

/// `pagetide run` with these words, under `timeout` so that a hang is a failure.
fn run(words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(pagetide()).arg("run").args(words);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the subject says when it plays a script on a machine.
fn on(machine: &str, script: &str) -> String {
    let output = run(&["--machine", machine, "--", subject(), script]);
    assert!(output.status.success(), "{script}: {output:?}");
    text(&output.stdout)
}

/// Holds each line that the subject says against what is expected, also where nothing is permitted.
fn expect(machine: &str, script: &str, lines: &[&str]) {
    let said = on(machine, script);
    assert_eq!(said.lines().collect::<Vec<_>>(), lines, "{script} on {machine}");
    let said = contained::say(&["--machine", machine, "--", subject(), script]);
    assert_eq!(said.lines().collect::<Vec<_>>(), lines, "{script} on {machine}, contained");
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Asks until there is an answer, for half a minute.
fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    (0..600).find_map(|attempt| {
        if attempt > 0 {
            sleep(Duration::from_millis(50));
        }
        ask()
    })
}

/// Whether a process ends; one that is not taken leave of by its parent has ended too.
fn is_gone_soon(pid: u32) -> bool {
    let has_ended = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    };
    soon(|| has_ended().then_some(())).is_some()
}
