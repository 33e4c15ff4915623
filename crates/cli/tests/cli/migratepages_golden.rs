//! Plays `tests/golden/migratepages.txt` through numactl's migratepages and through ours.
//!
//! Every line must give the same stdout, stderr and exit status, byte for byte. On a machine of one
//! node nothing moves, but everything that is read, refused and said can be compared; the same
//! lines are played where there are more nodes by the end-to-end tests.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const THEIRS: &str = "/usr/bin/migratepages";
const OURS: &str = env!("CARGO_BIN_EXE_pagetide");
const LINES: &str = include_str!("../../../../tests/golden/migratepages.txt");

/// A process that sleeps until this test is over.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The words of a line: blanks separate them, single quotes keep them.
fn words(line: &str, pid: u32) -> Vec<String> {
    let line = line.replace("$PID", &pid.to_string());
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

fn play(program: &str, words: &[String], posix: bool) -> Output {
    let mut command = Command::new(program);
    command.arg0("migratepages").args(words).stdin(Stdio::null()).env("LC_ALL", "C");
    if posix {
        command.env("POSIXLY_CORRECT", "1");
    } else {
        command.env_remove("POSIXLY_CORRECT");
    }
    command.output().unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    format!("{} stdout {} stderr {}", output.status, text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_golden_line_gives_what_numactls_migratepages_gives() {
    assert!(
        Path::new(THEIRS).exists(),
        "{THEIRS} is missing, and without it there is nothing to compare with: apt-get install numactl"
    );
    let sleeper = Sleeper(Command::new("sleep").arg("600").spawn().unwrap());
    let lines: Vec<&str> = LINES.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 60, "only {} golden lines", lines.len());
    let mut differences = String::new();
    for posix in [false, true] {
        for line in &lines {
            let words = words(line, sleeper.0.id());
            let (theirs, ours) = (play(THEIRS, &words, posix), play(OURS, &words, posix));
            if theirs != ours {
                differences += &format!(
                    "\n{line} (POSIXLY_CORRECT: {posix})\n  theirs: {}\n  ours:   {}",
                    shown(&theirs),
                    shown(&ours)
                );
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
