//! What `pagetide lab` says before it boots anything.

use std::process::{Command, Stdio};

use super::text;

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
