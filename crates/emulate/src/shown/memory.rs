//! What else of sysfs is about nodes: demotion, weights of weighted interleave, memory tiers.
//!
//! The files that a real machine lets its administrator write are shown without the right to: the
//! emulated machine is as it was described.
//!
//! Source: kernel, mm/memory-tiers.c and mm/mempolicy.c.

use std::collections::BTreeMap;

use machine::NodeSet;
use model::{KernelVersion, Machine};

use super::tree::Tree;

const TIERS: &str = "/sys/devices/virtual/memory_tiering";
/// The kernel's number of the tier of ordinary memory: half of an abstract distance of 9, in chunks.
const FIRST_TIER: u32 = 4;
/// Slower tiers are numbered by latency and bandwidth; only the order matters to anybody.
const TIER_STEP: u32 = 18;

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
    for (tier, nodes) in tiers(machine) {
        let name = format!("memory_tier{}", FIRST_TIER + TIER_STEP * u32::from(tier));
        let folder = format!("{TIERS}/{name}");
        tree.line(format!("{folder}/nodelist"), nodes);
        tree.device(&folder, Some("memory_tiering"));
        let target = format!("../../../devices/virtual/memory_tiering/{name}");
        tree.link(format!("/sys/bus/memory_tiering/devices/{name}"), target);
    }
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
