//! Concerns: what stands in the way of a plan, what will stay behind, and what will not last.
//!
//! Pure: the circumstances come in, sentences go out. Called by the planner.

use std::collections::BTreeMap;

use linux::{MemPolicy, PolicyMode};
use machine::{AddrRange, Bytes, NodeId, NodeSet};
use serde::{Deserialize, Serialize};

/// How much a concern weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Worth knowing.
    Note,
    /// Part of the move will not happen, or will not last.
    Warning,
    /// The move would fail: it is refused before the first page.
    Refusal,
}

/// Something that the user should know before moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// How much it weighs.
    pub weight: Weight,
    /// What is the matter, in one sentence.
    pub text: String,
    /// Commands or options that mend it, one a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
}

impl Concern {
    pub(crate) fn new(weight: Weight, text: impl Into<String>) -> Self {
        Self { weight, text: text.into(), fix: Vec::new() }
    }

    pub(crate) fn fix(mut self, line: impl Into<String>) -> Self {
        self.fix.push(line.into());
        self
    }

    /// Whether it forbids to begin.
    pub fn is_refusal(&self) -> bool {
        self.weight == Weight::Refusal
    }
}

/// Memory of a node, as the allocator sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Free memory.
    pub free: Bytes,
    /// What an ordinary allocation must leave free: the `min` watermarks of its zones.
    pub reserve: Bytes,
    /// Page cache that the kernel could drop to make room.
    pub cache: Bytes,
    /// Free pages of the 2 MiB hugetlb pool.
    pub hugetlb_free: Bytes,
}

impl Room {
    /// What can be moved here without anything else having to go.
    pub fn available(&self) -> Bytes {
        self.free.saturating_sub(self.reserve)
    }
}

/// What the planner knows of the host and the target beyond the pages.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// Each node with memory.
    pub rooms: BTreeMap<NodeId, Room>,
    /// Nodes that the target's cpuset allows.
    pub allowed: NodeSet,
    /// Nodes on which its threads may run.
    pub cpu_nodes: NodeSet,
    /// The sysctl kernel.numa_balancing; `None` where the kernel has none.
    pub numa_balancing: Option<u32>,
    /// The cgroup of the target, for the lines that mend a cpuset.
    pub cgroup: Option<String>,
    /// Policies of its mappings that name nodes.
    pub policies: Vec<(AddrRange, String, MemPolicy)>,
    /// Pages that it has pinned and the kernel has accounted for (VmPin).
    pub pinned: Bytes,
    /// Who shares pages with it: what is shared, and the other pids.
    pub sharers: Vec<(String, u64, Vec<u32>)>,
}

/// What a plan would bring to each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Pages that come from the ordinary allocator.
    pub ordinary: Bytes,
    /// Pages that come from the hugetlb pool, or failing that from the allocator.
    pub hugetlb: Bytes,
}

/// The demands of a plan on the host.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// By destination, what arrives.
    pub arriving: BTreeMap<NodeId, Arrival>,
    /// By node, what leaves it. Sources are emptied before they are filled.
    pub leaving: BTreeMap<NodeId, Bytes>,
    /// Every node that was named as a destination.
    pub destinations: NodeSet,
    /// Base pages that stay since they are shared.
    pub shared_pages: u64,
    /// The target.
    pub pid: u32,
}

/// Every concern about a plan with these demands, the weightiest first.
pub fn concerns(demands: &Demands, circumstances: &Circumstances) -> Vec<Concern> {
    let mut concerns = Vec::new();
    concerns.extend(cpuset(demands, circumstances));
    concerns.extend(room(demands, circumstances));
    concerns.extend(sharing(demands, circumstances));
    concerns.extend(pins(circumstances));
    concerns.extend(policies(demands, circumstances));
    concerns.extend(balancing(demands, circumstances));
    concerns.sort_by_key(|concern| std::cmp::Reverse(concern.weight));
    concerns
}

fn cpuset(demands: &Demands, circumstances: &Circumstances) -> Option<Concern> {
    let outside = demands.destinations.difference(&circumstances.allowed);
    if outside.is_empty() || circumstances.allowed.is_empty() {
        return None;
    }
    let text = format!(
        "the cpuset of process {} allows memory of node {} only: the kernel answers EACCES for node {outside}, root or not",
        demands.pid, circumstances.allowed
    );
    let cgroup = circumstances.cgroup.as_deref().unwrap_or("/");
    let wider = circumstances.allowed.union(&outside);
    Some(
        Concern::new(Weight::Refusal, text).fix(format!(
            "echo {wider} > /sys/fs/cgroup{}/cpuset.mems",
            cgroup.trim_end_matches('/')
        )),
    )
}

