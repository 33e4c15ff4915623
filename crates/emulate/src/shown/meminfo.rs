//! `/proc/meminfo` and `/sys/devices/system/node/nodeN/meminfo`.
//!
//! What is in memory is what the model has placed: the memory of the programs, and no kernel. Swap
//! and limits are this computer's.
//!
//! Source: proc_meminfo(5); kernel 6.12, fs/proc/meminfo.c and drivers/base/node.c.

use machine::NodeId;
use model::{Machine, PMD_ORDER, Usage};

const KIB: u64 = 4;
/// Letters of a name and the number behind it, without the colon.
const LABEL_AND_VALUE: usize = 23;

/// Lines of a node's file, in order; those without a unit are counts.
const NODE_LINES: &[&str] = &[
    "MemTotal",
    "MemFree",
    "MemUsed",
    "SwapCached",
    "Active",
    "Inactive",
    "Active(anon)",
    "Inactive(anon)",
    "Active(file)",
    "Inactive(file)",
    "Unevictable",
    "Mlocked",
    "Dirty",
    "Writeback",
    "FilePages",
    "Mapped",
    "AnonPages",
    "Shmem",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "NFS_Unstable",
    "Bounce",
    "WritebackTmp",
    "KReclaimable",
    "Slab",
    "SReclaimable",
    "SUnreclaim",
    "AnonHugePages",
    "ShmemHugePages",
    "ShmemPmdMapped",
    "FileHugePages",
    "FilePmdMapped",
    "Unaccepted",
];

/// Lines of `/proc/meminfo` that are not about what is in the machine's memory.
const HOST_LINES: &[&str] = &[
    "SwapTotal",
    "SwapFree",
    "Zswap",
    "Zswapped",
    "CommitLimit",
    "Committed_AS",
    "VmallocTotal",
    "VmallocUsed",
    "VmallocChunk",
    "Percpu",
    "HardwareCorrupted",
    "Hugepagesize",
];

/// A value in kB; 0 for what the model knows nothing of.
fn value(name: &str, usage: &Usage) -> u64 {
    let pages = match name {
        "MemTotal" => usage.total,
        "MemFree" | "MemAvailable" => usage.free,
        "MemUsed" => usage.total - usage.free,
        "Active" => usage.active_anon + usage.active_file,
        "Inactive" => usage.anon - usage.active_anon + usage.file - usage.active_file,
        "Active(anon)" => usage.active_anon,
        "Inactive(anon)" => usage.anon - usage.active_anon,
        "Active(file)" => usage.active_file,
        "Inactive(file)" => usage.file - usage.active_file,
        "Unevictable" | "Mlocked" => usage.unevictable,
        "FilePages" | "Cached" | "Mapped" => usage.file,
        "AnonPages" => usage.anon,
        "AnonHugePages" => usage.anon_huge,
        _ => 0,
    };
    pages * KIB
}

/// The file of a node.
pub(crate) fn of_node(machine: &Machine, node: NodeId) -> String {
    let usage = machine.usage(node);
    let mut text = String::new();
    for name in NODE_LINES {
        let value = value(name, &usage);
        let width = LABEL_AND_VALUE - name.len();
        text.push_str(&format!("Node {node} {name}:{value:>width$} kB\n"));
    }
    let (total, free) = machine.hugetlb_pool(node, PMD_ORDER);
    for (name, count) in
        [("HugePages_Total", total), ("HugePages_Free", free), ("HugePages_Surp", 0)]
    {
        let label = format!("{name}:");
        text.push_str(&format!("Node {node} {label:<16}{count:>6}\n"));
    }
    text
}

/// `/proc/meminfo`; `host` is this computer's, which says what lines there are.
pub(crate) fn of_machine(machine: &Machine, host: &str) -> String {
    let usage = total_usage(machine);
    let nodes = machine.topology().nodes();
    let pools = nodes.iter().map(|node| machine.hugetlb_pool(node.id, PMD_ORDER));
    let (total, free) = pools.fold((0, 0), |sum, pool| (sum.0 + pool.0, sum.1 + pool.1));
    let mut text = String::new();
    for line in host.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let value = match name {
            "HugePages_Total" => total,
            "HugePages_Free" => free,
            "Hugetlb" => total * 2048,
            _ if HOST_LINES.contains(&name) => {
                text.push_str(&format!("{line}\n"));
                continue;
            }
            _ => value(name, &usage),
        };
        let unit = if rest.ends_with("kB") { " kB" } else { "" };
        let width = rest.trim_end_matches(" kB").len();
        text.push_str(&format!("{name}:{value:>width$}{unit}\n"));
    }
    text
}

/// All nodes together.
pub(crate) fn total_usage(machine: &Machine) -> Usage {
    let mut sum = Usage::default();
    for node in machine.topology().nodes() {
        let usage = machine.usage(node.id);
        sum.total += usage.total;
        sum.free += usage.free;
        sum.anon += usage.anon;
        sum.anon_huge += usage.anon_huge;
        sum.file += usage.file;
        sum.active_anon += usage.active_anon;
        sum.active_file += usage.active_file;
        sum.unevictable += usage.unevictable;
    }
    sum
}
