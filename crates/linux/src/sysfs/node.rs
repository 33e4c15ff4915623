//! Reads `/sys/devices/system/node`: the nodes, their CPUs, memory, distances and counters.
//!
//! A kernel without NUMA has no such folder. Offline nodes have no folder of their own.
//!
//! Source: kernel, Documentation/ABI/stable/sysfs-devices-node.

use std::collections::BTreeMap;

use machine::{Bytes, CpuSet, Distance, NodeId, NodeSet};

use crate::error::parse_lines;
use crate::{Malformed, ReadError, Root};

const NODES: &str = "sys/devices/system/node";

/// Which nodes there are, by what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Those that may ever appear.
    pub possible: NodeSet,
    /// Those that are there.
    pub online: NodeSet,
    /// Those with memory; only these can be moved to.
    pub with_memory: NodeSet,
    /// Those with CPUs.
    pub with_cpus: NodeSet,
}

/// Which nodes there are.
///
/// # Errors
///
/// [`ReadError`].
pub fn nodes(root: &Root) -> Result<Nodes, ReadError> {
    let set = |name: &str| root.value(format!("{NODES}/{name}"));
    Ok(Nodes {
        possible: set("possible")?,
        online: set("online")?,
        with_memory: set("has_memory")?,
        with_cpus: set("has_cpu")?,
    })
}

/// The CPUs of a node; empty for a memory-only node.
///
/// # Errors
///
/// [`ReadError`].
pub fn cpus(root: &Root, node: NodeId) -> Result<CpuSet, ReadError> {
    root.value(path(node, "cpulist"))
}

/// Distances from a node to each online node, in their order.
///
/// # Errors
///
/// [`ReadError`].
pub fn distances(root: &Root, node: NodeId) -> Result<Vec<Distance>, ReadError> {
    root.parse(path(node, "distance"), |text| {
        text.split_ascii_whitespace()
            .map(|entry| {
                entry.parse().map_err(|_| Malformed::new(1, format!("`{entry}` is no distance")))
            })
            .collect()
    })
}

/// What a node's `meminfo` says, by the kernel's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory(BTreeMap<String, Bytes>);

impl NodeMemory {
    /// A size by the kernel's name (`FilePages`, `Inactive(file)`); zero when it has none such.
    #[must_use]
    pub fn size(&self, name: &str) -> Bytes {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All sizes.
    #[must_use]
    pub fn sizes(&self) -> &BTreeMap<String, Bytes> {
        &self.0
    }

    /// Memory that the allocator was given.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.size("MemTotal")
    }

    /// Free memory.
    #[must_use]
    pub fn free(&self) -> Bytes {
        self.size("MemFree")
    }

    /// Page cache not used lately: what a move to a full node pushes out first.
    #[must_use]
    pub fn inactive_file(&self) -> Bytes {
        self.size("Inactive(file)")
    }
}

/// Reads the text of a node's meminfo: `Node 0 MemFree:  4116576 kB` on each line. Lines without
/// a unit count huge pages, for which [`huge_pools`] is better, and are left out.
///
/// # Errors
///
/// A line without a name, or whose size is no number.
pub fn parse_memory(text: &str) -> Result<NodeMemory, Malformed> {
    let line = |line: &str| {
        let (head, value) = line.split_once(':').ok_or("no name")?;
        let name = head.split_ascii_whitespace().nth(2).ok_or("no name")?;
        let Some(kib) = value.strip_suffix("kB") else { return Ok(None) };
        let kib: u64 = kib.trim().parse().map_err(|_| "the size is no number")?;
        Ok::<_, &str>(Some((name.to_owned(), Bytes::new(kib.saturating_mul(1024)))))
    };
    Ok(NodeMemory(parse_lines(text, line)?.into_iter().flatten().collect()))
}

/// The memory of a node.
///
/// # Errors
///
/// [`ReadError`].
pub fn memory(root: &Root, node: NodeId) -> Result<NodeMemory, ReadError> {
    root.parse(path(node, "meminfo"), parse_memory)
}