fn room<'a>(
    demands: &'a Demands,
    circumstances: &'a Circumstances,
) -> impl Iterator<Item = Concern> + 'a {
    demands.arriving.iter().filter_map(|(node, arrival)| {
        let room = circumstances.rooms.get(node)?;
        // A hugetlb page comes from the pool first, and from the allocator when that is empty.
        let from_allocator = arrival.ordinary + arrival.hugetlb.saturating_sub(room.hugetlb_free);
        let leaving = demands.leaving.get(node).copied().unwrap_or_default();
        let available = room.available() + leaving;
        if from_allocator <= available {
            return None;
        }
        let text = format!(
            "node {node} has room for {available}, and {from_allocator} would come: the kernel would move pages until the node is full, then stop with ENOMEM",
        );
        let mut concern = Concern::new(Weight::Refusal, text);
        let fits_mib = with_air(available).get() >> 20;
        if fits_mib > 0 {
            concern = concern.fix(format!("--limit {fits_mib}MiB moves what fits"));
        }
        if room.cache > Bytes::ZERO {
            concern = concern.fix(format!(
                "{} of page cache there can be dropped (drop_caches), or moved away",
                room.cache
            ));
        }
        Some(concern)
    })
}

/// What to advise of the room that there is: free memory goes up and down meanwhile, and pages that a
/// CPU has put on its own list are free no longer for the check of the watermarks. One allocation takes
/// up to 2016 of them (kernel 6.7 and newer, mm/page_alloc.c, `nr_pcp_alloc`: 63 pages doubled five
/// times), so that a move can be refused memory while 8 MiB lie there.
fn with_air(available: Bytes) -> Bytes {
    const CPU_LIST: Bytes = Bytes::new(8 << 20);
    const MOST: Bytes = Bytes::new(64 << 20);
    let air = CPU_LIST + Bytes::new(available.get() / 8);
    available.saturating_sub(air.min(MOST))
}

/// One concern for each group of processes that shares pages with the target.
fn sharing(demands: &Demands, circumstances: &Circumstances) -> Vec<Concern> {
    let fix = "--include-shared moves them for everybody (needs CAP_SYS_NICE)";
    let mut groups: BTreeMap<&[u32], Vec<(&str, u64)>> = BTreeMap::new();
    for (name, pages, pids) in &circumstances.sharers {
        groups.entry(pids).or_default().push((name, *pages));
    }
    if groups.is_empty() && demands.shared_pages > 0 {
        let size = Bytes::from_pages(demands.shared_pages);
        let text = format!("{size} would stay: shared with other processes");
        return vec![Concern::new(Weight::Warning, text).fix(fix)];
    }
    let concern = |(pids, parts): (&[u32], Vec<(&str, u64)>)| {
        let size = Bytes::from_pages(parts.iter().map(|(_, pages)| pages).sum());
        let who = match pids {
            [] => "mapped more than once".to_owned(),
            pids => format!("shared with {}", name_pids(pids)),
        };
        let text = format!("{size} of {} would stay: {who}", name_parts(&parts));
        Concern::new(Weight::Warning, text).fix(fix)
    };
    groups.into_iter().map(concern).collect()
}

/// The largest part by name, and how many others there are.
fn name_parts(parts: &[(&str, u64)]) -> String {
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, pages) in parts {
        *by_name.entry(name).or_default() += pages;
    }
    let largest = by_name.iter().max_by_key(|(_, pages)| **pages).map_or("", |(name, _)| name);
    match by_name.len() - 1 {
        0 => largest.to_owned(),
        1 => format!("{largest} and one more mapping"),
        more => format!("{largest} and {more} more mappings"),
    }
}

