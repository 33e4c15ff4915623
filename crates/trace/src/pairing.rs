//! Joins what the kernel says of one migration: its start, its end, its stack, the call behind it.
//!
//! A thread that migrates may do so within a migration: to get a page to move to, it compacts. So
//! starts are kept as a stack for each thread, and an end takes the last start of its reason and mode;
//! later ones have lost their ends. The stack of an end is the next event of its thread.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::decode::{Seen, What};
use crate::event::{Counts, Value};

/// No thread is that deep in migrations; older starts have lost their ends.
const DEPTH_MAX: usize = 8;

/// When, where, who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) time_ns: u64,
    pub(crate) cpu: u32,
    pub(crate) tid: u32,
}

/// An event with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    Migration(JoinedMigration),
    Other { at: At, event: u16, fields: Vec<(Arc<str>, Value)> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMigration {
    pub(crate) at: At,
    pub(crate) reason: i64,
    pub(crate) mode: i64,
    pub(crate) counts: Counts,
    pub(crate) duration_ns: Option<u64>,
    /// The process that the thread's last moving call was about; 0 is its own.
    pub(crate) called_for: Option<u32>,
    pub(crate) frames: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    time_ns: u64,
    reason: i64,
    mode: i64,
}

/// Migrations that are under way.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    waits_for_stacks: bool,
    starts: BTreeMap<u32, Vec<Start>>,
    calls: BTreeMap<u32, u32>,
    /// By thread: it has ended, and its stack must come.
    ended: BTreeMap<u32, JoinedMigration>,
}

impl Pairing {
    pub(crate) fn new(waits_for_stacks: bool) -> Self {
        Self { waits_for_stacks, ..Self::default() }
    }

    /// Takes the next event, in order of time, and adds what is complete to `joined`.
    pub(crate) fn push(&mut self, seen: Seen, joined: &mut Vec<Joined>) {
        let Seen { time_ns, cpu, tid, what } = seen;
        let at = At { time_ns, cpu, tid };
        if let What::Stack(frames) = what {
            if let Some(mut migration) = self.ended.remove(&tid) {
                migration.frames = frames;
                joined.push(Joined::Migration(migration));
            }
            return;
        }
        // Its stack is lost, for something else of its thread comes.
        joined.extend(self.ended.remove(&tid).map(Joined::Migration));
        match what {
            What::Start { reason, mode } => {
                let starts = self.starts.entry(tid).or_default();
                if starts.len() == DEPTH_MAX {
                    starts.remove(0);
                }
                starts.push(Start { time_ns, reason, mode });
            }
            What::End { reason, mode, counts } => {
                let start_ns = self.start_of(tid, reason, mode);
                let migration = JoinedMigration {
                    at,
                    reason,
                    mode,
                    counts,
                    duration_ns: start_ns.map(|start_ns| time_ns.saturating_sub(start_ns)),
                    called_for: self.calls.get(&tid).copied(),
                    frames: Vec::new(),
                };
                if self.waits_for_stacks {
                    self.ended.insert(tid, migration);
                } else {
                    joined.push(Joined::Migration(migration));
                }
            }
            What::Call { pid } => {
                self.calls.insert(tid, pid);
            }
            What::Other { event, fields } => joined.push(Joined::Other { at, event, fields }),
            What::Stack(_) => {}
        }
    }

    /// Gives up waiting for stacks.
    pub(crate) fn flush(&mut self, joined: &mut Vec<Joined>) {
        joined.extend(mem::take(&mut self.ended).into_values().map(Joined::Migration));
    }

    /// Takes the start of a migration that has ended, and those after it.
    fn start_of(&mut self, tid: u32, reason: i64, mode: i64) -> Option<u64> {
        let starts = self.starts.get_mut(&tid)?;
        let at = starts.iter().rposition(|start| (start.reason, start.mode) == (reason, mode));
        let start_ns = at.and_then(|at| starts.drain(at..).next()).map(|start| start.time_ns);
        if starts.is_empty() {
            self.starts.remove(&tid);
        }
        start_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(time_ns: u64, tid: u32, what: What) -> Seen {
        Seen { time_ns, cpu: 0, tid, what }
    }

    const fn start(reason: i64) -> What {
        What::Start { reason, mode: 0 }
    }

    fn end(reason: i64) -> What {
        What::End { reason, mode: 0, counts: Counts::default() }
    }

    /// Reason, duration and frames of each migration.
    fn migrations(pairing: &mut Pairing, seen: Vec<Seen>) -> Vec<(i64, Option<u64>, Vec<u64>)> {
        let mut joined = Vec::new();
        for seen in seen {
            pairing.push(seen, &mut joined);
        }
        pairing.flush(&mut joined);
        joined
            .into_iter()
            .map(|joined| match joined {
                Joined::Migration(m) => (m.reason, m.duration_ns, m.frames),
                other @ Joined::Other { .. } => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn threads_that_migrate_at_the_same_time_are_kept_apart() {
        let events = vec![
            seen(1, 7, start(3)),
            seen(2, 8, start(3)),
            seen(10, 7, end(3)),
            seen(20, 8, end(3)),
        ];
        let found = migrations(&mut Pairing::new(false), events);
        assert_eq!(found, [(3, Some(9), vec![]), (3, Some(18), vec![])]);
    }

    #[test]
    fn a_migration_within_a_migration_has_a_duration_of_its_own() {
        let events = vec![
            seen(1, 7, start(3)),
            seen(2, 7, start(0)),
            seen(5, 7, end(0)),
            seen(10, 7, end(3)),
        ];
        let found = migrations(&mut Pairing::new(false), events);
        assert_eq!(found, [(0, Some(3), vec![]), (3, Some(9), vec![])]);
    }

    #[test]
    fn a_start_whose_end_was_lost_is_not_taken_for_a_later_migration() {
        let events = vec![
            seen(1, 7, end(3)),
            seen(2, 7, start(3)),
            seen(3, 7, start(0)),
            seen(10, 7, end(3)),
            seen(20, 7, end(0)),
        ];
        let mut pairing = Pairing::new(false);
        let found = migrations(&mut pairing, events);
        assert_eq!(found, [(3, None, vec![]), (3, Some(8), vec![]), (0, None, vec![])]);
        assert!(pairing.starts.is_empty());
    }

    #[test]
    fn a_stack_is_that_of_its_own_thread_and_a_lost_one_delays_nothing() {
        let events = vec![
            seen(1, 7, end(3)),
            seen(2, 8, end(5)),
            seen(3, 7, What::Stack(vec![77])),
            seen(4, 8, start(5)),
            seen(5, 9, What::Stack(vec![99])),
        ];
        let found = migrations(&mut Pairing::new(true), events);
        assert_eq!(found, [(3, None, vec![77]), (5, None, vec![])]);
    }

    #[test]
    fn a_call_says_whose_pages_its_thread_moves() {
        let mut pairing = Pairing::new(false);
        let mut joined = Vec::new();
        for event in [seen(1, 7, What::Call { pid: 42 }), seen(2, 7, end(3)), seen(3, 8, end(3))] {
            pairing.push(event, &mut joined);
        }
        let called_for: Vec<_> = joined
            .iter()
            .map(|joined| match joined {
                Joined::Migration(migration) => migration.called_for,
                Joined::Other { .. } => None,
            })
            .collect();
        assert_eq!(called_for, [Some(42), None]);
    }
}
