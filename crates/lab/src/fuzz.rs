//! The differential fuzz: scenarios of a seed on a real kernel and on the model, held against each
//! other; what differs is shrunk and written as a case file.
//!
//! One guest plays many scenarios, sent ahead in chunks, while the model plays the same ones here.
//! A guest that dies is booted again, behind the scenario that killed it, which is told. The oracle
//! (`scenario::oracle`) says what a difference is; there is no other list of what may differ.

mod found;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use conformance::Player;
use model::{Machine, Options, ThpMode};
use scenario::generate::{Outline, generate};
use scenario::oracle::{Difference, differences};
use scenario::shrink::shrink;
use scenario::{End, Record, Scenario, Step};

pub use found::{Found, case_file};

use crate::actor::{ActorGone, ActorLine, with_actor};
use crate::command::LabOptions;
use crate::conformance::CMDLINE;

/// Scenarios that are sent ahead.
const CHUNK: u64 = 64;
/// A guest that has worked this long is replaced by a fresh one, before its time limit ends it.
const SHIFT: Duration = Duration::from_secs(600);
/// Time limit of a guest: a shift, and what a chunk and its shrinking may take.
const GUEST_LIMIT: Duration = Duration::from_secs(1800);
/// Scenarios that are tried to shrink one.
const SHRINK_LIMIT: u32 = 400;
/// So many differences, and the rest is better looked at once these are understood.
pub const MOST_FOUND: usize = 12;

/// What is to be played.
#[derive(Clone, Debug)]
pub struct FuzzOptions {
    /// The guest. Its time limit is the fuzz's own.
    pub lab: LabOptions,
    /// The kernel of the guest, as the model knows it.
    pub kernel: scenario::Kernel,
    /// Where the scenarios come from.
    pub seed: u64,
    /// Index of the first one.
    pub from: u64,
    /// How many.
    pub cases: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuzzProgress {
    /// Scenarios that were played.
    pub played: u64,
    /// Differences so far.
    pub found: usize,
    /// Time since the first guest was up.
    pub elapsed: Duration,
}

/// What it came to.
#[derive(Clone, Debug, Default)]
pub struct FuzzReport {
    /// Scenarios that were played.
    pub played: u64,
    /// Time for it, without the boot of guests.
    pub elapsed: Duration,
    /// Differences, each shrunk, alike ones once.
    pub found: Vec<Found>,
}

/// Plays scenarios until all are played or [`MOST_FOUND`] differences are found. `note` hears of
/// what takes long; `show` of progress; `keep` gets each difference when it is found, and is all that
/// hears of it when an error ends the fuzz.
///
/// # Errors
///
/// A machine that the model has no room for; a guest that cannot be booted; whatever `keep` says.
pub fn fuzz(
    options: &FuzzOptions,
    note: &mut dyn FnMut(&str),
    show: &mut dyn FnMut(FuzzProgress),
    keep: &mut dyn FnMut(&Found) -> anyhow::Result<()>,
) -> anyhow::Result<FuzzReport> {
    let extra_cmdline = format!("{CMDLINE} {}", options.lab.extra_cmdline);
    let lab = LabOptions { time_limit: GUEST_LIMIT, extra_cmdline, ..options.lab.clone() };
    Machine::fits(&lab.topology)?;
    let mut fuzz = Fuzz::new(options, show, keep);
    while !fuzz.is_over() {
        let guest = lab.boot(&mut [], note)?;
        let began = Instant::now();
        let before = fuzz.report.elapsed;
        let worked = with_actor(&guest, |actor| fuzz.shift(actor, began, before))?;
        fuzz.report.elapsed = before + began.elapsed();
        match worked? {
            Shift::Over => guest.power_off()?,
            Shift::ActorGone(index) => {
                let console = guest.death().map(|death| death.to_string());
                let console = console.or_else(|| Some(guest.power_off().err()?.to_string()));
                let said = console.unwrap_or_else(|| "the actor has ended".to_owned());
                fuzz.blame(index, &said)?;
            }
        }
    }
    Ok(fuzz.report)
}

/// How a guest's work ended.
enum Shift {
    Over,
    /// While it played the scenario of this index.
    ActorGone(u64),
}

struct Fuzz<'a> {
    options: &'a FuzzOptions,
    outline: Outline,
    /// Just booted.
    machine: Machine,
    /// The first scenario of the next chunk.
    next: u64,
    /// Those of the chunk that were not played, in the order in which they are.
    ahead: VecDeque<u64>,
    /// Scenarios that differ and have not been looked into, with what the kernel gave.
    suspects: VecDeque<(u64, Record)>,
    report: FuzzReport,
    show: &'a mut dyn FnMut(FuzzProgress),
    keep: &'a mut dyn FnMut(&Found) -> anyhow::Result<()>,
}

