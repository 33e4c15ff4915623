//! Tests that run the built command on this computer, whatever it has of nodes.

#![expect(clippy::unwrap_used, reason = "a test that cannot run its command must fail")]

mod command_line;
mod lab;
mod machine;
mod migratepages_golden;
mod model;
mod names;
mod process;
mod program;

use std::process::{Command, Output, Stdio};

/// Runs `pagetide` with these arguments to its end.
fn pagetide(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagetide"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command printed; it is text, or the test fails.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}
