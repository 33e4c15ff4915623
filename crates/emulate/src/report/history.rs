//! How full the nodes were over time: a bounded number of moments, however long the run.
//!
//! When the list is full, every second moment is dropped, and looks become half as frequent.

use std::time::Duration;

use model::Machine;
use serde::Serialize;

const MOMENTS: usize = 240;
const FIRST_INTERVAL: Duration = Duration::from_millis(5);
const PAGE: u64 = 4096;

/// Whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
/// How full the nodes were at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Moment {
    /// Since the start of the run.
    pub(super) at_ms: u64,
    /// Of each node with memory, by number: what the programs use.
    pub(super) used_bytes: Vec<u64>,
}

/// All moments so far.
#[derive(Debug)]
pub(super) struct History {
    /// Free memory of the empty machine, by node.
    empty: Vec<u64>,
    peak: Vec<u64>,
    moments: Vec<Moment>,
    interval: Duration,
    next: Duration,
}

impl History {
    pub(super) fn new(machine: &Machine) -> Self {
        let empty = free_bytes(machine);
        Self {
            peak: vec![0; empty.len()],
            empty,
            moments: Vec::new(),
            interval: FIRST_INTERVAL,
            next: Duration::ZERO,
        }
    }

    /// Looks at the nodes, and keeps what is seen if it is time to.
    pub(super) fn look(&mut self, machine: &Machine, at: Duration) {
        let free = free_bytes(machine);
        let used = self.empty.iter().zip(free).map(|(empty, free)| empty.saturating_sub(free));
        self.keep(used.collect(), at);
    }

    fn keep(&mut self, used_bytes: Vec<u64>, at: Duration) {
        for (peak, used) in self.peak.iter_mut().zip(&used_bytes) {
            *peak = (*peak).max(*used);
        }
        if at < self.next {
            return;
        }
        if self.moments.len() == MOMENTS {
            let mut is_kept = false;
            self.moments.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.interval *= 2;
        }
        self.moments.push(Moment { at_ms: ms(at), used_bytes });
        self.next = at + self.interval;
    }

    /// The most that each node with memory held at any look.
    pub(super) fn peak_bytes(&self) -> &[u64] {
        &self.peak
    }

    pub(super) fn into_moments(self) -> Vec<Moment> {
        self.moments
    }
}

fn free_bytes(machine: &Machine) -> Vec<u64> {
    machine.memory_nodes().iter().map(|node| machine.free_pages(node) * PAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_no_more_moments_than_a_short_one_and_its_peak() {
        let mut history = History {
            empty: vec![0],
            peak: vec![0],
            moments: Vec::new(),
            interval: FIRST_INTERVAL,
            next: Duration::ZERO,
        };
        for second in 0..100_000 {
            let used = if second == 77_777 { 9 } else { 1 };
            history.keep(vec![used], Duration::from_secs(second));
        }
        assert_eq!(history.peak_bytes(), [9]);
        let moments = history.into_moments();
        assert!((MOMENTS / 2..=MOMENTS).contains(&moments.len()), "{}", moments.len());
        assert!(moments.is_sorted_by_key(|moment| moment.at_ms));
        assert_eq!(moments[0].at_ms, 0);
    }
}
