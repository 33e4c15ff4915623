//! Every migration of a run, told: its path, its reason, its mode and its result.
//!
//! For `pagetide model explain`: a reader of kernel stacks finds the same stacks here.

use std::fmt;

use crate::migrate::{MigrateMode, MigrateReason};
use crate::observe::call_path::CallPath;
use crate::observe::events::{Event, MigrateCounts};

/// One call of the migration engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The functions, outermost first.
    pub path: CallPath,
    /// Why.
    pub reason: MigrateReason,
    /// How much it might wait.
    pub mode: MigrateMode,
    /// What came of it.
    pub counts: MigrateCounts,
    /// Migration entries that were set: tries included.
    pub entries_set: usize,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason, mode, counts, entries_set } = self;
        write!(
            f,
            "{path}\n  reason={} mode={} moved={} stayed={} split={} entries_set={entries_set}",
            reason.name(),
            mode.name(),
            counts.succeeded,
            counts.failed,
            counts.large_folio_split
        )
    }
}

/// Reads the engine calls out of a stream of events.
pub fn explain(events: &[Event]) -> Vec<Explained> {
    let mut calls = Vec::new();
    let mut entries_set = 0;
    for event in events {
        match *event {
            Event::MigratePagesStart { .. } => entries_set = 0,
            Event::MigrationEntry { name, .. } if name.starts_with("set_") => entries_set += 1,
            Event::MigratePages { counts, mode, reason, path, .. } => {
                calls.push(Explained { path, reason, mode, counts, entries_set });
            }
            Event::MigrationEntry { .. } | Event::SkipVmaNuma { .. } => {}
        }
    }
    calls
}
