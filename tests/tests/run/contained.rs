//! Where there are no capabilities and no new namespaces, as in a container: every script that
//! `expect` plays is played here too.

use std::process::{Command, Stdio};

use super::{pagetide, text};

/// A command in such a place, with an end to its time.
fn contained(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).args(pagetide_tests::contained()).args(words);
    command.stdin(Stdio::null());
    command
}

/// What a program says under `pagetide run` there.
pub(super) fn say(words: &[&str]) -> String {
    let binary = pagetide();
    let binary = binary.to_str().expect("the path is UTF-8");
    let output = contained(&[&[binary, "run"], words].concat()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output.stdout)
}

#[test]
fn no_namespace_may_be_made_there() {
    for kind in ["-U", "-m", "-Um"] {
        let status = contained(&["unshare", kind, "true"]).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success(), "unshare {kind}");
    }
}

#[test]
fn numactl_finds_and_uses_every_node_of_each_machine() {
    for (machine, nodes) in [("two-socket", 2), ("four-socket", 4), ("snc-4", 4), ("dram-cxl", 3)] {
        let said = say(&["--machine", machine, "--", "numactl", "--hardware"]);
        let last = nodes - 1;
        assert!(said.starts_with(&format!("available: {nodes} nodes (0-{last})\n")), "{said}");
        let bound = format!("--membind={last}");
        let said = say(&["--machine", machine, "--", "numactl", &bound, "numactl", "--show"]);
        assert!(said.contains(&format!("membind: {last} ")), "{said}");
    }
}

#[test]
fn migratepages_and_numastat_work_there() {
    let script = "sleep 60 & sleep 0.1; migratepages $! 0 1; numastat -p $! | grep ^Total; kill $!";
    let said = say(&["--machine", "two-socket", "--", "sh", "-c", script]);
    let columns: Vec<&str> = said.split_whitespace().collect();
    let [_, on_0, on_1, total] = columns[..] else { panic!("{said}") };
    let of = |column: &str| column.parse::<f64>().unwrap();
    // Pages that other programs map too stay.
    assert!(of(on_1) > 0.0 && of(on_0) < of(total), "{said}");
}
