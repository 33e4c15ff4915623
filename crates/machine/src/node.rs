//! Names of nodes and CPUs: the kernel's own numbers, which may have gaps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A NUMA node by the kernel's number: `0..1024` on Debian amd64 (`MAX_NUMNODES`).
///
/// A name, not an index: node numbers may have gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct NodeId(u16);

impl NodeId {
    /// One more than the highest node number (`MAX_NUMNODES` with `NODES_SHIFT` 10).
    pub const LIMIT: u16 = 1024;

    /// `None` when `raw` is not below [`NodeId::LIMIT`].
    pub const fn new(raw: u16) -> Option<Self> {
        if raw < Self::LIMIT { Some(Self(raw)) } else { None }
    }

    /// The kernel's number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index into a table of [`NodeId::LIMIT`] entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number as the kernel takes it in the `nodes` array of move_pages(2).
    pub const fn as_raw(self) -> i32 {
        self.0 as i32
    }
}

impl TryFrom<u16> for NodeId {
    type Error = String;

    fn try_from(raw: u16) -> Result<Self, String> {
        Self::new(raw)
            .ok_or_else(|| format!("node {raw} is out of range: node numbers end at 1023"))
    }
}

impl From<NodeId> for u16 {
    fn from(node: NodeId) -> Self {
        node.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A CPU by the kernel's number: `0..8192` on Debian amd64 (`NR_CPUS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// One more than the highest CPU number that pagetide accepts.
    pub const LIMIT: u32 = 8192;

    /// `None` when `raw` is not below [`CpuId::LIMIT`].
    pub const fn new(raw: u32) -> Option<Self> {
        if raw < Self::LIMIT { Some(Self(raw)) } else { None }
    }

    /// The kernel's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
