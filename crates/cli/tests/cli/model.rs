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

#[test]
fn a_step_that_is_too_large_or_cannot_be_performed_is_named_in_one_line() {
    let too_many = "are too many: up to 1048576";
    for (scenario, named) in [
        ("hog 2 4", "cannot hog 2 4: node 2 has no memory"),
        ("hog 2000 1", "cannot hog 2000 1: node 2000 has no memory"),
        ("map a 4; where a[0..18446744073709551615]", too_many),
        ("map a 4; where a[1..18446744073709551615/9223372036854775807]", too_many),
        ("where 0x1000:1048577", too_many),
        ("map a 1; mv 0 a*18446744073709551615 1", too_many),
        ("map a 1048576; mv 0 a,a 1", too_many),
        ("map a 1; mv 0 a 1*18446744073709551615", too_many),
        ("map a 4294967295; fill a 0", too_many),
    ] {
        let output = pagetide(&["model", "explain", scenario]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{scenario}: {said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{scenario}: {said}");
        assert_eq!(text(&output.stdout), "", "{scenario}");
    }
}

#[test]
fn a_node_that_has_no_memory_cannot_be_filled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hollow.toml");
    let node = |cpus, memory| format!("[[node]]\ncpus = \"{cpus}\"\nmemory = \"{memory}\"\n");
    let machine = format!("name = \"hollow\"\n{}{}", node("0", "256MiB"), node("1", "0"));
    std::fs::write(&file, machine).unwrap();
    let steps = "map a 1; hog 1 0; where a";
    let output = pagetide(&["model", "explain", steps, "--machine", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "map a 1\n");
    assert_eq!(text(&output.stderr), "pagetide: cannot hog 1 0: node 1 has no memory\n");
}

#[test]
fn a_file_has_no_page_before_its_first() {
    let output = pagetide(&["model", "explain", "map a 1 memfd; write a-4096; readf a-4096"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = "map a 1 memfd\nwrite a-4096 -> EINVAL\nreadf a-4096 -> EINVAL\n";
    assert_eq!(text(&output.stdout), said);
}
