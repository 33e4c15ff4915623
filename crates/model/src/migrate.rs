//! The migration engine: isolated folios in, moved folios out, the rest back to the caller.
//!
//! It is the kernel's `migrate_pages()` (the function, not the system call); the steps have files
//! of their own:
//!
//! - [`engine`]: one call, its result and its counters (spec 7.3, 7.7);
//! - [`staged`] and [`one_by_one`]: batches, retries and splits of the kernels (7.4, 7.5);
//! - [`unmap`]: allocate, lock, replace page-table entries by migration entries (7.6);
//! - [`transfer`]: check references, copy, hand over, restore the entries (7.8 to 7.11);
//! - [`lone`]: both halves for the common folio, one base page mapped once;
//! - [`target`]: where the copy is allocated (1.6).
//!
//! Callers isolate (`crate::memory::lru`), run the engine, and put back what is left.

use crate::memory::frames::Pfn;
use crate::observe::call_path::Caller;

pub(crate) mod engine;
pub(crate) mod lone;
pub(crate) mod one_by_one;
pub(crate) mod queue;
pub(crate) mod staged;
pub(crate) mod target;
pub(crate) mod transfer;
pub(crate) mod unmap;

pub(crate) use target::Target;

/// How much an engine call may wait (spec 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MigrateMode {
    /// Never.
    Async,
    /// For locks, not for writeback.
    SyncLight,
    /// For everything.
    Sync,
}

impl MigrateMode {
    /// The name that the tracepoint prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "MIGRATE_ASYNC",
            Self::SyncLight => "MIGRATE_SYNC_LIGHT",
            Self::Sync => "MIGRATE_SYNC",
        }
    }
}

/// Why pages are migrated: `enum migrate_reason`, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MigrateReason {
    /// Compaction of a zone.
    Compaction = 0,
    /// Soft offline of a failing page.
    MemoryFailure = 1,
    /// Memory goes offline.
    MemoryHotplug = 2,
    /// migrate_pages(2), move_pages(2), or a cpuset.
    Syscall = 3,
    /// mbind(2).
    MempolicyMbind = 4,
    /// Automatic balancing, or promotion.
    NumaMisplaced = 5,
    /// A contiguous range is wanted.
    ContigRange = 6,
    /// A long-term pin must not be in movable memory.
    LongtermPin = 7,
    /// Reclaim moves cold pages to a slower tier.
    Demotion = 8,
    /// DAMON.
    Damon = 9,
}

impl MigrateReason {
    /// Every reason, by its number.
    pub const ALL: [Self; 10] = [
        Self::Compaction,
        Self::MemoryFailure,
        Self::MemoryHotplug,
        Self::Syscall,
        Self::MempolicyMbind,
        Self::NumaMisplaced,
        Self::ContigRange,
        Self::LongtermPin,
        Self::Demotion,
        Self::Damon,
    ];

    /// The name that the tracepoint prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::MemoryFailure => "memory_failure",
            Self::MemoryHotplug => "memory_hotplug",
            Self::Syscall => "syscall_or_cpuset",
            Self::MempolicyMbind => "mempolicy_mbind",
            Self::NumaMisplaced => "numa_misplaced",
            Self::ContigRange => "contig_range",
            Self::LongtermPin => "longterm_pin",
            Self::Demotion => "demotion",
            Self::Damon => "damon",
        }
    }
}

/// What an engine call is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) mode: MigrateMode,
    pub(crate) reason: MigrateReason,
    pub(crate) target: Target<'a>,
    pub(crate) caller: Caller,
}

/// What an engine call gives back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EngineOutcome {
    /// Folios that stayed, or `ENOMEM`; no other error leaves the engine.
    pub(crate) result: Result<u64, crate::Errno>,
    /// Folios that are still isolated: the caller puts them back.
    pub(crate) left: Vec<Pfn>,
    /// Base pages that were moved.
    pub(crate) succeeded: u64,
}
