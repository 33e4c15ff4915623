//! What a thread learns from its hint faults: where its memory is, and how often to look again.
//!
//! Source: behaviour spec 10.2 ("Period adaptation") and 10.5; kernel/sched/fair.c,
//! `task_numa_fault`, `task_numa_placement`, `update_task_scan_period`.

use crate::Machine;
use crate::balance::TICK_MS;
use crate::memory::node::{MAX_NODES, Slot};
use crate::mm::task::TaskId;

/// Decayed faults and those since the last placement, for one node and kind.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
struct Faults {
    decayed: u64,
    fresh: u64,
}

/// What balancing remembers of a thread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskBalance {
    pub(crate) runtime_ms: u64,
    pub(crate) stamp_ms: u64,
    pub(crate) period_ms: u64,
    pub(crate) seen_seq: u32,
    pub(crate) preferred: Option<Slot>,
    pub(crate) pages_migrated: u64,
    /// No placement before this time.
    retry_ms: u64,
    /// By slot: shared, private.
    faults: [[Faults; 2]; MAX_NODES],
    remote: u64,
    local: u64,
    pub(crate) failed: u64,
}

impl Default for TaskBalance {
    fn default() -> Self {
        Self {
            runtime_ms: 0,
            stamp_ms: 0,
            period_ms: 0,
            seen_seq: 0,
            preferred: None,
            pages_migrated: 0,
            retry_ms: 0,
            faults: [[Faults::default(); 2]; MAX_NODES],
            remote: 0,
            local: 0,
            failed: 0,
        }
    }
}

/// What happened in a hint fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultOutcome {
    /// Where the page is now.
    pub(crate) slot: Slot,
    pub(crate) pages: u64,
    pub(crate) private: bool,
    pub(crate) is_local: bool,
    pub(crate) migrated: bool,
    pub(crate) failed: bool,
}

impl Machine {
    /// `task_numa_fault`.
    pub(crate) fn account_fault(&mut self, task: TaskId, outcome: &FaultOutcome) {
        let tiering = self.balancing.has(super::BALANCE_TIERING);
        if self.balancing.settings.mode == 0 || tiering && !self.nodes.is_top_tier(outcome.slot) {
            return;
        }
        self.place_when_due(task);
        let FaultOutcome { slot, pages, .. } = *outcome;
        let Some(task) = self.tasks.get_mut(&task) else { return };
        let balance = &mut task.balance;
        balance.pages_migrated += if outcome.migrated { pages } else { 0 };
        balance.failed += if outcome.failed { pages } else { 0 };
        balance.faults[slot.index()][usize::from(outcome.private)].fresh += pages;
        if outcome.is_local {
            balance.local += pages;
        } else {
            balance.remote += pages;
        }
    }

    /// A thread that knows where it would like to run looks again after a sixteenth of its scan
    /// period at the earliest (`numa_migrate_preferred`).
    fn place_when_due(&mut self, id: TaskId) {
        let now = self.balancing.now_ms;
        let due = |balance: &TaskBalance| now > balance.retry_ms || balance.retry_ms == 0;
        if !self.tasks.get(&id).is_some_and(|task| due(&task.balance)) {
            return;
        }
        self.place_task(id);
        if let Some(TaskBalance { preferred: Some(_), retry_ms, period_ms, .. }) =
            self.tasks.get_mut(&id).map(|task| &mut task.balance)
        {
            *retry_ms = now + (*period_ms / 16).min(1000);
        }
    }

    /// Once for each completed pass of the scanner: faults decay, the preferred node and the scan
    /// period follow (`task_numa_placement`).
    fn place_task(&mut self, id: TaskId) {
        let Some(mm) = self.mm_of(id) else { return };
        let seq = self.mm(mm).scan.seq;
        let with_cpus: Vec<Slot> =
            self.nodes.slots().filter(|&slot| self.nodes[slot].has_cpus).collect();
        let bounds = self.scan_bounds(mm);
        let keeps_locality = self.behaviour.locality_outlives_back_off;
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let balance = &mut task.balance;
        if balance.seen_seq == seq {
            return;
        }
        balance.seen_seq = seq;
        let (mut private, mut shared) = (0, 0);
        for [of_shared, of_private] in &mut balance.faults {
            for (faults, sum) in [(of_shared, &mut shared), (of_private, &mut private)] {
                *sum += faults.fresh;
                faults.decayed = faults.decayed - faults.decayed / 2 + faults.fresh;
                faults.fresh = 0;
            }
        }
        let of = |slot: &Slot| {
            let [shared, private] = &balance.faults[slot.index()];
            shared.decayed + private.decayed
        };
        let most = with_cpus.iter().map(of).max().unwrap_or(0);
        if most > 0 {
            balance.preferred = with_cpus.iter().find(|slot| of(slot) == most).copied();
        }
        if balance.adapt(private, shared, bounds, keeps_locality) {
            let next = self.balancing.now_ms + self.tasks[&id].balance.period_ms;
            self.mm_mut(mm).scan.next_scan_ms = next;
        }
    }

    /// The thread's preferred node, once its faults have shown one.
    pub fn preferred_node(&self, task: TaskId) -> Option<machine::NodeId> {
        let slot = self.tasks.get(&task)?.balance.preferred?;
        Some(self.nodes[slot].id)
    }

    /// Time between two scans of a thread, in ms.
    pub fn scan_period_ms(&self, task: TaskId) -> Option<u64> {
        self.tasks.get(&task).map(|task| task.balance.period_ms)
    }
}

impl TaskBalance {
    /// That of a new thread: it keeps its creator's preferred node, and its first scan is not due at
    /// the same time as that of others (`init_numa_balancing`).
    pub(crate) fn of_thread(creator: &Self, scan_delay_ms: u64, seq: u32) -> Self {
        Self {
            stamp_ms: 2 * TICK_MS,
            period_ms: scan_delay_ms,
            preferred: creator.preferred,
            seen_seq: seq,
            ..Self::default()
        }
    }

    /// `update_task_scan_period`; `true`: nothing was learnt, and the next scan is put off.
    fn adapt(
        &mut self,
        private: u64,
        shared: u64,
        (scan_min, scan_max): (u64, u64),
        keeps_locality: bool,
    ) -> bool {
        /// Share of useful faults, in tenths, from which scanning may slow down.
        const ENOUGH: u64 = 7;
        if self.local + shared == 0 || self.failed != 0 {
            self.period_ms = scan_max.min(self.period_ms * 2);
            if !keeps_locality {
                (self.remote, self.local, self.failed) = (0, 0, 0);
            }
            return true;
        }
        let slot = self.period_ms.div_ceil(10);
        let of = |part: u64, rest: u64| (part * 10).checked_div(part + rest).unwrap_or(0);
        let (local, private) = (of(self.local, self.remote), of(private, shared));
        let period = if private >= ENOUGH {
            self.period_ms + (private - ENOUGH).max(1) * slot
        } else if local >= ENOUGH {
            self.period_ms + (local - ENOUGH).max(1) * slot
        } else {
            self.period_ms.saturating_sub((ENOUGH - local.max(private)) * slot)
        };
        self.period_ms = period.clamp(scan_min, scan_max);
        (self.remote, self.local, self.failed) = (0, 0, 0);
        false
    }
}
