//! What else of sysfs is about nodes: demotion, weights of weighted interleave, memory tiers.
//!
//! The files that a real machine lets its administrator write are shown without the right to: the
//! emulated machine is as it was described.
//!
//! Source: kernel, mm/memory-tiers.c and mm/mempolicy.c.

use std::collections::BTreeMap;

use machine::{Node, NodeSet};
use model::{KernelVersion, Machine};

use super::tree::Tree;

const TIERS: &str = "/sys/devices/virtual/memory_tiering";
/// Abstract distance of ordinary memory (`MEMTIER_ADISTANCE_DRAM`).
const DRAM_DISTANCE: u64 = 576;
/// Abstract distances that are one tier (`MEMTIER_CHUNK_SIZE`).
const CHUNK: u64 = 128;

/// Adds all of it.
pub(crate) fn add(tree: &mut Tree, machine: &Machine) {
    tree.line("/sys/kernel/mm/numa/demotion_enabled", false);
    for node in machine.topology().nodes() {
        // Kernels before 6.9 have no weights.
        if let Ok(weight) = machine.weight(node.id) {
            let path = format!("/sys/kernel/mm/mempolicy/weighted_interleave/node{}", node.id);
            tree.line(path, weight);
        }
    }
    tree.device(TIERS, None);
    let mut last = None;
    for nodes in tiers(machine).into_values() {
        let first = nodes.first().and_then(|node| machine.topology().node(node));
        let number = first.map_or(0, |node| tier_number(machine, node));
        let number = last.map_or(number, |last: u64| number.max(last + 1));
        last = Some(number);
        let name = format!("memory_tier{number}");
        let folder = format!("{TIERS}/{name}");
        tree.line(format!("{folder}/nodelist"), nodes);
        tree.device(&folder, Some("memory_tiering"));
        let target = format!("../../../devices/virtual/memory_tiering/{name}");
        tree.link(format!("/sys/bus/memory_tiering/devices/{name}"), target);
    }
}

/// The kernel's number of a node's tier: from how much slower it is than ordinary memory. Distances
/// are an `int` there.
fn tier_number(machine: &Machine, node: &Node) -> u64 {
    let dram = machine.topology().nodes().iter().find(|node| !node.cpus.is_empty());
    // Wide enough for any two nodes: 10 bits of distance, 32 of latency and 44 of bandwidth.
    let latency = |node: &Node| node.latency_ns.map(u128::from).filter(|&ns| ns > 0);
    let bandwidth = |node: &Node| {
        node.bandwidth_per_s.map(|it| u128::from(it.get() >> 20)).filter(|&it| it > 0)
    };
    let mut distance = u128::from(DRAM_DISTANCE);
    if let (Some(own), Some(drams)) = (latency(node), dram.and_then(latency)) {
        distance = distance * own / drams;
    }
    if let (Some(own), Some(drams)) = (bandwidth(node), dram.and_then(bandwidth)) {
        distance = distance * drams / own;
    }
    u64::from(i32::try_from(distance).unwrap_or(i32::MAX).unsigned_abs()) / CHUNK
}

/// Nodes with memory by tier, the fastest first. On 6.1 all nodes that boot with the machine are of
/// one tier.
fn tiers(machine: &Machine) -> BTreeMap<u8, NodeSet> {
    let is_flat = machine.version() == KernelVersion::V6_1;
    let mut tiers: BTreeMap<u8, NodeSet> = BTreeMap::new();
    let topology = machine.topology();
    for node in topology.nodes().iter().filter(|node| node.memory > machine::Bytes::ZERO) {
        let tier = node.tier.filter(|_| !is_flat).unwrap_or(0);
        tiers.entry(tier).or_insert(NodeSet::EMPTY).insert(node.id);
    }
    tiers
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use machine::Topology;
    use model::Options;

    use super::super::tree;
    use super::super::tree::Entry;
    use super::*;

    #[test]
    fn a_node_that_is_slower_beyond_all_bounds_has_a_tier_all_the_same() {
        let text = r#"
            name = "far"
            [[node]]
            cpus = "0"
            memory = "1GiB"
            latency_ns = 1
            bandwidth = "16000TiB/s"
            [[node]]
            memory = "1GiB"
            tier = 1
            latency_ns = 4294967295
            bandwidth = "1MiB/s"
        "#;
        let topology = Topology::from_toml(text, "far.toml").unwrap();
        for version in KernelVersion::ALL {
            let machine = Machine::boot(topology.clone(), version, Options::default());
            let tree = tree(&machine);
            let nodes_of_tier = |tier: u64| {
                let path = format!("{TIERS}/memory_tier{tier}/nodelist");
                tree.get(Path::new(&path)).cloned()
            };
            let nodes = |list: &str| Some(Entry::Text(0o444, format!("{list}\n")));
            if version == KernelVersion::V6_1 {
                assert_eq!(nodes_of_tier(4), nodes("0-1"));
            } else {
                assert_eq!(nodes_of_tier(4), nodes("0"));
                assert_eq!(nodes_of_tier(16_777_215), nodes("1"));
            }
        }
    }
}
