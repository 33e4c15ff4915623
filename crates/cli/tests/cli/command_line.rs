//! What holds for every subcommand: exit statuses, streams, pipes that are closed.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use super::{pagetide, text};

#[test]
fn help_and_version_succeed_and_go_to_stdout() {
    for arguments in [&["--help"][..], &["machine", "--help"], &["--version"]] {
        let output = pagetide(arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_help_has_the_table_of_exit_statuses() {
    let output = pagetide(&["--help"]);
    let help = text(&output.stdout);
    for line in ["Exit status:", "  0  all done", "  4  no such target, or it has gone"] {
        assert!(help.lines().any(|shown| shown == line), "no line {line:?} in {help}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_status_2_and_a_word_on_stderr() {
    let wrong: [&[&str]; 4] = [&[], &["mov"], &["machine", "--jsno"], &["machine", "a", "b"]];
    for arguments in wrong {
        let output = pagetide(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_failure() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_pagetide"))
        .args(["machine", "two-socket"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn a_full_disk_is_a_failure_that_is_told() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pagetide"))
        .args(["machine", "two-socket"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
}

#[test]
fn a_fuzz_that_could_not_keep_what_it_finds_does_not_begin() {
    let words = ["lab", "fuzz", "--cases", "1"];
    for (option, value) in [("--out", "/dev/null/folder"), ("--from", "18446744073709551615")] {
        let output = pagetide(&[&words[..], &[option, value]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(value) && said.lines().count() == 1, "{said}");
    }
}
