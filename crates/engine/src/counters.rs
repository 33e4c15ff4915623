//! The counters of page placement and migration: of the machine and of each node, at one moment, and
//! what two moments have between them.
//!
//! Called by `pagetide stat`. It reads `/proc/vmstat`, `/proc/zoneinfo`, and `numastat` and `vmstat`
//! of each node; it changes nothing.
//!
//! - Which counters there are is the kernel's affair: they are chosen by the beginnings of their
//!   names, so that one that a new kernel adds is there, and one that a kernel lacks is absent. Absent
//!   is never 0.
//! - A node may come or go between two readings. One without an earlier reading has amounts and no
//!   differences, and so has a counter that went back (a node that came again, `vm.numa_stat`
//!   written).
//! - The files are read one after the other: sums of nodes may differ a little from the machine's.

use std::collections::BTreeMap;

use linux::proc::zoneinfo::{self, Zone};
use linux::proc::{sysctl, vmstat};
use linux::sysfs::node;
use linux::{ReadError, Root};
use machine::{Bytes, NodeId};
use serde::Serialize;

/// Events by the kernel's name.
pub type Counters = BTreeMap<String, u64>;

/// How the names of the counters begin that are about where pages are placed and moved.
const ABOUT_PLACEMENT: [&str; 6] =
    ["numa_", "pgmigrate_", "thp_migration_", "pgpromote_", "pgdemote_", "pgalloc_"];

/// Allocations by the node that was wanted: `numastat`, and the same of the machine in vmstat.
pub const ALLOCATIONS: [&str; 6] =
    ["numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other"];

/// What `numastat` calls otherwise than vmstat. vmstat's names are used for both.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("interleave_hit", "numa_interleave"),
    ("local_node", "numa_local"),
    ("other_node", "numa_other"),
];

/// Memory of a node, or of all: free, and the watermarks of its zones summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Free memory.
    pub free_bytes: Bytes,
    /// Below it only the kernel itself may allocate.
    pub min_bytes: Bytes,
    /// Below it kswapd wakes up, and demotes where there is a lower tier.
    pub low_bytes: Bytes,
    /// Above it kswapd goes to sleep.
    pub high_bytes: Bytes,
    /// Memory that the allocator was given.
    pub managed_bytes: Bytes,
}

impl Amounts {
    fn of<'a>(zones: impl Iterator<Item = &'a Zone>) -> Self {
        zones.fold(Self::default(), |sum, zone| Self {
            free_bytes: sum.free_bytes + Bytes::from_pages(zone.free),
            min_bytes: sum.min_bytes + Bytes::from_pages(zone.min),
            low_bytes: sum.low_bytes + Bytes::from_pages(zone.low),
            high_bytes: sum.high_bytes + Bytes::from_pages(zone.high),
            managed_bytes: sum.managed_bytes + Bytes::from_pages(zone.managed),
        })
    }

    /// Whether kswapd has been woken, or is about to be.
    pub fn is_low(&self) -> bool {
        self.free_bytes < self.low_bytes
    }
}

/// The machine, or one node: what it counted, and what it has now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Events, by the kernel's name in vmstat.
    pub counters: Counters,
    /// Memory, as it is at the later reading.
    #[serde(flatten)]
    pub amounts: Amounts,
}

impl Line {
    /// A counter, if this kernel has it, here.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counters.get(name).copied()
    }

    /// The sum of all counters whose names begin so; `None` when there is none.
    pub fn sum(&self, prefix: &str) -> Option<u64> {
        let mut found =
            self.counters.iter().filter(|(name, _)| name.starts_with(prefix)).peekable();
        found.peek()?;
        Some(found.fold(0, |sum, (_, count)| sum.saturating_add(*count)))
    }

    /// What has been counted since `before`.
    fn since(&self, before: &Self) -> Self {
        let change = |(name, &now): (&String, &u64)| {
            let change = now.checked_sub(before.get(name)?)?;
            Some((name.clone(), change))
        };
        Self { counters: self.counters.iter().filter_map(change).collect(), amounts: self.amounts }
    }
}

/// All counters: since boot, or of the time between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The whole machine. Some counters the kernel keeps for it alone.
    pub machine: Line,
    /// Each node that is there.
    pub nodes: BTreeMap<NodeId, Line>,
}

