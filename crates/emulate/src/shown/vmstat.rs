//! `/proc/vmstat`, and a node's `vmstat` and `numastat`.
//!
//! Counters of allocation, migration and balancing, and what is in memory, are the model's. Of the
//! rest (page faults, reclaim, the disk) `/proc/vmstat` has this computer's.
//!
//! Source: kernel 6.12, mm/vmstat.c; drivers/base/node.c.

use machine::NodeId;
use model::{Counter, Machine, NumaStats, PMD_PAGES, Usage};

use super::meminfo::total_usage;
use super::names;

/// `nodeN/numastat`.
pub(crate) fn numastat(machine: &Machine, node: NodeId) -> String {
    let stats = machine.numa_stats(node).unwrap_or_default();
    format!(
        "numa_hit {}\nnuma_miss {}\nnuma_foreign {}\ninterleave_hit {}\nlocal_node {}\n\
         other_node {}\n",
        stats.hit, stats.miss, stats.foreign, stats.interleave, stats.local, stats.other
    )
}

/// `nodeN/vmstat`.
pub(crate) fn of_node(machine: &Machine, node: NodeId) -> String {
    let usage = machine.usage(node);
    let stats = machine.numa_stats(node).unwrap_or_default();
    let all = names::ZONE.iter().chain(names::NUMA).chain(names::NODE);
    all.map(|name| format!("{name} {}\n", value(name, &usage, &stats).unwrap_or(0))).collect()
}

/// `/proc/vmstat`; `host` is this computer's.
pub(crate) fn of_machine(machine: &Machine, host: &str) -> String {
    let usage = total_usage(machine);
    let stats = total_stats(machine);
    let hosts = |name: &str| {
        let line = host.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    };
    let own = |name: &str| {
        let counter = Counter::ALL.iter().find(|counter| counter.name() == name);
        let counted = counter.map(|&counter| machine.counters().get(counter));
        counted.or_else(|| value(name, &usage, &stats))
    };
    let resident = names::ZONE.iter().chain(names::NUMA).chain(names::NODE);
    let mut text: String =
        resident.map(|name| format!("{name} {}\n", own(name).unwrap_or(0))).collect();
    for name in names::EVENTS {
        let value = own(name).or_else(|| hosts(name)).unwrap_or(0);
        text.push_str(&format!("{name} {value}\n"));
    }
    text
}

/// What the model knows, in pages or allocations.
pub(crate) fn value(name: &str, usage: &Usage, stats: &NumaStats) -> Option<u64> {
    Some(match name {
        "nr_free_pages" => usage.free,
        "nr_anon_pages" => usage.anon,
        "nr_active_anon" | "nr_zone_active_anon" => usage.active_anon,
        "nr_inactive_anon" | "nr_zone_inactive_anon" => usage.anon - usage.active_anon,
        "nr_active_file" | "nr_zone_active_file" => usage.active_file,
        "nr_inactive_file" | "nr_zone_inactive_file" => usage.file - usage.active_file,
        "nr_unevictable" | "nr_zone_unevictable" | "nr_mlock" => usage.unevictable,
        "nr_file_pages" | "nr_mapped" => usage.file,
        "nr_anon_transparent_hugepages" => usage.anon_huge / u64::from(PMD_PAGES),
        "numa_hit" => stats.hit,
        "numa_miss" => stats.miss,
        "numa_foreign" => stats.foreign,
        "numa_interleave" => stats.interleave,
        "numa_local" => stats.local,
        "numa_other" => stats.other,
        _ => return None,
    })
}

fn total_stats(machine: &Machine) -> NumaStats {
    let mut sum = NumaStats::default();
    for node in machine.topology().nodes() {
        let stats = machine.numa_stats(node.id).unwrap_or_default();
        sum.hit += stats.hit;
        sum.miss += stats.miss;
        sum.foreign += stats.foreign;
        sum.interleave += stats.interleave;
        sum.local += stats.local;
        sum.other += stats.other;
    }
    sum
}