impl<'a> Fuzz<'a> {
    fn new(
        options: &'a FuzzOptions,
        show: &'a mut dyn FnMut(FuzzProgress),
        keep: &'a mut dyn FnMut(&Found) -> anyhow::Result<()>,
    ) -> Self {
        Self {
            options,
            outline: outline(&options.lab.topology),
            machine: model_of(options),
            next: options.from,
            ahead: VecDeque::new(),
            suspects: VecDeque::new(),
            report: FuzzReport::default(),
            show,
            keep,
        }
    }

    fn end(&self) -> u64 {
        self.options.from.saturating_add(self.options.cases)
    }

    fn is_over(&self) -> bool {
        let is_played =
            self.next >= self.end() && self.ahead.is_empty() && self.suspects.is_empty();
        is_played || self.report.found.len() >= MOST_FOUND
    }

    fn scenario(&self, index: u64) -> Scenario {
        generate(self.options.seed, index, self.outline)
    }

    /// Plays chunks until all is done, or the guest has worked long enough.
    fn shift(
        &mut self,
        actor: &mut ActorLine,
        began: Instant,
        before: Duration,
    ) -> anyhow::Result<Shift> {
        while !self.is_over() && began.elapsed() < SHIFT {
            if let Some((index, record)) = self.suspects.front().cloned() {
                if self.look_into(actor, index, &record)?.is_err() {
                    return Ok(Shift::ActorGone(index));
                }
                self.suspects.pop_front();
            } else {
                self.draw_ahead();
                if self.chunk(actor).is_err() {
                    return Ok(Shift::ActorGone(self.ahead[0]));
                }
            }
            (self.show)(FuzzProgress {
                played: self.report.played,
                found: self.report.found.len(),
                elapsed: before + began.elapsed(),
            });
        }
        Ok(Shift::Over)
    }

    /// Takes the next chunk, when none is on its way. Scenarios for which the actor's own pages lie
    /// on the same node are played one after the other: to bring them to another one (`come_home`)
    /// takes longer than a scenario. A change of cpuset moves them too: those with one come last.
    fn draw_ahead(&mut self) {
        if !self.ahead.is_empty() {
            return;
        }
        let upto = self.end().min(self.next.saturating_add(CHUNK));
        let mut chunk: Vec<u64> = (self.next..upto).collect();
        chunk.sort_by_cached_key(|&index| {
            let scenario = self.scenario(index);
            (home(&scenario), scenario.has(Step::changes_cpuset))
        });
        self.ahead.extend(chunk);
        self.next = upto;
    }

    /// Plays what is ahead on both sides.
    fn chunk(&mut self, actor: &mut ActorLine) -> Result<(), ActorGone> {
        for &index in &self.ahead {
            if actor.send(&self.scenario(index)).is_err() {
                // The records that still come say which one it was.
                break;
            }
        }
        while let Some(&index) = self.ahead.front() {
            let scenario = self.scenario(index);
            let ours = play(&self.machine, &scenario);
            let theirs = actor.receive()?;
            if !differences(&scenario, &theirs, &ours).is_empty() {
                self.suspects.push_back((index, theirs));
            }
            self.ahead.pop_front();
            self.report.played += 1;
        }
        Ok(())
    }

    /// Shrinks a difference and keeps it, unless one was kept that shrinks to the same.
    fn look_into(
        &mut self,
        actor: &mut ActorLine,
        index: u64,
        record: &Record,
    ) -> anyhow::Result<Result<(), ActorGone>> {
        let scenario = self.scenario(index);
        let mut again = Replay { actor, machine: &self.machine, gone: None };
        let came_again = again.differ(&scenario).is_some();
        let small = if came_again {
            shrink(&scenario, SHRINK_LIMIT, |candidate| again.differ(candidate).is_some()).scenario
        } else {
            scenario
        };
        let shown = again.differ(&small);
        if let Some(gone) = again.gone {
            return Ok(Err(gone));
        }
        let (theirs, ours) = shown.unwrap_or_else(|| (record.clone(), play(&self.machine, &small)));
        self.keep(Found::new(index, small, theirs, ours, came_again))?;
        Ok(Ok(()))
    }

