//! `/sys/devices/system/cpu`, and its mirror in `/sys/bus/cpu/devices`.
//!
//! One socket for each node that has CPUs, a core for each CPU, and the caches that the lab's guests
//! have: a machine.toml says nothing of them. What is about this computer's CPU model (`modalias`,
//! `vulnerabilities`) is this computer's. Frequencies and idle states are not shown.
//!
//! Source: kernel, drivers/base/cpu.c, topology.c and cacheinfo.c;
//! Documentation/ABI/testing/sysfs-devices-system-cpu.

use std::fs;

use machine::{CpuId, CpuSet, Node, Topology};

use super::mask::cpu_mask;
use super::tree::{Entry, Tree};

const FOLDER: &str = "/sys/devices/system/cpu";
/// `NR_CPUS` of Debian amd64, less one.
const KERNEL_MAX: u32 = 8191;

/// Where a CPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cpu: CpuId,
    pub(crate) node: machine::NodeId,
    /// Number of its socket.
    pub(crate) package: usize,
    /// Its number in the socket.
    pub(crate) core: usize,
    /// The CPUs of the socket.
    pub(crate) siblings: CpuSet,
}

/// All CPUs in ascending order.
pub(crate) fn places(topology: &Topology) -> Vec<Place> {
    let sockets = topology.nodes().iter().filter(|node| !node.cpus.is_empty());
    let mut places: Vec<Place> = sockets
        .enumerate()
        .flat_map(|(package, node)| socket(package, node).collect::<Vec<_>>())
        .collect();
    places.sort_by_key(|place| place.cpu);
    places
}

fn socket(package: usize, node: &Node) -> impl Iterator<Item = Place> + '_ {
    node.cpus.iter().enumerate().map(move |(core, cpu)| Place {
        cpu,
        node: node.id,
        package,
        core,
        siblings: node.cpus.clone(),
    })
}

struct Cache {
    level: u8,
    kind: &'static str,
    kib: u32,
    sets: u32,
    ways: u32,
    /// By all CPUs of the socket.
    is_shared: bool,
}

const CACHES: [Cache; 4] = [
    Cache { level: 1, kind: "Data", kib: 64, sets: 512, ways: 2, is_shared: false },
    Cache { level: 1, kind: "Instruction", kib: 64, sets: 512, ways: 2, is_shared: false },
    Cache { level: 2, kind: "Unified", kib: 512, sets: 512, ways: 16, is_shared: false },
    Cache { level: 3, kind: "Unified", kib: 16384, sets: 16384, ways: 16, is_shared: true },
];

/// Adds all of it.
pub(crate) fn add(tree: &mut Tree, topology: &Topology) {
    let all = topology.cpus();
    for name in ["online", "possible", "present", "enabled"] {
        tree.line(format!("{FOLDER}/{name}"), &all);
    }
    for (name, text) in [("offline", ""), ("isolated", ""), ("nohz_full", "(null)")] {
        tree.line(format!("{FOLDER}/{name}"), text);
    }
    tree.line(format!("{FOLDER}/kernel_max"), KERNEL_MAX);
    tree.line(format!("{FOLDER}/smt/active"), 0);
    tree.line(format!("{FOLDER}/smt/control"), "notsupported");
    tree.device(FOLDER, None);
    copy_file(tree, &format!("{FOLDER}/modalias"));
    copy_folder(tree, &format!("{FOLDER}/vulnerabilities"));
    for place in places(topology) {
        let folder = format!("{FOLDER}/cpu{}", place.cpu);
        tree.device(&folder, Some("cpu"));
        let node = place.node;
        tree.link(format!("{folder}/node{node}"), format!("../../node/node{node}"));
        if place.cpu.get() > 0 {
            tree.line(format!("{folder}/online"), 1);
        }
        add_topology(tree, &folder, &place, &all);
        add_caches(tree, &folder, &place, &all);
        let target = format!("../../../devices/system/cpu/cpu{}", place.cpu);
        tree.link(format!("/sys/bus/cpu/devices/cpu{}", place.cpu), target);
    }
}

fn add_topology(tree: &mut Tree, folder: &str, place: &Place, all: &CpuSet) {
    let folder = format!("{folder}/topology");
    let own: CpuSet = std::iter::once(place.cpu).collect();
    for (map, list, cpus) in [
        ("thread_siblings", "thread_siblings_list", &own),
        ("core_cpus", "core_cpus_list", &own),
        ("cluster_cpus", "cluster_cpus_list", &own),
        ("core_siblings", "core_siblings_list", &place.siblings),
        ("die_cpus", "die_cpus_list", &place.siblings),
        ("package_cpus", "package_cpus_list", &place.siblings),
    ] {
        tree.line(format!("{folder}/{map}"), cpu_mask(cpus, all));
        tree.line(format!("{folder}/{list}"), cpus);
    }
    tree.line(format!("{folder}/core_id"), place.core);
    tree.line(format!("{folder}/cluster_id"), 65535);
    tree.line(format!("{folder}/die_id"), place.package);
    tree.line(format!("{folder}/physical_package_id"), place.package);
}

fn add_caches(tree: &mut Tree, folder: &str, place: &Place, all: &CpuSet) {
    let own: CpuSet = std::iter::once(place.cpu).collect();
    for (index, cache) in CACHES.iter().enumerate() {
        let folder = format!("{folder}/cache/index{index}");
        let cpus = if cache.is_shared { &place.siblings } else { &own };
        let first = cpus.iter().next().unwrap_or(place.cpu);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            tree.line(format!("{folder}/{name}"), value);
        };
        line("id", &first);
        line("level", &cache.level);
        line("type", &cache.kind);
        line("size", &format!("{}K", cache.kib));
        line("number_of_sets", &cache.sets);
        line("ways_of_associativity", &cache.ways);
        line("coherency_line_size", &64);
        line("physical_line_partition", &1);
        line("shared_cpu_map", &cpu_mask(cpus, all));
        line("shared_cpu_list", cpus);
        tree.add(format!("{folder}/uevent"), Entry::Text(0o644, String::new()));
    }
    tree.add(format!("{folder}/cache/uevent"), Entry::Text(0o644, String::new()));
}

/// A file of this computer, if it has one.
fn copy_file(tree: &mut Tree, path: &str) {
    if let Ok(text) = fs::read_to_string(path) {
        tree.add(path, Entry::Text(0o444, text));
    }
}

fn copy_folder(tree: &mut Tree, path: &str) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        copy_file(tree, &entry.path().to_string_lossy());
    }
}
