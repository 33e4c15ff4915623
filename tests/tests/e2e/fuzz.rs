//! A short fuzz of a fixed seed: the model gives what 6.12 gives.

use lab::LabOptions;
use lab::fuzz::{FuzzOptions, fuzz};
use scenario::Kernel;
use scenario::generate::SEQUENCES;

use crate::host::pagetide_binary;

/// No scenario from `from` on may differ.
fn agree(from: u64, cases: u64) {
    let topology = conformance::case_topology();
    let lab = LabOptions { pagetide: pagetide_binary(), ..LabOptions::new(topology).unwrap() };
    let options = FuzzOptions { lab, kernel: Kernel::V6_12, seed: 1, from, cases };
    let report = fuzz(&options, &mut |_| (), &mut |_| (), &mut |_| Ok(())).unwrap();
    let told: Vec<String> = report.found.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert_eq!(report.played, cases);
}

#[test]
fn scenarios_of_seed_1_agree_on_6_12() {
    agree(SEQUENCES, 150);
}

#[test]
fn sequences_of_three_calls_agree_on_6_12() {
    agree(SEQUENCES - 150, 150);
}
