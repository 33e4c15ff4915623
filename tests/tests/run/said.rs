//! `--explain`.

use super::{run, subject, text};

#[test]
fn each_call_is_told_with_its_arguments_and_the_path_of_what_moved() {
    let script = "map a 2; write a 0 2; set bind 1; move a 1";
    let output = run(&["--explain", "--", subject(), script]);
    let said = text(&output.stderr);
    assert!(said.contains("set_mempolicy(MPOL_BIND, {1}, 65) = 0\n"), "{said}");
    assert!(said.contains(", [1, 1], [1, 1], MPOL_MF_MOVE) = 0\n"), "{said}");
    let path =
        "\n  kernel_move_pages > do_pages_move > move_pages_and_store_status > migrate_pages\n";
    assert!(said.contains(path), "{said}");
    assert!(said.contains("moved=2 stayed=0"), "{said}");
}

#[test]
fn calls_can_be_told_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls");
    let option = format!("--explain={}", path.display());
    let output = run(&[&option, "--", subject(), "set bind 9"]);
    assert_eq!(text(&output.stderr), "");
    let told = std::fs::read_to_string(path).unwrap();
    assert!(told.contains("set_mempolicy(MPOL_BIND, {9}, 65) = -1 EINVAL\n"), "{told}");
}

#[test]
fn that_calls_cannot_be_told_any_more_is_told_once_and_the_program_goes_on() {
    let output = run(&["--explain=/dev/full", "--", subject(), "set bind 1; set bind 0; cpu"]);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stderr);
    assert_eq!(said.matches("calls are not told").count(), 1, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn a_file_that_is_shown_by_its_call_is_not_told_as_a_numa_call() {
    let online = "/sys/devices/system/node/online";
    let output = run(&["--files", "injected", "--explain", "--", "cat", online]);
    assert_eq!(text(&output.stdout), "0-1\n");
    assert_eq!(text(&output.stderr), "");
}
