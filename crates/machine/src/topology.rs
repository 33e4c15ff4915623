//! What a machine is: its nodes, their CPUs and memory, and the distances between them.
//!
//! Made from a machine.toml ([`crate::file`]), a built-in name, or the running computer
//! (`linux::sysfs`); read by `show`, `plan`, `lab`, `run` and `sim`.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::cpu_set::CpuSet;
use crate::node::{CpuId, NodeId};
use crate::node_set::NodeSet;

/// An entry of the ACPI SLIT: 10 is local; 255 is unreachable.
pub type Distance = u8;

/// What 52 bits of physical address reach; also keeps every sum of [`Bytes`] from overflowing.
const MEMORY_MAX: u128 = 1 << 52;

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The kernel's number.
    pub id: NodeId,
    /// CPUs of the node; empty for a memory-only node.
    pub cpus: CpuSet,
    /// Memory of the node; zero for a node of CPUs alone.
    pub memory: Bytes,
    /// Free memory, where it is known (a running computer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<Bytes>,
    /// Memory tier, 0 the fastest, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u8>,
    /// Load latency in ns, where it is known (HMAT, or a machine.toml).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u32>,
    /// Read bandwidth in bytes a second, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_per_s: Option<Bytes>,
}

impl Node {
    /// A node with memory and no CPU of its own: CXL, PMEM, HBM.
    pub fn is_memory_only(&self) -> bool {
        self.cpus.is_empty() && self.memory > Bytes::ZERO
    }
}

/// A machine: nodes in ascending order of number, and their distances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The name of the machine.
    pub name: String,
    nodes: Vec<Node>,
    /// `distances[i][j]`: from node `nodes[i]` to node `nodes[j]`.
    distances: Vec<Vec<Distance>>,
}

/// Why nodes and distances do not make a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// There is no node, or none with memory.
    #[error("a machine needs at least one node with memory")]
    NoMemory,
    /// There is no CPU.
    #[error("a machine needs at least one node with CPUs")]
    NoCpus,
    /// A node's memory is not a whole number of base pages.
    #[error("node {node} has {} of memory: memory comes in whole pages of 4 KiB", memory.exact())]
    PartialPage {
        /// The node.
        node: NodeId,
        /// Its memory.
        memory: Bytes,
    },
    /// More memory than an x86-64 machine can address.
    #[error("the nodes have more than 4 PiB of memory together")]
    TooMuchMemory,
    /// A node number is used twice.
    #[error("node {node} is described twice")]
    DuplicateNode {
        /// The number.
        node: NodeId,
    },
    /// A CPU belongs to two nodes.
    #[error("CPU {cpu} belongs to node {first} and to node {second}")]
    DuplicateCpu {
        /// The CPU.
        cpu: CpuId,
        /// The node that had it.
        first: NodeId,
        /// The node that claims it too.
        second: NodeId,
    },
    /// The table of distances does not have one row for each node.
    #[error("{rows} rows of distances for {nodes} nodes: each node needs a row")]
    DistanceRows {
        /// Rows.
        rows: usize,
        /// Nodes.
        nodes: usize,
    },
    /// A row of distances does not have one entry for each node.
    #[error("{entries} distances from node {from}, in a machine of {nodes} nodes")]
    DistanceEntries {
        /// The node whose row it is.
        from: NodeId,
        /// Entries.
        entries: usize,
        /// Nodes.
        nodes: usize,
    },
    /// A distance that no SLIT may hold.
    #[error(
        "distance {distance} from node {from} to node {to}: 10 for a node to itself, 11 to 255 between two"
    )]
    DistanceValue {
        /// From this node.
        from: NodeId,
        /// To this node.
        to: NodeId,
        /// The value.
        distance: Distance,
    },
}

impl Topology {
    /// Distance of a node to itself (`LOCAL_DISTANCE`).
    pub const LOCAL_DISTANCE: Distance = 10;
    /// Distance between two nodes when nothing else is known (`REMOTE_DISTANCE`).
    pub const REMOTE_DISTANCE: Distance = 20;

