//! Every conformance case on the model, on every kernel: one test each, named after the case.
//!
//! `known-failures` lists what does not hold yet, with a reason a line; a case that is listed and
//! passes fails the run, so that the list can only shrink.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use conformance::{Player, case_machine, kernel_version};
use libtest_mimic::{Arguments, Failed, Trial};
use pagetide_conformance as conformance;
use scenario::{Case, Kernel, oracle, parse_case_file};

fn main() {
    let arguments = Arguments::from_args();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = known_failures(&here.join("tests/known-failures"));
    let mut trials = Vec::new();
    for case in cases(&here.join("../../tests/scenarios")) {
        for kernel in Kernel::ALL {
            let name = format!("{} on {}: {}", case.number, kernel.name(), case.proves);
            let listed = known.get(&(case.number.clone(), kernel)).cloned();
            let case = case.clone();
            trials.push(Trial::test(name, move || run(&case, kernel, listed.as_deref())));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn cases(folder: &Path) -> Vec<Case> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder of case files")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cases"))
        .collect();
    paths.sort();
    paths
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).expect("a case file");
            parse_case_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// Lines of `NUMBER KERNEL reason`.
fn known_failures(path: &Path) -> BTreeMap<(String, Kernel), String> {
    let text = fs::read_to_string(path).expect("the list of known failures");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let number = words.next().unwrap_or_default().to_owned();
            let kernel = words.next().unwrap_or_default();
            let kernel = Kernel::ALL.into_iter().find(|known| known.name() == kernel);
            let reason = words.next().unwrap_or_default().to_owned();
            assert!(!reason.is_empty(), "`{line}` needs a reason");
            ((number, kernel.unwrap_or_else(|| panic!("no kernel in `{line}`"))), reason)
        })
        .collect()
}

fn run(case: &Case, kernel: Kernel, known: Option<&str>) -> Result<(), Failed> {
    let played = std::panic::catch_unwind(|| {
        let mut player = Player::new(case_machine(kernel_version(kernel)));
        player.play(&case.scenario, |machine| {
            if let Err(broken) = machine.check() {
                panic!("after a step of {}: {broken}", case.number);
            }
        })
    });
    let theirs = case.result(kernel);
    let (agree, ours) = match played {
        Ok(record) => (oracle::agrees_with_line(&case.scenario, theirs, &record), record.to_line()),
        Err(_) => (false, "panic".to_owned()),
    };
    match (agree, known) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(_)) => Err("listed in known-failures, but it passes".into()),
        (false, None) => Err(format!("{}\n kernel {theirs}\n model  {ours}", case.scenario).into()),
    }
}