    /// A scenario has killed its guest.
    fn blame(&mut self, index: u64, said: &str) -> anyhow::Result<()> {
        let scenario = self.scenario(index);
        let ours = play(&self.machine, &scenario);
        let end = End::Failed(format!("the guest died: {}", said.lines().next().unwrap_or(said)));
        let theirs = Record { end, ..Record::default() };
        if self.ahead.front() == Some(&index) {
            self.ahead.pop_front();
            self.report.played += 1;
        } else {
            self.suspects.pop_front();
        }
        self.keep(Found::new(index, scenario, theirs, ours, false))
    }

    fn keep(&mut self, found: Found) -> anyhow::Result<()> {
        let known = self.report.found.iter_mut().find(|known| known.scenario == found.scenario);
        if let Some(known) = known {
            known.indices.extend(found.indices);
            return Ok(());
        }
        (self.keep)(&found)?;
        self.report.found.push(found);
        Ok(())
    }
}

/// Plays a scenario on both sides once more.
struct Replay<'a> {
    actor: &'a mut ActorLine,
    machine: &'a Machine,
    gone: Option<ActorGone>,
}

impl Replay<'_> {
    /// What both gave, if it differs.
    fn differ(&mut self, scenario: &Scenario) -> Option<(Record, Record)> {
        if self.gone.is_some() {
            return None;
        }
        let theirs = match self.actor.play(scenario) {
            Ok(theirs) => theirs,
            Err(gone) => {
                self.gone = Some(gone);
                return None;
            }
        };
        let ours = play(self.machine, scenario);
        let found: Vec<Difference> = differences(scenario, &theirs, &ours);
        (!found.is_empty()).then_some((theirs, ours))
    }
}

/// The node where the actor keeps its own pages in a scenario: the first that no migrate_pages of it
/// moves pages from.
fn home(scenario: &Scenario) -> u16 {
    (0..u16::MAX).find(|&node| !scenario.has(|step| step.migrates_from(node))).unwrap_or_default()
}

/// What the model gives. One that falls over has ended in a way of its own.
fn play(machine: &Machine, scenario: &Scenario) -> Record {
    let mut player = Player::new(machine.clone());
    let played = catch_unwind(AssertUnwindSafe(|| player.play(scenario, |_| {})));
    played.unwrap_or_else(|_| Record {
        end: End::Failed("the model panics".to_owned()),
        ..Record::default()
    })
}

fn model_of(options: &FuzzOptions) -> Machine {
    let version = conformance::kernel_version(options.kernel);
    let settings = Options { thp: ThpMode::Madvise, ..Options::default() };
    Machine::boot(options.lab.topology.clone(), version, settings)
}

/// What scenarios know of a machine.
fn outline(topology: &machine::Topology) -> Outline {
    let nodes = topology.nodes().iter().map(|node| node.id.get() + 1).max().unwrap_or(1);
    let cpus = u32::try_from(topology.cpus().iter().count()).unwrap_or(1);
    Outline { nodes, cpus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_scenarios_of_all_are_drawn() {
        let options = FuzzOptions {
            lab: LabOptions::new(conformance::case_topology()).unwrap(),
            kernel: scenario::Kernel::V6_12,
            seed: 1,
            from: u64::MAX - 15,
            cases: 10,
        };
        let (mut show, mut keep) = (|_| (), |_: &Found| Ok(()));
        let mut fuzz = Fuzz::new(&options, &mut show, &mut keep);
        fuzz.draw_ahead();
        assert_eq!(fuzz.ahead.len(), 10);
    }

    #[test]
    fn the_actors_own_pages_are_where_no_call_of_the_scenario_takes_them_from() {
        for (steps, node) in [
            ("map a 1; mv 0 a 0", 0),
            ("mp 0 {1} {0}", 0),
            ("mp 0 {0} {1}; mp 0 {2} {1}", 1),
            ("mp 0 {0,1,2} {1}", 3),
        ] {
            assert_eq!(home(&steps.parse().unwrap()), node, "{steps}");
        }
    }
}