    /// Checks and keeps a machine that somebody has described. Without `distances`: 10 on the
    /// diagonal, 20 off it. `distances` follow the order in which `nodes` are given.
    ///
    /// # Errors
    ///
    /// The first rule that is broken: [`TopologyError`].
    pub fn new(
        name: impl Into<String>,
        nodes: Vec<Node>,
        distances: Option<Vec<Vec<Distance>>>,
    ) -> Result<Self, TopologyError> {
        let distances = distances.unwrap_or_else(|| default_distances(nodes.len()));
        check_nodes(&nodes)?;
        check_cpus(&nodes)?;
        check_shape(&nodes, &distances)?;
        check_distances(&nodes, &distances)?;
        Ok(Self::in_order(name.into(), &nodes, &distances))
    }

    /// Keeps a machine as a kernel shows it. Under `numa=fake` each CPU is of every node that was cut
    /// from its own, and such nodes are at distance 10 from each other.
    ///
    /// Source: kernel, mm/numa_emulation.c, `numa_add_cpu` and `numa_emulation`.
    ///
    /// # Errors
    ///
    /// When nodes and distances do not fit together: [`TopologyError`].
    pub fn observed(
        name: impl Into<String>,
        nodes: Vec<Node>,
        distances: Vec<Vec<Distance>>,
    ) -> Result<Self, TopologyError> {
        check_nodes(&nodes)?;
        check_shape(&nodes, &distances)?;
        Ok(Self::in_order(name.into(), &nodes, &distances))
    }

    fn in_order(name: String, nodes: &[Node], distances: &[Vec<Distance>]) -> Self {
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|&at| nodes[at].id);
        let distances =
            order.iter().map(|&i| order.iter().map(|&j| distances[i][j]).collect()).collect();
        let nodes = order.iter().map(|&at| nodes[at].clone()).collect();
        Self { name, nodes, distances }
    }

    /// Whether it keeps the rules of a machine that somebody describes: each CPU is of one node, and
    /// 10 is the distance of a node to itself alone.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn check_description(&self) -> Result<(), TopologyError> {
        check_cpus(&self.nodes)?;
        check_distances(&self.nodes, &self.distances)
    }

    /// All nodes, in ascending order of number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.position(id).map(|at| &self.nodes[at])
    }

    /// From one node to another; `None` when either is absent.
    pub fn distance(&self, from: NodeId, to: NodeId) -> Option<Distance> {
        Some(self.distances[self.position(from)?][self.position(to)?])
    }

    /// Rows of distances, in the order of [`Topology::nodes`].
    pub fn distances(&self) -> &[Vec<Distance>] {
        &self.distances
    }

    /// Numbers of all nodes.
    pub fn node_set(&self) -> NodeSet {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Numbers of the nodes that have memory.
    pub fn memory_nodes(&self) -> NodeSet {
        self.nodes.iter().filter(|node| node.memory > Bytes::ZERO).map(|node| node.id).collect()
    }

    /// Numbers of the nodes that own one of these CPUs.
    pub fn nodes_of(&self, cpus: &CpuSet) -> NodeSet {
        self.nodes.iter().filter(|node| node.cpus.intersects(cpus)).map(|node| node.id).collect()
    }

    /// CPUs of all nodes.
    pub fn cpus(&self) -> CpuSet {
        self.nodes.iter().flat_map(|node| node.cpus.iter()).collect()
    }

    fn position(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }
}

fn default_distances(nodes: usize) -> Vec<Vec<Distance>> {
    let distance = |i, j| if i == j { Topology::LOCAL_DISTANCE } else { Topology::REMOTE_DISTANCE };
    (0..nodes).map(|i| (0..nodes).map(|j| distance(i, j)).collect()).collect()
}

fn check_nodes(nodes: &[Node]) -> Result<(), TopologyError> {
    if !nodes.iter().any(|node| node.memory > Bytes::ZERO) {
        return Err(TopologyError::NoMemory);
    }
    if nodes.iter().all(|node| node.cpus.is_empty()) {
        return Err(TopologyError::NoCpus);
    }
    let memory: u128 = nodes.iter().map(|node| u128::from(node.memory.get())).sum();
    if memory > MEMORY_MAX {
        return Err(TopologyError::TooMuchMemory);
    }
    for (at, second) in nodes.iter().enumerate() {
        if Bytes::from_pages(second.memory.pages()) != second.memory {
            let (node, memory) = (second.id, second.memory);
            return Err(TopologyError::PartialPage { node, memory });
        }
        for first in &nodes[..at] {
            if first.id == second.id {
                return Err(TopologyError::DuplicateNode { node: first.id });
            }
        }
    }
    Ok(())
}

