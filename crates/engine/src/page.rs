//! One page: all that the kernel tells about it, and whether it would migrate.
//!
//! Called by `pagetide explain`. It reads `/proc` and asks the kernel where the page is; only a
//! [trial] moves it, and back again. It never reads or writes what is in the page.
//!
//! Each fact that a caller's rights or the kernel hide is absent, and [`PageReport::unseen`] says why. The
//! facts are read one after the other while the process may run.

mod balancing;
mod folio;
mod place;
mod policy;
#[cfg(test)]
mod sample;
mod sharer;
pub mod trial;
mod verdict;

use linux::calls;
use linux::cgroup::Cgroup;
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::proc::{maps, smaps, status, sysctl, vm_flags};
use linux::sysfs::topology::ReadTopologyError;
use linux::{PageStatus, ReadError, Root, UNWRITTEN};
use machine::{AddrRange, BASE_PAGE_BYTES, Bytes, Distance, NodeId, NodeSet};
use serde::{Serialize, Serializer};

use crate::memory::{LinuxMemory, Memory as _};
use crate::placement::{Kind, Mapping, PageSize, Run};
use crate::planner::{PlanError, Planner};
use crate::survey::for_each_run;
use crate::target::{Target, TargetId};

pub use folio::{Folio, Frame};
pub use place::{Place, PlaceError};
pub use policy::{PolicyInForce, PolicySource};
pub use sharer::Sharer;
pub use verdict::{Verdict, Would};

/// Why a page cannot be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// Nothing is mapped there.
    #[error("process {pid} maps nothing at {address:#x}: {nearest}")]
    NotMapped {
        /// The process.
        pid: u32,
        /// The address.
        address: u64,
        /// The mappings below and above it.
        nearest: String,
    },
    /// No mapping has the name.
    #[error("process {pid} has no mapping called `{name}`: /proc/{pid}/maps has their names")]
    NoMapping {
        /// The process.
        pid: u32,
        /// The name.
        name: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The nodes of this machine could not be read.
    #[error(transparent)]
    Topology(#[from] ReadTopologyError),
    /// What the nodes have room for could not be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What there is at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// A page on a node.
    Present,
    /// No page yet, or no longer: the next access brings one.
    Absent,
    /// In swap, or in flight between two nodes just now.
    Swapped,
    /// The zero page: memory that was only read.
    Zero,
    /// A guard of the process: an access faults.
    Guard,
    /// Something that is mapped and on no node: a frame of the kernel or of a device.
    OffNode,
    /// A mapping of the kernel's own (`[vdso]`, `[vsyscall]`), whatever is there.
    KernelsOwn,
}

/// A flag of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmFlag {
    /// Two letters, as smaps has them.
    pub letters: String,
    /// What they mean, if we know.
    pub meaning: Option<&'static str>,
}

/// The mapping that a page is in.
#[derive(Clone, Debug, Serialize)]
pub struct PageMapping {
    /// Its addresses.
    pub range: AddrRange,
    /// The path, `[heap]`, `[stack]`, or `[anon]`.
    pub name: String,
    /// What it is for; none for the kernel's own (`[vdso]`).
    pub kind: Option<Kind>,
    /// `rw-p`.
    pub permissions: String,
    /// Byte in the file at which the page begins; none without a file.
    pub file_offset_bytes: Option<u64>,
    /// Flags, where smaps could be read.
    pub flags: Option<Vec<VmFlag>>,
}

impl PageMapping {
    fn has_flag(&self, letters: &str) -> bool {
        self.flags.iter().flatten().any(|flag| flag.letters == letters)
    }
}

/// Bits of pagemap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EntryBits {
    /// Written since soft-dirty bits were cleared, or not tracked.
    pub soft_dirty: bool,
    /// Mapped here and nowhere else.
    pub exclusive: bool,
    /// A page of a file or of shared memory.
    pub file_or_shared: bool,
    /// Write-protected by a userfaultfd.
    pub write_protected: bool,
}

/// A node where the page could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The node.
    pub node: NodeId,
    /// From where the page is now.
    pub distance: Option<Distance>,
    /// What it has room for: free memory less the min watermarks, and for hugetlb the free pool.
    pub room_bytes: Bytes,
    /// Whether the page's folio fits.
    pub has_room: bool,
    /// Whether the cpuset of the process allows it.
    pub is_allowed: bool,
}

impl Destination {
    /// Whether the page could go there.
    pub fn is_open(&self) -> bool {
        self.has_room && self.is_allowed
    }
}

/// Whether automatic NUMA balancing may move the page, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balancing {
    /// Whether it may.
    pub may_move: bool,
    /// Why, in one sentence.
    pub text: String,
}

