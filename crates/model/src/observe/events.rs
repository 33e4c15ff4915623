//! Tracepoints as a stream of events, with the kernel's names and fields (spec 7.13, 11.7).

use std::fmt;

use crate::Machine;
use crate::memory::frames::Order;
use crate::migrate::{MigrateMode, MigrateReason};
use crate::mm::mapping::PAGE_BYTES;
use crate::observe::call_path::CallPath;

/// What one call of the engine did, in base pages and THPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MigrateCounts {
    /// Base pages that were moved.
    pub succeeded: u64,
    /// Base pages that were tried and stayed.
    pub failed: u64,
    /// THPs that were moved whole.
    pub thp_succeeded: u64,
    /// THPs that stayed or were split.
    pub thp_failed: u64,
    /// THPs that were split.
    pub thp_split: u64,
    /// Large folios of any order that were split.
    pub large_folio_split: u64,
}

impl MigrateCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.thp_succeeded += other.thp_succeeded;
        self.thp_failed += other.thp_failed;
        self.thp_split += other.thp_split;
        self.large_folio_split += other.large_folio_split;
    }
}

/// A tracepoint that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `migrate:mm_migrate_pages_start`.
    MigratePagesStart {
        /// The caller's mode.
        mode: MigrateMode,
        /// Why.
        reason: MigrateReason,
    },
    /// `migrate:mm_migrate_pages`: one call of the engine has ended.
    MigratePages {
        /// What it did.
        counts: MigrateCounts,
        /// Whether the kernel prints `nr_split`.
        has_split_field: bool,
        /// The caller's mode.
        mode: MigrateMode,
        /// Why.
        reason: MigrateReason,
        /// By which functions.
        path: CallPath,
    },
    /// An entry became a migration entry, or came back; `name` is the tracepoint's.
    MigrationEntry {
        /// `set_migration_pte`, `remove_migration_pte`, `set_migration_pmd` or
        /// `remove_migration_pmd`.
        name: &'static str,
        /// User address, in bytes.
        address: u64,
        /// Order of the folio.
        order: Order,
    },
    /// `sched:sched_skip_vma_numa`: the balancing scanner passed over a VMA (6.12 and later).
    SkipVmaNuma {
        /// Start of the VMA, in bytes.
        start: u64,
        /// End of the VMA, in bytes.
        end: u64,
        /// The kernel's name of the reason.
        reason: &'static str,
    },
}

type EntryEvent = fn(u64, Order) -> Event;

impl Event {
    pub(crate) fn set_migration_pte(page: u64, order: Order) -> Self {
        Self::MigrationEntry { name: "set_migration_pte", address: page * PAGE_BYTES, order }
    }

    pub(crate) fn remove_migration_pte(page: u64, order: Order) -> Self {
        Self::MigrationEntry { name: "remove_migration_pte", address: page * PAGE_BYTES, order }
    }

    pub(crate) fn set_migration_pmd(page: u64, order: Order) -> Self {
        Self::MigrationEntry { name: "set_migration_pmd", address: page * PAGE_BYTES, order }
    }

    pub(crate) fn remove_migration_pmd(page: u64, order: Order) -> Self {
        Self::MigrationEntry { name: "remove_migration_pmd", address: page * PAGE_BYTES, order }
    }

    /// The name of the tracepoint.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MigratePagesStart { .. } => "mm_migrate_pages_start",
            Self::MigratePages { .. } => "mm_migrate_pages",
            Self::MigrationEntry { name, .. } => name,
            Self::SkipVmaNuma { .. } => "sched_skip_vma_numa",
        }
    }
}

/// The text after the tracepoint's name.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MigratePagesStart { mode, reason } => {
                write!(f, "mode={} reason={}", mode.name(), reason.name())
            }
            Self::MigratePages { counts, has_split_field, mode, reason, .. } => {
                write!(
                    f,
                    "nr_succeeded={} nr_failed={} nr_thp_succeeded={} nr_thp_failed={} \
                     nr_thp_split={}",
                    counts.succeeded,
                    counts.failed,
                    counts.thp_succeeded,
                    counts.thp_failed,
                    counts.thp_split
                )?;
                if *has_split_field {
                    write!(f, " nr_split={}", counts.large_folio_split)?;
                }
                write!(f, " mode={} reason={}", mode.name(), reason.name())
            }
            Self::MigrationEntry { address, order, .. } => {
                write!(f, "addr={address:x}, order={order}")
            }
            Self::SkipVmaNuma { start, end, reason } => {
                write!(f, "vm_start={start:X} vm_end={end:X} reason={reason}")
            }
        }
    }
}

/// The events since tracing was switched on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Trace {
    is_on: bool,
    events: Vec<Event>,
}

impl Machine {
    /// Switches tracing on; events that were kept are forgotten.
    pub fn trace_on(&mut self) {
        self.trace = Trace { is_on: true, events: Vec::new() };
    }

    /// Switches tracing off, and forgets the events that were kept.
    pub fn trace_off(&mut self) {
        self.trace = Trace::default();
    }

    /// Whether tracing is on.
    pub const fn is_traced(&self) -> bool {
        self.trace.is_on
    }

    /// The events since [`Machine::trace_on`]; tracing goes on.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.trace.events)
    }

    pub(crate) fn emit(&mut self, event: impl FnOnce(&Self) -> Event) {
        if self.trace.is_on {
            let event = event(self);
            self.trace.events.push(event);
        }
    }

    pub(crate) fn emit_entry_event(&mut self, event: EntryEvent, page: u64, order: Order) {
        if self.trace.is_on {
            self.trace.events.push(event(page, order));
        }
    }
}