impl Reading {
    /// Reads the counters as they are now: since boot.
    ///
    /// # Errors
    ///
    /// When `/proc/vmstat` or `/proc/zoneinfo` cannot be read.
    pub fn take(root: &Root) -> Result<Self, ReadError> {
        let counts_allocations = sysctl::numa_stat(root)?;
        let zones = zoneinfo::read(root)?;
        let machine = about_placement(vmstat::read(root)?, counts_allocations);
        let mut nodes = BTreeMap::new();
        for id in nodes_of(root, &zones)? {
            // A node that went offline since the list was read is one that is not there.
            let Some(counters) = node_counters(root, id, counts_allocations)? else { continue };
            let amounts = Amounts::of(zones.iter().filter(|zone| zone.node == id));
            nodes.insert(id, Line { counters, amounts });
        }
        let amounts = Amounts::of(zones.iter());
        Ok(Self { machine: Line { counters: machine, amounts }, nodes })
    }

    /// What has been counted since `before`, with the amounts of now.
    pub fn since(&self, before: &Self) -> Self {
        let absent = Line::default();
        let change =
            |(id, now): (&NodeId, &Line)| (*id, now.since(before.nodes.get(id).unwrap_or(&absent)));
        Self {
            machine: self.machine.since(&before.machine),
            nodes: self.nodes.iter().map(change).collect(),
        }
    }
}

/// The nodes that are online; those of the zones where the kernel has no NUMA.
fn nodes_of(root: &Root, zones: &[Zone]) -> Result<Vec<NodeId>, ReadError> {
    match node::nodes(root) {
        Ok(nodes) => Ok(nodes.online.iter().collect()),
        Err(ReadError::NotFound { .. }) => {
            let mut nodes: Vec<NodeId> = zones.iter().map(|zone| zone.node).collect();
            nodes.dedup();
            Ok(nodes)
        }
        Err(error) => Err(error),
    }
}

/// Counters of one node; `None` for one that is not there.
fn node_counters(
    root: &Root,
    id: NodeId,
    counts_allocations: bool,
) -> Result<Option<Counters>, ReadError> {
    let allocations = match node::allocations(root, id) {
        Err(ReadError::NotFound { .. }) => return without_folder(root),
        result => result?,
    };
    let mut counters = match node::vmstat(root, id) {
        Err(ReadError::NotFound { .. }) => return Ok(None),
        result => result?,
    };
    counters.extend(allocations.into_iter().map(|(name, count)| {
        let vmstats = OTHER_NAMES.iter().find(|(numastats, _)| *numastats == name);
        (vmstats.map_or(name, |(_, vmstats)| (*vmstats).to_owned()), count)
    }));
    Ok(Some(about_placement(counters, counts_allocations)))
}

/// A kernel without NUMA has no folder for its one node, which is there all the same.
fn without_folder(root: &Root) -> Result<Option<Counters>, ReadError> {
    match node::nodes(root) {
        Ok(_) => Ok(None),
        Err(ReadError::NotFound { .. }) => Ok(Some(Counters::new())),
        Err(error) => Err(error),
    }
}

