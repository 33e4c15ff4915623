//! Every conformance case on a real kernel and on the model, and docs/conformance.md beside both.

use std::fs;
use std::path::{Path, PathBuf};

use lab::conformance::{play, read_cases};
use scenario::{Case, Kernel};

use crate::host::pagetide_binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cases() -> Vec<Case> {
    read_cases(&[root().join("tests/scenarios")]).unwrap()
}

/// One guest plays them all. The row of each case has what the kernel gave: the file is held to the
/// kernel here, and the page to the file below.
fn every_case_gives_what_its_row_says(kernel: Kernel) {
    let cases = cases();
    let table = play(&cases, kernel, &pagetide_binary(), &mut |_| ()).unwrap();
    let told: Vec<String> = table.deviations.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} of {}:\n{}", told.len(), table.played, told.join("\n"));
    assert_eq!(table.played, cases.len());
}

#[test]
fn every_case_gives_what_its_row_says_on_6_12() {
    every_case_gives_what_its_row_says(Kernel::V6_12);
}

#[cfg(feature = "newest-kernel")]
#[test]
fn every_case_gives_what_its_row_says_on_6_1() {
    every_case_gives_what_its_row_says(Kernel::V6_1);
}

#[cfg(feature = "newest-kernel")]
#[test]
fn every_case_gives_what_its_row_says_on_the_newest() {
    every_case_gives_what_its_row_says(Kernel::V7_3);
}

#[test]
fn the_page_of_all_cases_is_up_to_date() {
    let causes = fs::read_to_string(root().join("tests/scenarios/differences")).unwrap();
    let played = conformance::play_on_model(cases());
    let page = conformance::page(&played, &causes.parse().unwrap()).unwrap();
    let kept = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let stale = page.lines().zip(kept.lines()).find(|(new, old)| new != old);
    assert!(
        page == kept,
        "docs/conformance.md is stale: pagetide lab conformance --write docs/conformance.md\n{stale:?}"
    );
}
