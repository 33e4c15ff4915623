//! This computer as a [`Topology`]: put together from sysfs.

use std::path::PathBuf;

use machine::{Distance, Node, Topology, TopologyError};

use super::{node, tier};
use crate::{ReadError, Root};

/// Why there is no topology to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadTopologyError {
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),

    /// The files contradict each other.
    #[error("{} does not describe a machine: {rule}", path.display())]
    Contradiction {
        /// The folder of the nodes.
        path: PathBuf,
        /// The rule that is broken.
        rule: TopologyError,
    },
}

/// The online nodes with their CPUs, memory (total and free now), distances and tiers.
///
/// Latency and bandwidth are left out: the kernel shows them only where firmware has them, and
/// then not for pairs of nodes.
///
/// # Errors
///
/// [`ReadTopologyError`]. A kernel without NUMA has no files to read: `NotFound`.
pub fn read(root: &Root, name: &str) -> Result<Topology, ReadTopologyError> {
    let tiers = tier::tiers(root)?;
    let mut nodes = Vec::new();
    let mut distances: Vec<Vec<Distance>> = Vec::new();
    for id in node::nodes(root)?.online.iter() {
        let memory = node::memory(root, id)?;
        nodes.push(Node {
            id,
            cpus: node::cpus(root, id)?,
            memory: memory.total(),
            free: Some(memory.free()),
            tier: tiers.get(&id).copied(),
            latency_ns: None,
            bandwidth_per_s: None,
        });
        distances.push(node::distances(root, id)?);
    }
    Topology::observed(name, nodes, distances).map_err(|rule| ReadTopologyError::Contradiction {
        path: root.path("sys/devices/system/node"),
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A node with CPUs and a memory-only one, numbered with a gap.
    fn dram_and_cxl() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join("sys/devices").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["possible", "online", "has_memory"] {
            write(&format!("system/node/{name}"), "0,2\n");
        }
        write("system/node/has_cpu", "0\n");
        for (node, cpus, distance) in [(0, "0-1", "10 20"), (2, "", "20 10")] {
            let file = |name: &str| format!("system/node/node{node}/{name}");
            write(&file("cpulist"), &format!("{cpus}\n"));
            write(&file("distance"), &format!("{distance}\n"));
            let memory =
                format!("Node {node} MemTotal: 1024 kB\nNode {node} MemFree: {} kB\n", 100 + node);
            write(&file("meminfo"), &memory);
        }
        write("virtual/memory_tiering/memory_tier4/nodelist", "0\n");
        write("virtual/memory_tiering/memory_tier22/nodelist", "2\n");
        folder
    }

    #[test]
    fn nodes_come_with_cpus_memory_distances_and_tiers() {
        let folder = dram_and_cxl();
        let topology = read(&Root::new(folder.path()), "test").unwrap();
        let [dram, cxl] = topology.nodes() else { panic!("two nodes") };
        assert_eq!(topology.node_set().to_string(), "0,2");
        assert_eq!(dram.cpus.to_string(), "0-1");
        assert!(cxl.is_memory_only());
        assert_eq!((dram.tier, cxl.tier), (Some(0), Some(1)));
        assert_eq!(cxl.free.map(|free| free.get()), Some(102 << 10));
        assert_eq!(topology.distance(dram.id, cxl.id), Some(20));
    }

    #[test]
    fn nodes_that_numa_fake_has_cut_from_one_share_its_cpus_and_are_at_distance_10() {
        let folder = dram_and_cxl();
        for node in [0, 2] {
            let node = folder.path().join(format!("sys/devices/system/node/node{node}"));
            fs::write(node.join("cpulist"), "0-1\n").unwrap();
            fs::write(node.join("distance"), "10 10\n").unwrap();
        }
        let topology = read(&Root::new(folder.path()), "test").unwrap();
        assert_eq!(topology.cpus().to_string(), "0-1");
        assert_eq!(topology.nodes_of(&topology.nodes()[1].cpus).to_string(), "0,2");
        assert_eq!(topology.distances(), [[10, 10], [10, 10]]);
    }

    #[test]
    fn a_table_of_distances_that_is_too_small_is_a_contradiction() {
        let folder = dram_and_cxl();
        fs::write(folder.path().join("sys/devices/system/node/node2/distance"), "10\n").unwrap();
        let error = read(&Root::new(folder.path()), "test").unwrap_err();
        assert!(matches!(error, ReadTopologyError::Contradiction { .. }), "{error}");
    }
}
