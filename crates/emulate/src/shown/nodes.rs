//! `/sys/devices/system/node`, and its mirror in `/sys/bus/node/devices`.
//!
//! What a guest with the same machine shows, but for memory blocks (`nodeN/memoryM`): the frames of
//! a program are this computer's, and on no block of the machine.
//!
//! Source: kernel, drivers/base/node.c; Documentation/ABI/stable/sysfs-devices-node.

use machine::{CpuSet, Node, NodeSet, Topology};
use model::Machine;

use super::live::Live;
use super::mask::cpu_mask;
use super::tree::{Entry, Tree};

const FOLDER: &str = "/sys/devices/system/node";
/// Sizes of hugetlb pages, in kB.
const HUGE_SIZES: [u64; 2] = [1 << 20, 2 << 10];

/// Adds all of it.
pub(crate) fn add(tree: &mut Tree, machine: &Machine) {
    let topology = machine.topology();
    let all = topology.node_set();
    let with_cpus: NodeSet = topology.nodes_of(&topology.cpus());
    for (name, set) in [
        ("online", all),
        ("possible", all),
        ("has_cpu", with_cpus),
        ("has_memory", topology.memory_nodes()),
        ("has_normal_memory", topology.memory_nodes()),
        ("has_generic_initiator", NodeSet::EMPTY),
    ] {
        tree.line(format!("{FOLDER}/{name}"), set);
    }
    tree.device(FOLDER, None);
    for (node, distances) in topology.nodes().iter().zip(topology.distances()) {
        let folder = format!("{FOLDER}/node{}", node.id);
        tree.device(&folder, Some("node"));
        let distances: Vec<String> = distances.iter().map(ToString::to_string).collect();
        tree.line(format!("{folder}/distance"), distances.join(" "));
        add_cpus(tree, &folder, node, &topology.cpus());
        for (name, live) in [
            ("meminfo", Live::NodeMeminfo(node.id)),
            ("numastat", Live::NodeNumastat(node.id)),
            ("vmstat", Live::NodeVmstat(node.id)),
        ] {
            tree.add(format!("{folder}/{name}"), Entry::Live(live));
        }
        add_pools(tree, &folder, machine, node);
        add_access(tree, &folder, topology, node);
        for name in ["delayed", "failed", "ignored", "recovered", "total"] {
            tree.line(format!("{folder}/memory_failure/{name}"), 0);
        }
        tree.add(format!("{folder}/compact"), Entry::Text(0o200, String::new()));
        tree.add(format!("{folder}/x86"), Entry::Folder);
        let target = format!("../../../devices/system/node/node{}", node.id);
        tree.link(format!("/sys/bus/node/devices/node{}", node.id), target);
    }
}

fn add_cpus(tree: &mut Tree, folder: &str, node: &Node, all: &CpuSet) {
    tree.line(format!("{folder}/cpulist"), &node.cpus);
    tree.line(format!("{folder}/cpumap"), cpu_mask(&node.cpus, all));
    for cpu in node.cpus.iter() {
        tree.link(format!("{folder}/cpu{cpu}"), format!("../../cpu/cpu{cpu}"));
    }
}

fn add_pools(tree: &mut Tree, folder: &str, machine: &Machine, node: &Node) {
    for size in HUGE_SIZES {
        let order = u8::try_from((size / 4).ilog2()).expect("a page of 1 GiB is of order 18");
        let (total, free) = machine.hugetlb_pool(node.id, order);
        let pool = format!("{folder}/hugepages/hugepages-{size}kB");
        tree.line(format!("{pool}/nr_hugepages"), total);
        tree.line(format!("{pool}/free_hugepages"), free);
        tree.line(format!("{pool}/surplus_hugepages"), 0);
    }
}

/// `accessC`: what the firmware's table of latencies (HMAT) says of memory and its best initiators.
/// Only with latencies for every node with memory, as the lab's guests have it.
fn add_access(tree: &mut Tree, folder: &str, topology: &Topology, node: &Node) {
    let with_memory = topology.memory_nodes();
    let is_known = |node: &Node| !with_memory.contains(node.id) || node.latency_ns.is_some();
    let (Some(latency), true) = (node.latency_ns, topology.nodes().iter().all(is_known)) else {
        return;
    };
    for class in 0..2 {
        let access = format!("{folder}/access{class}");
        let initiator = initiator(topology, node);
        if let Some(initiator) = initiator {
            let link = format!("{access}/initiators/node{}", initiator.id);
            tree.link(link, format!("../../../node{}", initiator.id));
        }
        for way in ["read", "write"] {
            tree.line(format!("{access}/initiators/{way}_latency"), latency);
            if let Some(bandwidth) = node.bandwidth_per_s {
                let mib = bandwidth.get() >> 20;
                tree.line(format!("{access}/initiators/{way}_bandwidth"), mib);
            }
        }
        tree.add(format!("{access}/targets"), Entry::Folder);
        let targets = topology.nodes().iter().filter(|target| {
            with_memory.contains(target.id)
                && self::initiator(topology, target).is_some_and(|from| from.id == node.id)
        });
        for target in targets {
            let link = format!("{access}/targets/node{}", target.id);
            tree.link(link, format!("../../../node{}", target.id));
        }
        tree.add(format!("{access}/power"), Entry::Folder);
        tree.add(format!("{access}/uevent"), Entry::Text(0o644, String::new()));
    }
}

/// The node whose CPUs reach this one's memory best: itself, or the nearest.
fn initiator<'a>(topology: &'a Topology, node: &'a Node) -> Option<&'a Node> {
    let with_cpus = topology.nodes().iter().filter(|other| !other.cpus.is_empty());
    with_cpus.min_by_key(|other| topology.distance(node.id, other.id))
}
