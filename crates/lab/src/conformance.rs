//! The conformance table: case files in a guest, each result beside the one in the file and the one
//! of the model.
//!
//! Called by `pagetide lab conformance` and by the end-to-end tests. One guest plays all cases of a
//! kernel; a case that does not end as the file says, or on which the model differs, is told.
//! Where file and kernel differ, the kernel is right.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use conformance::{Player, case_machine, case_topology, kernel_version};
use model::Machine;
use scenario::oracle::{agrees_with_line, differences};
use scenario::{Case, Kernel, Record, Step, parse_case_file};

use crate::actor::{ActorGone, ActorLine, with_actor};
use crate::command::LabOptions;
use crate::kernels::KernelSource;

/// Words for the command line of a guest that plays cases: pages of the kernel are where they were,
/// memfd_secret is there, and a change of cgroups or weights does not wait for RCU's next period.
pub const CMDLINE: &str = "nokaslr secretmem.enable=1 rcupdate.rcu_expedited=1";
/// Cases that are sent ahead.
const AHEAD: usize = 16;
/// How often a case with a full node is played again when it comes out otherwise. Now and then the
/// node has room again by the next step; `balance_pgdat` (6.12) is suspected, and not proved.
const AGAIN: u8 = 3;

/// A case that came out otherwise than it should.
#[derive(Clone, Debug)]
pub struct Deviation {
    /// The case.
    pub case: Case,
    /// On which kernel.
    pub kernel: Kernel,
    /// What the kernel gave now.
    pub theirs: Record,
    /// What the model gave.
    pub ours: Record,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, kernel, theirs, ours } = self;
        writeln!(f, "{} on {}: {}", case.number, kernel.name(), case.scenario)?;
        writeln!(f, "  file   {}", case.result(*kernel))?;
        writeln!(f, "  kernel {}", theirs.to_line())?;
        write!(f, "  model  {}", ours.to_line())
    }
}

/// What playing cases in a guest came to.
#[derive(Clone, Debug, Default)]
pub struct Conformance {
    /// Cases that were played.
    pub played: usize,
    /// Release of the guest's kernel.
    pub release: String,
    /// Those that came out otherwise.
    pub deviations: Vec<Deviation>,
}

/// The kernel of Debian that plays a column of the case files.
///
/// # Panics
///
/// Never: all names are known.
pub fn source(kernel: Kernel) -> KernelSource {
    let name = match kernel {
        Kernel::V6_1 => "6.1",
        Kernel::V6_12 => "6.12",
        Kernel::V7_3 => "newest",
    };
    name.parse().expect("the name of a kernel of Debian")
}

/// Plays cases in a guest with a kernel, and on the model. `pagetide` is the binary for the guest;
/// `note` hears of what takes long.
///
/// # Errors
///
/// A guest that cannot be booted, or dies; the case that it died of is named.
pub fn play(
    cases: &[Case],
    kernel: Kernel,
    pagetide: &Path,
    note: &mut dyn FnMut(&str),
) -> anyhow::Result<Conformance> {
    let options = LabOptions {
        kernel: source(kernel),
        pagetide: pagetide.to_owned(),
        extra_cmdline: CMDLINE.to_owned(),
        time_limit: std::time::Duration::from_secs(1500),
        ..LabOptions::new(case_topology())?
    };
    let mut playing = Playing {
        kernel,
        machine: case_machine(kernel_version(kernel)),
        waiting: cases.iter().map(|case| (case, 0)).collect(),
        sent: VecDeque::new(),
        table: Conformance::default(),
    };
    let guest = options.boot(&mut [], note)?;
    guest.kernel().clone_into(&mut playing.table.release);
    if let Err(gone) = with_actor(&guest, |actor| playing.go_on(actor))? {
        let at = playing.sent.front().map_or("", |(case, _)| &case.number);
        let story = guest.death().map_or_else(|| gone.to_string(), |death| death.to_string());
        bail!("case {at}: {story}");
    }
    guest.power_off()?;
    Ok(playing.table)
}

/// Cases on their way through the guest.
struct Playing<'a> {
    kernel: Kernel,
    /// Just booted.
    machine: Machine,
    /// Each with how often it was played.
    waiting: VecDeque<(&'a Case, u8)>,
    sent: VecDeque<(&'a Case, u8)>,
    table: Conformance,
}

impl<'a> Playing<'a> {
    /// Plays what waits.
    fn go_on(&mut self, actor: &mut ActorLine) -> Result<(), ActorGone> {
        loop {
            while self.sent.len() < AHEAD {
                let Some((case, times)) = self.waiting.pop_front() else { break };
                self.sent.push_back((case, times));
                actor.send(&case.scenario)?;
            }
            let Some(&(case, times)) = self.sent.front() else { return Ok(()) };
            let theirs = actor.receive()?;
            self.sent.pop_front();
            self.compare(case, times, theirs);
        }
    }

    fn compare(&mut self, case: &'a Case, times: u8, theirs: Record) {
        let ours = Player::new(self.machine.clone()).play(&case.scenario, |_| {});
        let as_filed = agrees_with_line(&case.scenario, case.result(self.kernel), &theirs);
        let agrees = as_filed && differences(&case.scenario, &theirs, &ours).is_empty();
        if !agrees && times < AGAIN && fills_a_node(case) {
            self.waiting.push_back((case, times + 1));
            return;
        }
        self.table.played += 1;
        if !agrees {
            let case = case.clone();
            self.table.deviations.push(Deviation { case, kernel: self.kernel, theirs, ours });
        }
    }
}

fn fills_a_node(case: &Case) -> bool {
    case.scenario.has(|step| matches!(step, Step::Hog { .. }))
}

/// The case files of a folder, or these files, in the order of their names.
///
/// # Errors
///
/// A file that cannot be read or is none.
pub fn read_cases(paths: &[PathBuf]) -> anyhow::Result<Vec<Case>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let folder =
            fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in folder {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "cases") {
                files.push(path);
            }
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no case file given, and none in tests/scenarios");
    let mut cases = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cannot read the case file {}", file.display()))?;
        cases.extend(parse_case_file(&text).with_context(|| file.display().to_string())?);
    }
    Ok(cases)
}
