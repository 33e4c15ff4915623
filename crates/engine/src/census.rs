//! The census: every process of the host in one line, those with most memory in the wrong place first.
//!
//! It reads numa_maps, which gives totals without a look at single pages. Called by `show` without a
//! target.

use std::collections::BTreeMap;

use linux::proc::{numa_maps, processes, stat};
use linux::{ReadError, Root};
use machine::{Bytes, NodeId, NodeSet};
use serde::Serialize;

use crate::planner::Planner;

/// The memory of every process that may be looked into.
#[derive(Clone, Debug, Serialize)]
pub struct Census {
    /// Most memory away from its CPUs first.
    pub processes: Vec<CensusLine>,
    /// Processes that could not be read, for lack of rights.
    pub unreadable: usize,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CensusLine {
    /// Its number.
    pub pid: u32,
    /// Its command name.
    pub name: String,
    /// Nodes on whose CPUs its threads may run.
    pub cpu_nodes: NodeSet,
    /// Its memory on each node that has any.
    pub bytes_by_node: BTreeMap<NodeId, Bytes>,
    /// Its memory.
    pub bytes: Bytes,
    /// Its memory on nodes where its threads may not run.
    pub away_bytes: Bytes,
}

impl Census {
    /// Counts every process but this one.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be listed. A process that exits meanwhile is left out.
    pub fn take(root: &Root, planner: &Planner) -> Result<Self, ReadError> {
        let mut census = Self { processes: Vec::new(), unreadable: 0 };
        for pid in processes::pids(root)?.into_iter().filter(|&pid| pid != std::process::id()) {
            match line(root, planner, pid) {
                Ok(line) if line.bytes > Bytes::ZERO => census.processes.push(line),
                Err(ReadError::NotPermitted { .. }) => census.unreadable += 1,
                Ok(_) | Err(_) => {}
            }
        }
        census
            .processes
            .sort_by_key(|line| (std::cmp::Reverse((line.away_bytes, line.bytes)), line.pid));
        Ok(census)
    }
}

fn line(root: &Root, planner: &Planner, pid: u32) -> Result<CensusLine, ReadError> {
    let mut bytes_by_node: BTreeMap<NodeId, Bytes> = BTreeMap::new();
    for mapping in numa_maps::read(root, pid)? {
        for (node, bytes) in mapping.bytes() {
            *bytes_by_node.entry(node).or_default() += bytes;
        }
    }
    let cpu_nodes = planner.cpu_nodes(pid)?;
    let away = bytes_by_node.iter().filter(|(node, _)| !cpu_nodes.contains(**node));
    Ok(CensusLine {
        pid,
        name: stat::read(root, pid)?.name,
        away_bytes: away.map(|(_, bytes)| *bytes).sum(),
        bytes: bytes_by_node.values().copied().sum(),
        cpu_nodes,
        bytes_by_node,
    })
}