/// All that is known of a page.
#[derive(Clone, Debug, Serialize)]
pub struct PageReport {
    /// Whose page it is.
    #[serde(flatten)]
    pub id: TargetId,
    /// Address of the page: a multiple of 4096.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
    /// Its mapping.
    pub mapping: PageMapping,
    /// The policy in force; none where numa_maps may not be read, and for the kernel's own mappings.
    pub policy: Option<PolicyInForce>,
    /// Nodes that the cpuset of the process allows.
    pub allowed_nodes: NodeSet,
    /// The cgroup of the process.
    pub cgroup: Option<String>,
    /// Nodes on whose CPUs its threads may run.
    pub cpu_nodes: NodeSet,
    /// Whether there is a page.
    pub state: PageState,
    /// The node that it is on.
    pub node: Option<NodeId>,
    /// What the kernel maps and moves as one here: `4KiB`, `thp`, `hugetlb-2MiB`.
    pub size: Option<PageSize>,
    /// Its frame; none without the right to see it.
    pub frame: Option<Frame>,
    /// Bits of pagemap; none where that may not be read.
    pub entry: Option<EntryBits>,
    /// Mappings that show the same frame, the page's own not among them.
    pub sharers: Vec<Sharer>,
    /// Whether NUMA balancing may move it.
    pub balancing: Balancing,
    /// Every other node with memory, the nearest first.
    pub destinations: Vec<Destination>,
    /// Whether it would migrate, and why.
    pub verdict: Verdict,
    /// What the kernel did when it was asked, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<trial::Trial>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
}

fn hexadecimal<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

/// What is asked of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Look only.
    Look,
    /// Move it to a node (none: the nearest that is open to it) and back.
    Try(Option<NodeId>),
}

impl PageReport {
    /// Explains the page at `place`.
    ///
    /// # Errors
    ///
    /// [`ExplainError`].
    pub fn take(
        root: &Root,
        planner: &Planner,
        target: Target,
        place: &Place,
        ask: Ask,
    ) -> Result<Self, ExplainError> {
        let Target { id, pidfd } = target;
        let pid = id.pid;
        let memory = LinuxMemory::open(root, pid, pidfd)?;
        let tid = memory.tid();
        let maps = maps::read(root, tid)?;
        let address = place.resolve(pid, &maps)?;
        let map = place::mapping_at(pid, &maps, address)?;
        let address = address / BASE_PAGE_BYTES * BASE_PAGE_BYTES;
        let allowed_nodes = status::read(root, pid)?.mems_allowed;
        let pinned = status::read(root, tid)?.pinned.unwrap_or_default();
        let mappings = memory.mappings()?;
        let mapping = mappings.iter().find(|mapping| mapping.range.contains(address));
        let mut unseen: Vec<String> =
            memory.sight().shortfall().map(str::to_owned).into_iter().collect();

        let look = Look::take(root, &memory, map, mapping, address)?;
        let mapped = page_mapping(root, tid, map, mapping, address, &mut unseen);
        let mut frame = seen(Frame::read(root, look.entry), &mut unseen).flatten();
        if let Some(frame) = &mut frame
            && mapped.flags.is_some()
        {
            frame.distrust_ksm(mapped.has_flag("mg"));
        }
        let policy = match look.state {
            PageState::KernelsOwn => None,
            _ => seen(policy::in_force(root, (pid, tid), map), &mut unseen).flatten(),
        };
        let sharers = match look.entry.frame() {
            Some(number) => sharer::find(root, (pid, address), map, number)?,
            None => Vec::new(),
        };
        let mut report = Self {
            mapping: mapped,
            policy,
            allowed_nodes,
            cgroup: Cgroup::of_process(root, pid)
                .ok()
                .map(|group| group.path().display().to_string()),
            cpu_nodes: planner.cpu_nodes(pid)?,
            state: look.state,
            node: look.run.map(|run| run.node).or(look.asked.node()),
            size: look.run.map(|run| run.size),
            frame,
            entry: look.bits(),
            sharers,
            balancing: Balancing { may_move: false, text: String::new() },
            destinations: Vec::new(),
            verdict: Verdict::default(),
            trial: None,
            unseen,
            id,
            address,
        };
        report.destinations = report.destinations(planner)?;
        report.balancing =
            balancing::may_move(&report, sysctl::numa_balancing(root)?, planner.machine());
        report.verdict = verdict::verdict(&report, pinned);
        if let Ask::Try(to) = ask {
            report.trial = Some(trial::run(&memory, &report, mapping, to));
        }
        Ok(report)
    }

    /// Bytes that the kernel would have to find elsewhere.
    pub fn folio_bytes(&self) -> Bytes {
        let by_frame = self.frame.as_ref().map(|frame| frame.folio.pages);
        let pages = by_frame.or(self.size.map(PageSize::base_pages));
        Bytes::from_pages(pages.unwrap_or(1))
    }

    /// How often the page is mapped, as far as is known: by its count, or by the bit that says once.
    pub fn is_shared(&self) -> Option<bool> {
        let mapcount = self.frame.as_ref().and_then(|frame| frame.mapcount);
        mapcount.map(|count| count > 1).or(self.entry.map(|entry| !entry.exclusive))
    }