fn name_pids(pids: &[u32]) -> String {
    const NAMED: usize = 4;
    let named: Vec<String> = pids.iter().take(NAMED).map(|pid| format!("pid {pid}")).collect();
    match pids.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn pins(circumstances: &Circumstances) -> Option<Concern> {
    (circumstances.pinned > Bytes::ZERO).then(|| {
        let text = format!(
            "{} are pinned (VmPin: RDMA, io_uring buffers, VFIO): pinned pages stay where they are",
            circumstances.pinned
        );
        Concern::new(Weight::Warning, text)
    })
}

fn policies(demands: &Demands, circumstances: &Circumstances) -> Option<Concern> {
    let bound_elsewhere = |policy: &MemPolicy| {
        let strict = matches!(
            policy.mode,
            PolicyMode::Bind | PolicyMode::Preferred | PolicyMode::PreferredMany
        );
        strict && !demands.destinations.is_subset(&policy.nodes)
    };
    let mut bound = circumstances.policies.iter().filter(|(_, _, policy)| bound_elsewhere(policy));
    let (range, name, policy) = bound.next()?;
    let others = match bound.count() {
        0 => String::new(),
        more => format!(", and that of {more} more mappings,"),
    };
    let text = format!(
        "the policy of {name} at {range}{others} is {policy}: what has moved stays, but new pages and pages that come back from swap go there again"
    );
    let concern = Concern::new(Weight::Warning, text)
        .fix("only the process itself can change a mapping's policy (mbind); a cpuset rebinds it:");
    let cgroup = circumstances.cgroup.as_deref().filter(|path| *path != "/");
    Some(match cgroup {
        Some(path) => {
            concern.fix(format!("echo {} > /sys/fs/cgroup{path}/cpuset.mems", demands.destinations))
        }
        None => concern.fix("put it into a cgroup of its own and write cpuset.mems there"),
    })
}

fn balancing(demands: &Demands, circumstances: &Circumstances) -> Option<Concern> {
    let drifting = circumstances.cpu_nodes.difference(&demands.destinations);
    if circumstances.numa_balancing.unwrap_or(0) & 1 == 0 || drifting.is_empty() {
        return None;
    }
    let text = format!(
        "numa_balancing is on and threads may run on node {drifting}: the next hint fault there brings a page back"
    );
    Some(
        Concern::new(Weight::Warning, text)
            .fix("sysctl kernel.numa_balancing=0     # off for the whole machine, or")
            .fix(format!(
                "taskset -a -p -c CPUS {}     # its threads onto CPUs of node {}",
                demands.pid, demands.destinations
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(raw: u16) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn mib(mib: u64) -> Bytes {
        Bytes::new(mib << 20)
    }

    fn to_node_one(ordinary: Bytes) -> Demands {
        Demands {
            arriving: BTreeMap::from([(node(1), Arrival { ordinary, hugetlb: Bytes::ZERO })]),
            destinations: NodeSet::only(node(1)),
            pid: 7,
            ..Demands::default()
        }
    }

    fn quiet_host() -> Circumstances {
        let room = Room { free: mib(512), reserve: mib(12), ..Room::default() };
        Circumstances {
            rooms: BTreeMap::from([(node(0), room), (node(1), room)]),
            allowed: "0-1".parse().unwrap(),
            cpu_nodes: "1".parse().unwrap(),
            numa_balancing: Some(1),
            ..Circumstances::default()
        }
    }

    #[test]
    fn a_move_that_fits_and_lasts_raises_no_concern() {
        assert_eq!(concerns(&to_node_one(mib(500)), &quiet_host()), []);
    }

    #[test]
    fn a_destination_without_room_is_refused_with_the_limit_that_fits() {
        let found = concerns(&to_node_one(mib(501)), &quiet_host());
        assert!(found[0].is_refusal());
        assert!(found[0].fix[0].contains("--limit 436MiB"), "{:?}", found[0]);
    }

    #[test]
    fn the_advised_limit_leaves_what_a_cpu_may_put_on_its_own_list() {
        let fixes = |free| {
            let mut host = quiet_host();
            if let Some(room) = host.rooms.get_mut(&node(1)) {
                (room.free, room.reserve) = (mib(free), Bytes::ZERO);
            }
            concerns(&to_node_one(mib(48)), &host)[0].fix.join("")
        };
        assert!(fixes(16).contains("--limit 6MiB"), "{}", fixes(16));
        assert!(!fixes(8).contains("--limit"), "nothing is sure to fit: {}", fixes(8));
    }

    #[test]
    fn free_hugetlb_pages_on_the_destination_count_as_room() {
        let mut demands = to_node_one(mib(500));
        demands.arriving.insert(node(1), Arrival { ordinary: mib(500), hugetlb: mib(100) });
        let mut host = quiet_host();
        assert!(concerns(&demands, &host)[0].is_refusal());
        if let Some(room) = host.rooms.get_mut(&node(1)) {
            room.hugetlb_free = mib(100);
        }
        assert_eq!(concerns(&demands, &host), []);
    }

    #[test]
    fn a_destination_outside_the_cpuset_is_refused() {
        let host = Circumstances { allowed: "0".parse().unwrap(), ..quiet_host() };
        let found = concerns(&to_node_one(mib(1)), &host);
        assert!(found[0].is_refusal() && found[0].text.contains("EACCES"), "{found:?}");
        assert_eq!(found[0].fix, ["echo 0-1 > /sys/fs/cgroup/cpuset.mems"]);
    }

    #[test]
    fn a_policy_that_binds_elsewhere_is_a_warning() {
        let bound = MemPolicy::new(PolicyMode::Bind, "0".parse().unwrap());
        let range = AddrRange::from_pages(0x1000, 1);
        let policies = vec![(range, "[heap]".to_owned(), bound)];
        let found = concerns(&to_node_one(mib(1)), &Circumstances { policies, ..quiet_host() });
        assert_eq!(found[0].weight, Weight::Warning);
        assert!(found[0].text.contains("bind:0"), "{found:?}");
    }

    #[test]
    fn numa_balancing_is_a_warning_only_where_threads_may_run_elsewhere() {
        let host = Circumstances { cpu_nodes: "0-1".parse().unwrap(), ..quiet_host() };
        let found = concerns(&to_node_one(mib(1)), &host);
        assert!(found[0].text.contains("numa_balancing"), "{found:?}");
        let off = Circumstances { numa_balancing: Some(0), ..host };
        assert_eq!(concerns(&to_node_one(mib(1)), &off), []);
    }

    #[test]
    fn those_who_share_pages_are_named() {
        let part = |name: &str, pages| (name.to_owned(), pages, vec![77, 78]);
        let sharers = vec![part("/dev/shm/pool", 200), part("libc.so.6", 56)];
        let found = concerns(&to_node_one(mib(1)), &Circumstances { sharers, ..quiet_host() });
        assert_eq!(
            found[0].text,
            "1.0 MiB of /dev/shm/pool and one more mapping would stay: shared with pid 77, pid 78"
        );
    }
}
