//! The conformance cases of tests/scenarios, played by `pagetide actor` under `pagetide run`: what the
//! model answers to real system calls is held to what the kernel gave on such a machine.
//!
//! `through-run` lists the cases that cannot agree, each with the reason that docs/run.md explains. A
//! case that is listed and agrees is an error, unless its reason says that it depends on the host.
//! Cases that would change this computer (cgroups, pools, KSM, tracefs) are not played.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use lab::conformance::read_cases;
use scenario::{Case, Kernel, Record, RecordLine, Scenario, Step, oracle};

use super::{pagetide, text};

/// The machine of the cases.
const MACHINE: &str = r#"
name = "cases"
node = [
    { cpus = "0-1", memory = "512MiB" },
    { cpus = "2-3", memory = "512MiB" },
    { memory = "512MiB" },
]
distance.rows = [[10, 21, 31], [21, 10, 41], [31, 41, 10]]
"#;

/// Begins the reason of a case that agrees on some hosts.
const BY_HOST: &str = "host:";

fn changes_this_computer(scenario: &Scenario) -> bool {
    scenario.has(|step| {
        step.changes_cpuset()
            || matches!(
                step,
                Step::Cgroup { .. }
                    | Step::CgroupEffective { .. }
                    | Step::Pool { .. }
                    | Step::Ksm
                    | Step::TraceOn
            )
    })
}

/// Plays cases in one process tree.
fn play(cases: &[Case]) -> BTreeMap<String, Record> {
    let folder = tempfile::tempdir().unwrap();
    let machine = folder.path().join("cases.toml");
    fs::write(&machine, MACHINE).unwrap();
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", "400"])
        .arg(pagetide())
        .args(["run", "--kernel", Kernel::V6_12.name(), "--machine"])
        .arg(&machine)
        .arg("--")
        .arg(pagetide())
        .arg("actor")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String =
        cases.iter().map(|case| format!("{} {}\n", case.number, case.scenario)).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    records(&text(&output.stdout))
}

fn records(text: &str) -> BTreeMap<String, Record> {
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    let mut number = String::new();
    for line in text.lines() {
        match line.parse().unwrap() {
            RecordLine::Case(next) => number = next,
            RecordLine::Result(step, seen) => {
                records.entry(number.clone()).or_default().results.push((step, seen));
            }
            RecordLine::End(end) => records.entry(number.clone()).or_default().end = end,
        }
    }
    records
}

/// Lines of `NUMBER reason`.
fn listed() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/through-run");
    let lines = fs::read_to_string(path).unwrap();
    let lines = lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (number, reason) = line.split_once(' ').unwrap();
        (number.to_owned(), reason.to_owned())
    };
    lines.map(split).collect()
}

#[test]
fn every_case_that_is_not_listed_gives_what_the_kernel_gave_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let all = read_cases(&[folder]).unwrap();
    let cases: Vec<Case> =
        all.into_iter().filter(|case| !changes_this_computer(&case.scenario)).collect();
    let records = play(&cases);
    let mut listed = listed();
    let mut wrong = Vec::new();
    for case in &cases {
        let theirs = case.result(Kernel::V6_12);
        let ours = records.get(&case.number).cloned().unwrap_or_default();
        let agrees = oracle::agrees_with_line(&case.scenario, theirs, &ours);
        match (agrees, listed.remove(&case.number)) {
            (false, None) => wrong.push(format!(
                "{} {}\n  kernel {theirs}\n  run    {}",
                case.number,
                case.scenario,
                ours.to_line()
            )),
            (true, Some(reason)) if !reason.starts_with(BY_HOST) => {
                wrong.push(format!("{} is listed ({reason}) and agrees", case.number));
            }
            _ => {}
        }
    }
    assert!(listed.is_empty(), "listed, and not played: {listed:?}");
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