    fn destinations(&self, planner: &Planner) -> Result<Vec<Destination>, PlanError> {
        let needed = self.folio_bytes();
        let is_hugetlb = matches!(self.size, Some(PageSize::Hugetlb(_)));
        let machine = planner.machine();
        let destination = |(node, room): (NodeId, crate::concern::Room)| {
            let pool = if is_hugetlb { room.hugetlb_free } else { Bytes::ZERO };
            let room_bytes = room.available() + pool;
            Destination {
                node,
                distance: self.node.and_then(|from| machine.distance(from, node)),
                room_bytes,
                has_room: room_bytes >= needed,
                is_allowed: self.allowed_nodes.contains(node),
            }
        };
        let others = planner.rooms()?.into_iter().filter(|(node, _)| Some(*node) != self.node);
        let mut destinations: Vec<Destination> = others.map(destination).collect();
        destinations.sort_by_key(|destination| destination.distance);
        Ok(destinations)
    }
}

/// What looking at the address gave.
struct Look {
    entry: PagemapEntry,
    has_pagemap: bool,
    run: Option<Run>,
    asked: PageStatus,
    state: PageState,
}

impl Look {
    fn take(
        root: &Root,
        memory: &LinuxMemory,
        map: &maps::Mapping,
        mapping: Option<&Mapping>,
        address: u64,
    ) -> Result<Self, ReadError> {
        let tid = memory.tid();
        let mut word = [0];
        let read = Pagemap::open(root, tid).is_ok_and(|pagemap| {
            pagemap.read_entries(address / BASE_PAGE_BYTES, &mut word).is_ok()
        });
        let entry = PagemapEntry(word[0]);
        let (run, unplaced) = match mapping {
            Some(mapping) => run_at(memory, mapping, address)?,
            None => (None, super::memory::Unplaced::default()),
        };
        let mut status = [UNWRITTEN];
        // A refusal leaves the word unwritten, and the run tells as much as there is to know.
        let _ = calls::query_pages(tid, &[address], &mut status);
        let asked = PageStatus::from_word(status[0]);
        let state = match (run, asked.node()) {
            _ if map.is_kernels_own() => PageState::KernelsOwn,
            (Some(_), _) => PageState::Present,
            _ if unplaced.zero_pages > 0 => PageState::Zero,
            _ if entry.is_swapped() || unplaced.swapped_pages > 0 => PageState::Swapped,
            _ if entry.is_guard() => PageState::Guard,
            (None, Some(_)) if mapping.is_some() => PageState::Present,
            _ if entry.is_present() => PageState::OffNode,
            _ => PageState::Absent,
        };
        Ok(Self { entry, has_pagemap: read, run, asked, state })
    }

    fn bits(&self) -> Option<EntryBits> {
        self.has_pagemap.then(|| EntryBits {
            soft_dirty: self.entry.is_soft_dirty(),
            exclusive: self.entry.is_exclusive(),
            file_or_shared: self.entry.is_file_or_shared(),
            write_protected: self.entry.is_write_protected(),
        })
    }
}

/// The page at `address` as the survey sees it: the run of its one page.
fn run_at(
    memory: &LinuxMemory,
    mapping: &Mapping,
    address: u64,
) -> Result<(Option<Run>, super::memory::Unplaced), ReadError> {
    let mut found = None;
    let range = AddrRange::from_pages(address, 1);
    let unplaced = for_each_run(memory, mapping, range, |run| {
        if run.range().contains(address) {
            found = Some(run);
        }
    })?;
    Ok((found, unplaced))
}

/// What was read; else nothing, and a line that says why.
fn seen<T>(read: Result<T, ReadError>, unseen: &mut Vec<String>) -> Option<T> {
    read.map_err(|error| unseen.push(error.to_string())).ok()
}

fn page_mapping(
    root: &Root,
    tid: u32,
    map: &maps::Mapping,
    mapping: Option<&Mapping>,
    address: u64,
    unseen: &mut Vec<String>,
) -> PageMapping {
    let flags =
        seen(smaps::read_one(root, tid, map.range.start()), unseen).flatten().map(|sizes| {
            let flag = |letters: String| VmFlag { meaning: vm_flags::meaning(&letters), letters };
            sizes.flags.into_iter().map(flag).collect()
        });
    let offset = map.offset.saturating_add(address.saturating_sub(map.range.start()));
    let letter = |is_set: bool, letter: char| if is_set { letter } else { '-' };
    let permissions = &map.permissions;
    PageMapping {
        range: map.range,
        name: if map.name.is_empty() { "[anon]".to_owned() } else { map.name.clone() },
        kind: mapping.map(|mapping| mapping.kind),
        permissions: [
            letter(permissions.read, 'r'),
            letter(permissions.write, 'w'),
            letter(permissions.execute, 'x'),
            if permissions.shared { 's' } else { 'p' },
        ]
        .iter()
        .collect(),
        file_offset_bytes: (map.inode != 0).then_some(offset),
        flags,
    }
}
