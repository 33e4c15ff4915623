//! A run in numbers: what `--report` writes as JSON, and what its HTML shows.

use std::collections::BTreeMap;
use std::fs;

use linux::Errno;
use linux::Root;
use linux::proc::status;
use machine::{Bytes, NodeId};
use model::{Explained, Machine, MigrateCounts};
use serde::Serialize;

use super::history::{History, Moment};
use crate::call::Answer;
use crate::world::World;

/// Of the JSON. A new number when a key changes its meaning or goes.
pub(super) const SCHEMA: u32 = 1;
const PAGE: u64 = 4096;
/// Bytes of a command line that are kept.
const COMMAND_BYTES: usize = 120;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) schema: u32,
    pub(super) command: Vec<String>,
    pub(super) kernel: &'static str,
    pub(super) exit_code: u8,
    pub(super) elapsed_ms: u64,
    pub(super) nodes: Vec<Node>,
    /// Those with most memory, in the order of their ends.
    pub(super) processes: Vec<Placement>,
    pub(super) processes_left_out: ProcessesLeftOut,
    pub(super) moves: Vec<Move>,
    pub(super) moves_left_out: MovesLeftOut,
    pub(super) policies: Vec<PolicyRow>,
    pub(super) policies_left_out: u64,
    /// Calls that were intercepted, by name.
    pub(super) calls: BTreeMap<&'static str, Calls>,
    pub(super) history: Vec<Moment>,
    /// At the start and at the end.
    pub(super) supervisor: [Supervisor; 2],
}

/// A node of the machine.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) node: u16,
    pub(super) cpus: String,
    pub(super) memory_bytes: u64,
    /// The most that the programs used of it.
    pub(super) peak_bytes: u64,
}

/// The nodes with memory.
pub(super) fn nodes(machine: &Machine, history: &History) -> Vec<Node> {
    let memory_nodes = machine.memory_nodes();
    let all = machine.topology().nodes().iter();
    all.filter(|node| memory_nodes.contains(node.id))
        .zip(history.peak_bytes())
        .map(|(node, &peak_bytes)| Node {
            node: node.id.get(),
            cpus: node.cpus.to_string(),
            memory_bytes: node.memory.get(),
            peak_bytes,
        })
        .collect()
}

/// Where the memory of a process lay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Placement {
    pub(super) pid: u32,
    pub(super) command: String,
    /// The most at any look, by node.
    pub(super) peak_bytes: BTreeMap<u16, u64>,
    /// At the last look, by node.
    pub(super) last_bytes: BTreeMap<u16, u64>,
    /// The most at any look, of all nodes together.
    pub(super) peak_total_bytes: u64,
}

impl Placement {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            pid,
            command: String::new(),
            peak_bytes: BTreeMap::new(),
            last_bytes: BTreeMap::new(),
            peak_total_bytes: 0,
        }
    }

    /// It has these pages now.
    pub(super) fn look(&mut self, pages: &BTreeMap<NodeId, u64>) {
        if let Some(command) = command_of(self.pid) {
            self.command = command;
        }
        self.last_bytes = pages.iter().map(|(node, pages)| (node.get(), pages * PAGE)).collect();
        for (&node, &bytes) in &self.last_bytes {
            let peak = self.peak_bytes.entry(node).or_default();
            *peak = bytes.max(*peak);
        }
        self.peak_total_bytes = self.peak_total_bytes.max(self.last_bytes.values().sum());
    }
}

/// Its words as they were typed; `None`: it has ended, or is no program yet.
fn command_of(pid: u32) -> Option<String> {
    let mut words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    words.truncate(COMMAND_BYTES);
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// Processes that have ended, up to a limit, and the sum of the others.
#[derive(Debug)]
pub(super) struct Kept {
    limit: usize,
    processes: Vec<Placement>,
    left_out: ProcessesLeftOut,
}

/// Processes with less memory than those that are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProcessesLeftOut {
    pub(super) processes: u64,
    /// The largest of them.
    pub(super) peak_total_bytes: u64,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, processes: Vec::new(), left_out: ProcessesLeftOut::default() }
    }

    pub(super) fn into_parts(self) -> (Vec<Placement>, ProcessesLeftOut) {
        (self.processes, self.left_out)
    }
}

impl Extend<Placement> for Kept {
    fn extend<T: IntoIterator<Item = Placement>>(&mut self, processes: T) {
        for process in processes {
            self.processes.push(process);
            if self.processes.len() <= self.limit {
                continue;
            }
            // Of equals the last goes.
            let numbered = self.processes.iter().enumerate().rev();
            if let Some((least, _)) = numbered.min_by_key(|(_, process)| process.peak_total_bytes) {
                let out = self.processes.remove(least);
                self.left_out.processes += 1;
                let largest = self.left_out.peak_total_bytes.max(out.peak_total_bytes);
                self.left_out.peak_total_bytes = largest;
            }
        }
    }
}

