//! The seam between the engine and whatever holds the pages: a real process, or a simulated one.
//!
//! Survey, plan and mover know nothing but this trait. [`LinuxMemory`] implements it over the kernel;
//! the tests implement it over a few vectors.

mod by_frame;
mod by_query;
mod linux_memory;
mod run_joiner;
mod walk;
mod zero_frames;

#[cfg(test)]
pub(crate) mod fake;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use linux::ReadError;
use linux::calls::MoveError;
use machine::{AddrRange, NodeId, NodeSet};
use serde::{Deserialize, Serialize};

pub use linux_memory::{LinuxMemory, Sight};

use crate::placement::{Mapping, Run};

/// Whether pages that other page table entries map too may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Leave shared pages alone (`MPOL_MF_MOVE`).
    OwnOnly,
    /// Move them for everybody who maps them (`MPOL_MF_MOVE_ALL`; needs CAP_SYS_NICE).
    IncludeShared,
}

/// Base pages of a range that a survey cannot place on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// In swap, or in flight between two nodes just now.
    pub swapped_pages: u64,
    /// The zero page, which belongs to no process, mapped where memory was only read.
    pub zero_pages: u64,
}

/// The memory of one target.
pub trait Memory: Sync {
    /// The process.
    fn pid(&self) -> u32;

    /// Whether the process that was opened still runs. Once false, always false, also when another
    /// process has its number.
    fn is_alive(&self) -> bool;

    /// Its mappings, ascending.
    ///
    /// # Errors
    ///
    /// What reading them gave.
    fn mappings(&self) -> Result<Vec<Mapping>, ReadError>;

    /// Streams the present pages of `range`, which lies in `mapping`, as runs in address order.
    /// Stops early when `each` breaks.
    ///
    /// Runs are as long as the memory allows, but a run may be cut anywhere: a reader must not rely
    /// on two neighbours differing.
    ///
    /// # Errors
    ///
    /// What reading them gave. A target that has gone has no pages; that is no error.
    fn runs(
        &self,
        mapping: &Mapping,
        range: AddrRange,
        each: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<Unplaced, ReadError>;

    /// Base pages of each mapping by node, with the mapping's first address: as the kernel counts them,
    /// which is cheaper than [`runs`](Self::runs).
    ///
    /// # Errors
    ///
    /// What reading them gave.
    fn pages_by_node(&self) -> Result<BTreeMap<u64, BTreeMap<NodeId, u64>>, ReadError>;

    /// Whether a page lies on a node at `address`, by another way than asking the kernel for the
    /// page. The zero page lies on none: it is what Linux 6.12 puts in the place of an all-zero page
    /// of a THP that a migration split.
    fn has_page(&self, address: u64) -> bool;

    /// Moves pages to one node: one call of the kernel. `status` is filled with
    /// [`linux::UNWRITTEN`] first; it is worth reading after an error too.
    ///
    /// # Errors
    ///
    /// Why the call failed as a whole.
    fn move_pages(
        &self,
        pages: &[u64],
        to: NodeId,
        sharing: Sharing,
        status: &mut [i32],
    ) -> Result<(), MoveError>;

    /// Moves every page of the process that lies on `from` to one node: one call of the kernel, which
    /// says nothing of single pages.
    ///
    /// # Errors
    ///
    /// Why the call failed as a whole, or could not be made so that it moves just what `sharing`
    /// allows; nothing has moved then, but for [`MoveError::NoMemory`] and a target that has gone.
    fn migrate_pages(&self, from: &NodeSet, to: NodeId, sharing: Sharing) -> Result<(), MoveError>;

    /// Asks where pages are; moves nothing.
    ///
    /// # Errors
    ///
    /// Why the call failed as a whole.
    fn query_pages(&self, pages: &[u64], status: &mut [i32]) -> Result<(), MoveError>;
}
