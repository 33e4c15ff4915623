//! Callers of the migration engine that work on memory instead of on a process: reclaim that
//! demotes, compaction, and memory that goes offline or bad.

pub(crate) mod compact;
pub(crate) mod demote;
pub(crate) mod offline;

use std::collections::{BTreeMap, BTreeSet};

use crate::memory::frames::Pfn;
use crate::memory::node::Slot;

/// State of reclaim.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Reclaim {
    /// `/sys/kernel/mm/numa/demotion_enabled`.
    pub(crate) demotion_enabled: bool,
    /// Nodes whose kswapd was woken.
    pub(crate) woken: BTreeSet<Slot>,
    /// Where the clock of each node stands.
    pub(crate) hands: BTreeMap<Slot, Pfn>,
    /// Frames that are offline or bad: nobody's, and not free.
    pub(crate) withdrawn: BTreeSet<Pfn>,
}
