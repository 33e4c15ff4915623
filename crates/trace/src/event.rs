//! What a trace gives: migrations, other events that explain them, and gaps.
//!
//! The serialised form is what `pagetide trace --json` prints. Pages are base pages; times are
//! nanoseconds.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The engine ran: one call of the kernel's `migrate_pages`.
    Migration(Migration),
    /// Another event that explains migrations: a task moved, compaction, a huge page collapsed.
    Kernel(KernelEvent),
    /// Events were overwritten before they were read.
    Lost(Gap),
}

/// When, where, and in whose context something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occasion {
    /// Nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The CPU.
    pub cpu: u32,
    /// The thread that ran the kernel's code: a process that asked or that faulted, kswapd, kcompactd.
    pub tid: u32,
    /// Its process, if it is still known.
    pub pid: Option<u32>,
    /// Its name, as `ps -e` shows it; empty when it was gone before it was looked at.
    pub process: String,
}

/// One run of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// When it ended, where, and who ran it.
    #[serde(flatten)]
    pub occasion: Occasion,
    /// Why, in the kernel's word: `numa_misplaced`.
    pub reason: String,
    /// How hard it tried, in the kernel's word: `MIGRATE_ASYNC`.
    pub mode: String,
    /// What became of the pages.
    #[serde(flatten)]
    pub counts: Counts,
    /// From its start to its end; `None` when the start was not seen.
    pub duration_ns: Option<u64>,
    /// The process whose pages they are, where that can be known.
    pub pages_of: Option<Owner>,
    /// The functions of the kernel, innermost first; empty when stacks were not asked for.
    #[serde(default, with = "list", skip_serializing_if = "is_empty")]
    pub stack: Arc<[String]>,
}

/// The process whose pages were migrated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// Its name; empty when it was gone before it was looked at.
    pub name: String,
}

/// What became of the pages of a migration. In THPs where the name says so, else in base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pages that were moved.
    pub succeeded_pages: u64,
    /// Pages that were tried and stayed.
    pub failed_pages: u64,
    /// THPs that were moved whole.
    pub thp_succeeded: u64,
    /// THPs that stayed, or were split.
    pub thp_failed: u64,
    /// THPs that were split.
    pub thp_split: u64,
    /// Large folios that were split; `None` on kernels that do not count them (before 6.6).
    pub large_folio_split: Option<u64>,
}

/// Another event, with its fields as the kernel has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelEvent {
    /// When, where, and in whose context.
    #[serde(flatten)]
    pub occasion: Occasion,
    /// The event: `sched_move_numa`.
    pub name: String,
    /// Its own fields, in the kernel's order; addresses of the kernel's memory are left out.
    #[serde(serialize_with = "as_map")]
    pub fields: Vec<(Arc<str>, Value)>,
}

/// The value of a field: a word where the kernel has one for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A word.
    Word(String),
}

/// Events that were lost before the next event: of one CPU, or of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The CPU whose buffer it was; `None` under `pagetide run`, where there is one for all.
    pub cpu: Option<u32>,
    /// How many; `None` when the kernel did not say.
    pub events: Option<u64>,
}

impl Counts {
    /// Adds another migration's counts.
    pub fn add(&mut self, other: &Self) {
        self.succeeded_pages += other.succeeded_pages;
        self.failed_pages += other.failed_pages;
        self.thp_succeeded += other.thp_succeeded;
        self.thp_failed += other.thp_failed;
        self.thp_split += other.thp_split;
        if let Some(split) = other.large_folio_split {
            *self.large_folio_split.get_or_insert(0) += split;
        }
    }
}

/// A reason in words: the kernel's own, without its underscores.
#[must_use]
pub fn in_words(reason: &str) -> String {
    reason.replace('_', " ")
}

fn is_empty(stack: &Arc<[String]>) -> bool {
    stack.is_empty()
}

fn as_map<S: Serializer>(fields: &[(Arc<str>, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fields.iter().map(|(name, value)| (&**name, value)))
}

/// A stack as a list of names.
mod list {
    use super::{Arc, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(stack: &[String], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(stack)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Arc<[String]>, D::Error> {
        Vec::deserialize(from).map(Into::into)
    }
}
