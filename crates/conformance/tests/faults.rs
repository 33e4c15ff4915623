//! Faults planted in the model: the suite catches each, and shrinks what shows it.
//!
//! A fault is caught twice: by a conformance case, whose result on a real kernel is on record, and
//! by a generated scenario, as the fuzz would find it: there the model without the fault stands in
//! for the kernel. `docs/fuzz.md` has what the second is shrunk to; a test holds it to that.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use conformance::{Player, case_machine, kernel_version};
use machine::{Bytes, Node, Topology};
use model::{Machine, PlantedFault};
use pagetide_conformance as conformance;
use scenario::generate::{Outline, generate};
use scenario::shrink::shrink;
use scenario::{Case, Kernel, Scenario, parse_case_file};

/// The seed of the scenarios that are tried, and how many are at most.
const SEED: u64 = 1;
const SCENARIOS: u64 = 8000;
/// A shrunk scenario is read at a glance.
const STEPS_MAX: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The nodes of the conformance cases, with memory enough for what is generated and quickly copied.
fn small_machine(kernel: Kernel) -> Machine {
    let large = case_machine(kernel_version(kernel));
    let nodes = large.topology().nodes().iter().cloned();
    let nodes = nodes.map(|node| Node { memory: Bytes::new(64 << 20), ..node }).collect();
    let topology = Topology::new("small", nodes, None).expect("a valid machine");
    Machine::boot(topology, large.version(), large.options())
}

/// The same machine without and with a fault.
struct Pair {
    sound: Machine,
    faulty: Machine,
}

impl Pair {
    fn of(sound: Machine, fault: PlantedFault) -> Self {
        let mut faulty = sound.clone();
        faulty.plant(fault);
        Self { sound, faulty }
    }

    fn differ(&self, scenario: &Scenario) -> bool {
        results(&self.sound, scenario) != results(&self.faulty, scenario)
    }
}

/// A machine that falls over a fault has a result of its own.
fn results(machine: &Machine, scenario: &Scenario) -> String {
    let mut player = Player::new(machine.clone());
    let record = catch_unwind(AssertUnwindSafe(|| player.play(scenario, |_| {})));
    record.map_or("panic".to_owned(), |record| record.to_line())
}

/// The cases that hold on a kernel's model. A node is filled in none of them: that takes long.
static CASES_THAT_HOLD: LazyLock<Vec<(Case, Vec<Kernel>)>> = LazyLock::new(|| {
    let machines = Kernel::ALL.map(|kernel| (kernel, case_machine(kernel_version(kernel))));
    let folder = fs::read_dir(root().join("tests/scenarios")).expect("the case files");
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).expect("a case file"));
    let cases = texts.flat_map(|text| parse_case_file(&text).unwrap_or_default());
    let quick = cases.filter(|case| !case.scenario.to_string().contains("hog "));
    quick
        .map(|case| {
            let holds = |(kernel, machine): &&(Kernel, Machine)| {
                results(machine, &case.scenario) == case.result(*kernel)
            };
            let kernels = machines.iter().filter(holds).map(|&(kernel, _)| kernel).collect();
            (case, kernels)
        })
        .collect()
});

/// The first conformance case that holds on the model and fails with the fault.
fn case_that_catches(fault: PlantedFault) -> Option<&'static str> {
    let faulty = Kernel::ALL.map(|kernel| {
        let mut machine = case_machine(kernel_version(kernel));
        machine.plant(fault);
        machine
    });
    let mut cases = CASES_THAT_HOLD.iter();
    let caught = cases.find(|(case, kernels)| {
        kernels
            .iter()
            .any(|&kernel| results(&faulty[kernel as usize], &case.scenario) != case.result(kernel))
    });
    caught.map(|(case, _)| case.number.as_str())
}

/// The first generated scenario that shows the fault, and what it is shrunk to.
fn first_that_shows(fault: PlantedFault) -> Option<(u64, Kernel, Scenario)> {
    let pairs = Kernel::ALL.map(|kernel| (kernel, Pair::of(small_machine(kernel), fault)));
    (0..SCENARIOS).find_map(|index| {
        let scenario = generate(SEED, index, Outline::CASES);
        let (kernel, pair) = pairs.iter().find(|(_, pair)| pair.differ(&scenario))?;
        let shrunk = shrink(&scenario, 2000, |candidate| pair.differ(candidate));
        Some((index, *kernel, shrunk.scenario))
    })
}

/// The row of docs/fuzz.md about a fault.
fn row(fault: PlantedFault) -> String {
    let case = case_that_catches(fault).unwrap_or_else(|| panic!("no case catches {fault:?}"));
    let (index, kernel, shrunk) =
        first_that_shows(fault).unwrap_or_else(|| panic!("{fault:?} is never shown"));
    assert!(shrunk.acts.len() <= STEPS_MAX, "{fault:?} is shrunk to no less than: {shrunk}");
    format!("| {fault:?} | {case} | {index} on {} | `{shrunk}` |", kernel.name())
}

macro_rules! each_fault {
    ($($fault:ident)*) => { $(
        #[test]
        #[expect(non_snake_case, reason = "named after the fault")]
        fn $fault() {
            let row = row(PlantedFault::$fault);
            let page = fs::read_to_string(root().join("docs/fuzz.md")).expect("docs/fuzz.md");
            assert!(page.contains(&row), "docs/fuzz.md lacks:\n{row}");
        }
    )*
        #[test]
        fn every_fault_has_a_test() {
            assert_eq!(PlantedFault::ALL, [$(PlantedFault::$fault),*]);
        }
    };
}

each_fault! {
    PidBeforeMasks
    RetryLost
    PairsAscending
    MapcountUnchecked
    InterleaveLate
    StrictForgotten
    FailuresUncounted
    StaticRebound
    SplitForgotten
    BatchFailureIgnored
    PolicyNotInherited
    CpusetUnchecked
    CopyForgotten
}