fn check_cpus(nodes: &[Node]) -> Result<(), TopologyError> {
    for (at, second) in nodes.iter().enumerate() {
        for first in &nodes[..at] {
            if let Some(cpu) = second.cpus.iter().find(|&cpu| first.cpus.contains(cpu)) {
                let (first, second) = (first.id, second.id);
                return Err(TopologyError::DuplicateCpu { cpu, first, second });
            }
        }
    }
    Ok(())
}

fn check_shape(nodes: &[Node], distances: &[Vec<Distance>]) -> Result<(), TopologyError> {
    let (rows, nodes_len) = (distances.len(), nodes.len());
    if rows != nodes_len {
        return Err(TopologyError::DistanceRows { rows, nodes: nodes_len });
    }
    for (from, row) in nodes.iter().zip(distances) {
        if row.len() != nodes_len {
            let (from, entries) = (from.id, row.len());
            return Err(TopologyError::DistanceEntries { from, entries, nodes: nodes_len });
        }
    }
    Ok(())
}

fn check_distances(nodes: &[Node], distances: &[Vec<Distance>]) -> Result<(), TopologyError> {
    for (from, row) in nodes.iter().zip(distances) {
        for (to, &distance) in nodes.iter().zip(row) {
            let local = from.id == to.id;
            if local != (distance == Topology::LOCAL_DISTANCE)
                || distance < Topology::LOCAL_DISTANCE
            {
                return Err(TopologyError::DistanceValue { from: from.id, to: to.id, distance });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u16, cpus: &str, mib: u64) -> Node {
        Node {
            id: NodeId::new(id).unwrap(),
            cpus: cpus.parse().unwrap(),
            memory: Bytes::new(mib << 20),
            free: None,
            tier: None,
            latency_ns: None,
            bandwidth_per_s: None,
        }
    }

    #[test]
    fn nodes_are_kept_in_order_with_their_distances() {
        let machine = Topology::new(
            "odd",
            vec![node(4, "", 64), node(1, "0-1", 64)],
            Some(vec![vec![10, 33], vec![17, 10]]),
        )
        .unwrap();
        let (one, four) = (NodeId::new(1).unwrap(), NodeId::new(4).unwrap());
        assert_eq!(machine.nodes()[0].id, one);
        assert_eq!(machine.distance(four, one), Some(33));
        assert_eq!(machine.distance(one, four), Some(17));
        assert!(machine.nodes()[1].is_memory_only());
    }

    #[test]
    fn a_cpu_of_two_nodes_is_refused() {
        let error = Topology::new("twice", vec![node(0, "0-1", 64), node(1, "1", 64)], None);
        assert_eq!(error.unwrap_err().to_string(), "CPU 1 belongs to node 0 and to node 1");
    }

    #[test]
    fn a_machine_as_a_kernel_shows_it_may_have_a_cpu_on_two_nodes_at_distance_10() {
        let nodes = || vec![node(0, "0-1", 64), node(1, "0-1", 64)];
        let machine = Topology::observed("fake", nodes(), vec![vec![10; 2]; 2]).unwrap();
        assert_eq!(machine.cpus().to_string(), "0-1");
        assert_eq!(machine.nodes_of(&"1".parse().unwrap()).to_string(), "0-1");
        let error = machine.check_description().unwrap_err();
        assert!(matches!(error, TopologyError::DuplicateCpu { .. }), "{error}");
        let narrow = Topology::observed("fake", nodes(), vec![vec![10]; 2]).unwrap_err();
        assert!(matches!(narrow, TopologyError::DistanceEntries { .. }), "{narrow}");
    }

    #[test]
    fn memory_that_no_machine_can_have_is_refused() {
        let part = Node { memory: Bytes::new(4097), ..node(0, "0", 0) };
        let error = Topology::new("part", vec![part], None).unwrap_err();
        assert!(matches!(error, TopologyError::PartialPage { .. }));
        let huge = vec![node(0, "0", 1 << 32), node(1, "", 64)];
        assert_eq!(Topology::new("huge", huge, None), Err(TopologyError::TooMuchMemory));
    }

    #[test]
    fn a_distance_below_the_local_one_is_refused() {
        let nodes = vec![node(0, "0", 64), node(1, "1", 64)];
        let error = Topology::new("near", nodes, Some(vec![vec![10, 9], vec![20, 10]]));
        assert!(matches!(error, Err(TopologyError::DistanceValue { distance: 9, .. })));
    }
}
