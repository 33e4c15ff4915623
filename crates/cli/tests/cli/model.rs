//! `pagetide model explain`.

use super::{pagetide, text};

#[test]
fn a_migration_is_told_with_its_path_reason_mode_and_result() {
    let output = pagetide(&["model", "explain", "map a 4; fill a 0; mp 0 {0} {1}; where a"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "map a 4\n\
         fill a 0\n\
         mp 0 {0} {1} -> 0\n\
         kernel_migrate_pages > do_migrate_pages > migrate_to_node > migrate_pages\n  \
         reason=syscall_or_cpuset mode=MIGRATE_SYNC moved=4 stayed=0 split=0 entries_set=4\n\
         where a -> a:1111\n"
    );
}

#[test]
fn a_scenario_machine_or_kernel_that_is_none_is_named_in_one_line() {
    for (arguments, named) in [
        (["map a 4; nonsense", "--kernel", "6.12"], "`nonsense`"),
        (["map a 4", "--kernel", "5.10"], "5.10"),
        (["map a 4", "--machine", "no-such-machine"], "no-such-machine"),
    ] {
        let output = pagetide(&[["model", "explain"].as_slice(), arguments.as_slice()].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_machine_that_the_model_cannot_boot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.toml");
    let text_of = "name = \"small\"\n[[node]]\ncpus = \"0\"\nmemory = \"1MiB\"\n";
    std::fs::write(&file, text_of).unwrap();
    let path = file.to_str().unwrap();
    let output = pagetide(&["model", "explain", "map a 1", "--machine", path]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the model takes"), "{said}");
}

#[test]
fn a_step_of_a_process_that_has_exited_ends_the_scenario() {
    let output = pagetide(&["model", "explain", "map a 1; exit; touch a; where a"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "map a 1\nexit\ntouch a -> killed, or exited before\n");
}