fn about_placement(mut counters: Counters, counts_allocations: bool) -> Counters {
    counters.retain(|name, _| {
        ABOUT_PLACEMENT.iter().any(|prefix| name.starts_with(prefix))
            && (counts_allocations || !ALLOCATIONS.contains(&name.as_str()))
    });
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::path::Path;

    fn node(raw: u16) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A machine whose counters are all `count`, with these nodes.
    fn machine(folder: &Path, count: u64, nodes: &str) {
        write(folder, "proc/sys/vm/numa_stat", "1\n");
        let vmstat = format!("nr_free_pages 7\npgmigrate_success {count}\nnuma_hit {count}\n");
        write(folder, "proc/vmstat", &vmstat);
        write(
            folder,
            "proc/zoneinfo",
            "Node 0, zone Normal\n  pages free 100\n min 10\n low 20\n high 30\n spanned 500\n \
             present 500\n managed 400\n protection: (0)\n start_pfn: 0\n\
             Node 1, zone Normal\n  pages free 5\n min 10\n low 20\n high 30\n spanned 500\n \
             present 500\n managed 400\n protection: (0)\n start_pfn: 500\n",
        );
        let sys = "sys/devices/system/node";
        for name in ["possible", "online", "has_memory", "has_cpu"] {
            write(folder, &format!("{sys}/{name}"), nodes);
        }
        for number in ["0", "1"] {
            let folder_of = folder.join(sys).join(format!("node{number}"));
            if nodes.contains(number) {
                let numastat = format!("numa_hit {count}\nother_node {count}\n");
                write(&folder_of, "numastat", &numastat);
                write(&folder_of, "vmstat", &format!("nr_dirty 1\npgpromote_success {count}\n"));
            } else {
                drop(fs::remove_dir_all(folder_of));
            }
        }
    }

    #[test]
    fn counters_are_chosen_by_name_and_numastat_takes_the_names_of_vmstat() {
        let folder = tempfile::tempdir().unwrap();
        machine(folder.path(), 7, "0,1\n");
        let reading = Reading::take(&Root::new(folder.path())).unwrap();
        assert_eq!(reading.machine.get("pgmigrate_success"), Some(7));
        assert_eq!(reading.machine.get("nr_free_pages"), None);
        assert_eq!(reading.machine.amounts.free_bytes, Bytes::from_pages(105));
        let line = &reading.nodes[&node(1)];
        let names: Vec<_> = line.counters.keys().map(String::as_str).collect();
        assert_eq!(names, ["numa_hit", "numa_other", "pgpromote_success"]);
        assert!(line.amounts.is_low() && !reading.nodes[&node(0)].amounts.is_low());
        assert_eq!(line.get("pgmigrate_success"), None, "counted for the machine alone");
    }

    #[test]
    fn a_node_that_comes_has_amounts_and_no_differences_and_one_that_goes_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        machine(folder.path(), 7, "0\n");
        let before = Reading::take(&root).unwrap();
        machine(folder.path(), 10, "0,1\n");
        let now = Reading::take(&root).unwrap();
        let change = now.since(&before);
        assert_eq!(change.nodes[&node(0)].get("numa_hit"), Some(3));
        assert_eq!(change.nodes[&node(1)].get("numa_hit"), None);
        assert_eq!(change.nodes[&node(1)].amounts.free_bytes, Bytes::from_pages(5));
        assert_eq!(before.since(&now).nodes.keys().copied().collect::<Vec<_>>(), [node(0)]);
    }

    #[test]
    fn a_node_that_goes_while_it_is_read_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        machine(folder.path(), 7, "0,1\n");
        fs::remove_dir_all(folder.path().join("sys/devices/system/node/node1")).unwrap();
        let reading = Reading::take(&Root::new(folder.path())).unwrap();
        assert_eq!(reading.nodes.keys().copied().collect::<Vec<_>>(), [node(0)]);
    }

    #[test]
    fn a_counter_that_went_back_has_no_difference() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        machine(folder.path(), 7, "0,1\n");
        let before = Reading::take(&root).unwrap();
        machine(folder.path(), 6, "0,1\n");
        assert_eq!(Reading::take(&root).unwrap().since(&before).machine.get("numa_hit"), None);
    }

    #[test]
    fn allocations_that_the_kernel_was_told_not_to_count_are_absent() {
        let folder = tempfile::tempdir().unwrap();
        machine(folder.path(), 7, "0,1\n");
        write(folder.path(), "proc/sys/vm/numa_stat", "0\n");
        let reading = Reading::take(&Root::new(folder.path())).unwrap();
        assert_eq!(reading.machine.get("numa_hit"), None);
        assert_eq!(reading.nodes[&node(0)].get("numa_other"), None);
        assert_eq!(reading.machine.get("pgmigrate_success"), Some(7));
    }

    #[test]
    fn a_kernel_without_numa_has_one_node_without_counters() {
        let folder = tempfile::tempdir().unwrap();
        machine(folder.path(), 7, "0,1\n");
        fs::remove_dir_all(folder.path().join("sys")).unwrap();
        let reading = Reading::take(&Root::new(folder.path())).unwrap();
        assert!(reading.nodes[&node(0)].counters.is_empty());
        assert_eq!(reading.machine.get("pgmigrate_success"), Some(7));
    }

    #[test]
    fn a_sum_of_what_the_kernel_lacks_is_absent_and_not_zero() {
        let counters = Counters::from([("pgalloc_dma".into(), 1), ("pgalloc_normal".into(), 2)]);
        let line = Line { counters, ..Line::default() };
        assert_eq!((line.sum("pgalloc_"), line.sum("pgdemote_")), (Some(3), None));
    }

    proptest! {
        #[test]
        fn two_differences_add_up_to_the_one_over_both(
            mut counts in prop::collection::vec(any::<u64>(), 3)
        ) {
            counts.sort_unstable();
            let line = |count| Line {
                counters: Counters::from([("numa_hit".to_owned(), count)]),
                ..Line::default()
            };
            let [first, second, third] = [line(counts[0]), line(counts[1]), line(counts[2])];
            let sum = second.since(&first).get("numa_hit").unwrap()
                + third.since(&second).get("numa_hit").unwrap();
            prop_assert_eq!(third.since(&first).get("numa_hit"), Some(sum));
        }
    }
}