/// Allocation counters of a node (`numa_hit`, `other_node`), counted by allocation, not by page
/// (behaviour spec 6.4).
///
/// # Errors
///
/// [`ReadError`].
pub fn allocations(root: &Root, node: NodeId) -> Result<BTreeMap<String, u64>, ReadError> {
    root.parse(path(node, "numastat"), |text| {
        let line = |line: &str| {
            let (name, count) = line.split_once(' ').ok_or("no count")?;
            Ok::<_, &str>((name.to_owned(), count.parse().map_err(|_| "the count is no number")?))
        };
        parse_lines(text, line).map(|lines| lines.into_iter().collect())
    })
}

/// Events and amounts of a node, as `/proc/vmstat` has them for the machine. What the kernel counts
/// on each CPU first (`pgpromote_success`) is up to a second behind.
///
/// # Errors
///
/// [`ReadError`].
pub fn vmstat(root: &Root, node: NodeId) -> Result<BTreeMap<String, u64>, ReadError> {
    root.parse(path(node, "vmstat"), crate::proc::vmstat::parse)
}

/// A pool of hugetlb pages of one size, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePool {
    /// Size of a page.
    pub page_size: Bytes,
    /// Pages of the pool.
    pub total: u64,
    /// Those that nobody uses. Some may be promised to a mapping already.
    pub free: u64,
    /// Those beyond the size that was asked for, given back when free.
    pub surplus: u64,
}

/// The hugetlb pools of a node, by page size.
///
/// # Errors
///
/// [`ReadError`]. A kernel without hugetlb has no pools, which is none.
pub fn huge_pools(root: &Root, node: NodeId) -> Result<Vec<HugePool>, ReadError> {
    let folder = path(node, "hugepages");
    let sizes = match root.numbers(&folder, "hugepages-", "kB") {
        Err(ReadError::NotFound { .. }) => return Ok(Vec::new()),
        result => result?,
    };
    let pool = |kib: u64| {
        let count = |name: &str| root.value(format!("{folder}/hugepages-{kib}kB/{name}"));
        Ok(HugePool {
            page_size: Bytes::new(kib.saturating_mul(1024)),
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
            surplus: count("surplus_hugepages")?,
        })
    };
    sizes.into_iter().map(pool).collect()
}

/// Numbers of the memory blocks that lie on a node, wholly or in part; empty when the kernel is
/// built without memory hotplug.
///
/// # Errors
///
/// [`ReadError`].
pub fn memory_blocks(root: &Root, node: NodeId) -> Result<Vec<u64>, ReadError> {
    root.numbers(format!("{NODES}/node{node}"), "memory", "")
}

fn path(node: NodeId, file: &str) -> String {
    format!("{NODES}/node{node}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_found_by_name_and_counts_of_huge_pages_are_left_out() {
        let text = "\
Node 0 MemTotal:        5466316 kB
Node 0 MemFree:         4116576 kB
Node 0 Inactive(file):   541304 kB
Node 0 HugePages_Total:     0
";
        let memory = parse_memory(text).unwrap();
        assert_eq!(memory.total(), Bytes::new(5_466_316 << 10));
        assert_eq!(memory.inactive_file(), Bytes::new(541_304 << 10));
        assert_eq!(memory.sizes().len(), 3);
    }

    #[test]
    fn this_machine_has_a_node_or_a_kernel_without_numa() {
        let root = Root::default();
        let nodes = match nodes(&root) {
            Err(ReadError::NotFound { .. }) => return,
            result => result.unwrap(),
        };
        let node = nodes.with_memory.first().unwrap();
        assert!(nodes.online.is_subset(&nodes.possible));
        assert!(memory(&root, node).unwrap().total() > Bytes::ZERO);
        assert_eq!(distances(&root, node).unwrap().len(), nodes.online.len());
        assert!(allocations(&root, node).unwrap()["numa_hit"] > 0);
        for pool in huge_pools(&root, node).unwrap() {
            assert!(pool.free <= pool.total);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "(Node [0-9] [A-Za-z()_]{0,9}:? {0,3}[0-9]{0,25} kB\n|\
                [ -~]{0,30}\n){0,6}"
        ) {
            let _ = parse_memory(&text);
        }
    }
}
