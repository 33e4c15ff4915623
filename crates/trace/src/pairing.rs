//! Joins what the kernel says of one migration: its start, its end, its stack, the call behind it.
//!
//! A thread that migrates may do so within a migration: to get a page to move to, it compacts. So
//! starts are kept as a stack for each thread, and an end takes the last start of its reason and mode;
//! later ones have lost their ends. The stack of an end is the next event of its thread.
//!
//! Where events were lost, a start may have lost its end, and the end that comes next be that of another
//! migration; a call may not be the last one. A thread changes its CPU at any time. So no start and no call
//! outlives a gap, of whichever CPU it is: a duration that is not known is better than one that never was.
//! A stack is written right behind its end: it is lost in a gap of its own CPU alone.

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
        if matches!(what, What::Lost) {
            self.forget(cpu, joined);
            return;
        }
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
            What::Stack(_) | What::Lost => {}
        }
    }

    /// Events of this CPU were lost: what waited for one of them waits no longer.
    fn forget(&mut self, cpu: u32, joined: &mut Vec<Joined>) {
        self.starts.clear();
        self.calls.clear();
        let ended = mem::take(&mut self.ended).into_iter();
        let (lost, waiting): (BTreeMap<_, _>, _) =
            ended.partition(|(_, migration)| migration.at.cpu == cpu);
        self.ended = waiting;
        joined.extend(lost.into_values().map(Joined::Migration));
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
    fn a_start_before_a_gap_is_not_taken_for_that_of_an_end_behind_it() {
        let events = vec![
            seen(1, 7, start(3)),
            seen(5, 0, What::Lost),
            seen(10, 7, end(3)),
            seen(11, 7, start(3)),
            seen(12, 7, end(3)),
        ];
        let found = migrations(&mut Pairing::new(false), events);
        assert_eq!(found, [(3, None, vec![]), (3, Some(1), vec![])]);
    }

    #[test]
    fn a_stack_behind_a_gap_of_its_cpu_is_not_that_of_an_end_before_it() {
        let on = |cpu, time_ns, tid, what| Seen { cpu, ..seen(time_ns, tid, what) };
        let events = vec![
            on(0, 1, 7, end(3)),
            on(1, 1, 8, end(5)),
            on(0, 2, 0, What::Lost),
            on(1, 3, 8, What::Stack(vec![88])),
            on(0, 3, 7, What::Stack(vec![77])),
        ];
        let found = migrations(&mut Pairing::new(true), events);
        assert_eq!(found, [(3, None, vec![]), (5, None, vec![88])]);
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

    fn called_for(seen: Vec<Seen>) -> Vec<Option<u32>> {
        let (mut pairing, mut joined) = (Pairing::new(false), Vec::new());
        for event in seen {
            pairing.push(event, &mut joined);
        }
        joined
            .iter()
            .map(|joined| match joined {
                Joined::Migration(migration) => migration.called_for,
                Joined::Other { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_call_says_whose_pages_its_thread_moves() {
        let events =
            vec![seen(1, 7, What::Call { pid: 42 }), seen(2, 7, end(3)), seen(3, 8, end(3))];
        assert_eq!(called_for(events), [Some(42), None]);
    }

    #[test]
    fn a_call_before_a_gap_is_not_taken_for_the_last_one() {
        let events =
            vec![seen(1, 7, What::Call { pid: 42 }), seen(2, 0, What::Lost), seen(3, 7, end(3))];
        assert_eq!(called_for(events), [None]);
    }
}