/// What one call moved on one path of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Move {
    /// Since the start of the run.
    pub(super) at_ms: u64,
    /// Who called.
    pub(super) thread: u32,
    /// The call, as `--explain` tells it.
    pub(super) call: String,
    /// The kernel's functions, outermost first.
    pub(super) path: Vec<&'static str>,
    pub(super) reason: &'static str,
    pub(super) mode: &'static str,
    pub(super) moved_pages: u64,
    pub(super) stayed_pages: u64,
    pub(super) split_folios: u64,
}

impl Move {
    pub(super) fn add(&mut self, counts: &MigrateCounts) {
        self.moved_pages += counts.succeeded;
        self.stayed_pages += counts.failed;
        self.split_folios += counts.large_folio_split;
    }
}

/// Calls that moved pages after those that are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct MovesLeftOut {
    pub(super) calls: u64,
    pub(super) moved_pages: u64,
    pub(super) stayed_pages: u64,
}

impl MovesLeftOut {
    pub(super) fn add(&mut self, moves: &[Explained]) {
        self.calls += 1;
        self.moved_pages += moves.iter().map(|it| it.counts.succeeded).sum::<u64>();
        self.stayed_pages += moves.iter().map(|it| it.counts.failed).sum::<u64>();
    }
}

/// Who set which policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyOf {
    pub(super) thread: u32,
    pub(super) call: String,
}

/// When first, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) at_ms: u64,
    pub(super) times: u64,
}

/// A policy that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PolicyRow {
    /// The first time.
    pub(super) at_ms: u64,
    pub(super) thread: u32,
    pub(super) call: String,
    pub(super) times: u64,
}

impl From<(PolicyOf, Policy)> for PolicyRow {
    fn from((of, policy): (PolicyOf, Policy)) -> Self {
        Self { at_ms: policy.at_ms, thread: of.thread, call: of.call, times: policy.times }
    }
}

/// Calls of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Calls {
    pub(super) calls: u64,
    /// Of them, answered by the model; the kernel made the others.
    pub(super) answered: u64,
    /// Of those that the model answered, failed, by the name of the error.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Calls {
    pub(super) fn add(&mut self, answer: Answer) {
        self.calls += 1;
        self.answered += u64::from(answer != Answer::Continue);
        if let Answer::Error(errno) = answer {
            let name = Errno::from(errno).name();
            let name = name.map_or_else(|| format!("errno {errno}"), |name| name.to_owned());
            *self.errors.entry(name).or_default() += 1;
        }
    }
}

/// What the supervisor itself holds: at the end as at the start, however many processes there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Supervisor {
    /// Processes that it knows.
    pub(super) processes: usize,
    /// Tasks of the model, `init` among them.
    pub(super) tasks: usize,
    /// Its open files.
    pub(super) descriptors: usize,
    /// Its memory.
    pub(super) resident_bytes: u64,
}

impl Supervisor {
    pub(super) fn now(world: &World) -> Self {
        let own = status::read(&Root::default(), std::process::id()).ok();
        Self {
            processes: world.processes.len(),
            tasks: world.machine.task_count(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            resident_bytes: own.and_then(|own| own.resident).map_or(0, Bytes::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, bytes: u64) -> Placement {
        Placement { peak_total_bytes: bytes, ..Placement::new(pid) }
    }

    #[test]
    fn of_many_processes_those_with_most_memory_are_kept_and_the_others_counted() {
        let mut kept = Kept::new(2);
        kept.extend([process(1, 10), process(2, 30), process(3, 10), process(4, 20)]);
        let (processes, left_out) = kept.into_parts();
        assert_eq!(processes.iter().map(|it| it.pid).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(left_out, ProcessesLeftOut { processes: 2, peak_total_bytes: 10 });
    }

    #[test]
    fn the_peak_of_a_node_stays_when_its_pages_have_moved_away() {
        let [zero, one] = [0, 1].map(|number| NodeId::new(number).unwrap());
        let mut placement = Placement::new(u32::MAX);
        placement.look(&BTreeMap::from([(zero, 3)]));
        placement.look(&BTreeMap::from([(one, 2)]));
        assert_eq!(placement.peak_bytes, BTreeMap::from([(0, 3 * PAGE), (1, 2 * PAGE)]));
        assert_eq!(placement.last_bytes, BTreeMap::from([(1, 2 * PAGE)]));
        assert_eq!(placement.peak_total_bytes, 3 * PAGE);
    }

    #[test]
    fn errors_are_counted_by_name_and_calls_of_the_kernel_are_not_called_answered() {
        let mut calls = Calls::default();
        for answer in [Answer::Value(0), Answer::Error(libc::EPERM), Answer::Continue] {
            calls.add(answer);
        }
        assert_eq!((calls.calls, calls.answered), (3, 2));
        assert_eq!(calls.errors, BTreeMap::from([("EPERM".to_owned(), 1)]));
    }
}
