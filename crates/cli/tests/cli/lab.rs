//! What `pagetide lab` says before it boots anything.

use std::process::{Command, Stdio};

use super::text;

/// `pagetide` on a computer where no kernel is to be had, so that no guest can be booted.
fn without_kernels() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagetide"));
    command.stdin(Stdio::null()).env("PAGETIDE_KERNEL_DIR", "/no-kernels");
    command
}

#[test]
fn every_number_that_no_case_has_is_named_and_nothing_is_played() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/scenarios");
    let output = without_kernels()
        .args(["lab", "conformance", "--case", "MP-46,NOPE-1,NOPE-2", cases])
        .output()
        .unwrap();
    let said = "pagetide: no case has the number NOPE-1, NOPE-2\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), said));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_kernel_given_by_its_path_needs_no_folder_for_kernels() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagetide"));
    for variable in ["HOME", "XDG_CACHE_HOME", "PAGETIDE_KERNEL_DIR"] {
        command.env_remove(variable);
    }
    // Any file will do as a kernel: what is asked for next is a program that nobody has.
    let output = command
        .args(["lab", "--kernel", env!("CARGO_MANIFEST_PATH"), "--", "/no/such/program"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("/no/such/program"), "{}", text(&output.stderr));
}
