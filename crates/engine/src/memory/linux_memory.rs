//! The memory of a real process, by the kernel's files and calls.
//!
//! Opened once, and bound to that process: the pidfd tells when it has gone, and pagemap stays with
//! its memory even if the pid is given to another. The calls that move take a pid, since the kernel
//! has none that take a pidfd; the mover asks [`Memory::is_alive`] before each, which leaves the
//! microseconds between the two. Files and calls of a process whose first thread has exited know
//! nothing of its memory: those of a thread that runs do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use linux::calls::{self, MoveError};
use linux::frame_trust::tell_nodes;
use linux::proc::kpageflags::KPageFlags;
use linux::proc::maps::{self, Device};
use linux::proc::pagemap::{Pagemap, PagemapEntry, ScanFlags};
use linux::proc::{mountinfo, numa_maps, smaps, task};
use linux::sys::{MoveFlags, PageRegion, ScanRequest, has_exited};
use linux::sysfs::frame_map::{self, FrameMap};
use linux::{ReadError, Root};
use machine::{AddrRange, BASE_PAGE_BYTES, Bytes, NodeId, NodeSet};

use super::by_frame::ByFrame;
use super::by_query::ByQuery;
use super::run_joiner::RunJoiner;
use super::walk::{Reader, Walk, read_words};
use super::zero_frames::ZeroFrames;
use super::{Memory, Sharing, Unplaced};
use crate::placement::{Kind, Mapping, THP_PAGES};
use crate::sharers::file_id;

/// A mapping from this size on is asked for in smaps before its pages are looked for one by one.
const LARGE: Bytes = Bytes::new(16 << 30);

/// How well the pages of the target can be seen, by the rights of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Frame numbers are visible: exact, and as fast as reading pagemap.
    Frames,
    /// Pagemap without frame numbers: the kernel is asked for each folio.
    Pagemap,
    /// No pagemap: the kernel is asked for every address.
    Addresses,
}

impl Sight {
    /// What is missing, and what it costs; `None` when nothing is.
    pub fn shortfall(self) -> Option<&'static str> {
        match self {
            Self::Frames => None,
            Self::Pagemap => Some(
                "frame numbers are hidden (or tell no nodes, under pagetide run), so the kernel was asked for each folio, which takes about six times as long; CAP_SYS_ADMIN shows them",
            ),
            Self::Addresses => Some(
                "pagemap is not readable, so the kernel was asked for every address: which pages are shared, in swap or huge is not known; CAP_DAC_READ_SEARCH opens it",
            ),
        }
    }
}

/// One process, opened.
#[derive(Debug)]
pub struct LinuxMemory {
    root: Root,
    pid: u32,
    tid: u32,
    pidfd: OwnedFd,
    pagemap: Option<Pagemap>,
    can_scan: bool,
    frames: Option<FrameMap>,
    flags: Option<KPageFlags>,
    zero: ZeroFrames,
    shmem_devices: BTreeSet<Device>,
}

impl LinuxMemory {
    /// Opens the memory of the process behind `pidfd`, as well as the caller's rights allow.
    ///
    /// # Errors
    ///
    /// When even its mappings may not be read.
    pub fn open(root: &Root, pid: u32, pidfd: OwnedFd) -> Result<Self, ReadError> {
        // Mappings first: whoever may not open those may do nothing here.
        let tid = task::with_memory(root, pid)?.unwrap_or(pid);
        root.open(format!("proc/{tid}/maps"))?;
        let pagemap = Pagemap::open(root, tid).ok();
        let can_scan = pagemap.as_ref().is_some_and(has_scan);
        let frames = if sees_frames(root) { frame_map::read(root).ok() } else { None };
        let frames = frames.filter(|frames| tell_nodes(root, frames));
        let shmem = |mount: &mountinfo::Mount| mount.file_system == "tmpfs";
        let shmem_devices =
            mountinfo::read(root)?.iter().filter(|mount| shmem(mount)).map(|m| m.device).collect();
        Ok(Self {
            root: root.clone(),
            pid,
            tid,
            pidfd,
            pagemap,
            can_scan,
            frames,
            flags: KPageFlags::open(root).ok(),
            zero: ZeroFrames::find(root),
            shmem_devices,
        })
    }

    /// The thread by whose number the kernel shows and moves its memory
    /// ([`task::with_memory`]).
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// How well its pages can be seen.
    pub fn sight(&self) -> Sight {
        match (&self.pagemap, &self.frames) {
            (None, _) => Sight::Addresses,
            (Some(_), None) => Sight::Pagemap,
            (Some(_), Some(_)) => Sight::Frames,
        }
    }

    /// Surveys as a caller with fewer rights would; for tests and benchmarks.
    pub fn limit_sight(&mut self, sight: Sight) {
        if sight != Sight::Frames {
            self.frames = None;
        }
        if sight == Sight::Addresses {
            self.pagemap = None;
        }
    }

    /// Reserves of a database or a virtual machine take terabytes. Without a scan there is a word to read
    /// for each of their pages, which are not there.
    fn large_and_empty(&self, maps: &[maps::Mapping]) -> BTreeSet<AddrRange> {
        let is_large = |range: AddrRange| range.bytes() >= LARGE;
        if self.can_scan || !maps.iter().any(|map| is_large(map.range)) {
            return BTreeSet::new();
        }
        let sizes = smaps::read(&self.root, self.tid).unwrap_or_default();
        let empty = sizes.iter().filter(|sizes| !sizes.has_pages());
        empty.map(|sizes| sizes.mapping.range).filter(|&range| is_large(range)).collect()
    }

    fn kind(&self, mapping: &maps::Mapping) -> Kind {
        let shmem = mapping.is_nameless_shmem()
            || self.shmem_devices.contains(&mapping.device)
            || is_hugetlb(mapping);
        match mapping {
            mapping if mapping.is_heap() => Kind::Heap,
            mapping if mapping.is_stack() => Kind::Stack,
            mapping if mapping.is_anonymous() => Kind::Anon,
            _ if shmem => Kind::Shmem,
            mapping if mapping.inode == 0 => Kind::Anon,
            _ => Kind::File,
        }
    }
}

impl Memory for LinuxMemory {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn is_alive(&self) -> bool {
        !has_exited(&self.pidfd).unwrap_or(true)
    }

    fn mappings(&self) -> Result<Vec<Mapping>, ReadError> {
        let maps = match maps::read(&self.root, self.tid) {
            Err(ReadError::NoProcess { .. }) => Vec::new(),
            result => result?,
        };
        // A pid that was given to another process meanwhile must not lend its mappings.
        if !self.is_alive() {
            return Ok(Vec::new());
        }
        // Hugetlb pools are named in numa_maps only. It walks all page tables, so it is read just
        // where a mapping could be of a pool.
        let numa = if maps.iter().any(may_be_hugetlb) || self.pagemap.is_none() {
            numa_maps::read(&self.root, self.pid).unwrap_or_default()
        } else {
            Vec::new()
        };
        let large_and_empty = self.large_and_empty(&maps);
        let numa_of = |start: u64| {
            numa.binary_search_by_key(&start, |line| line.start).ok().map(|at| &numa[at])
        };
        let is_of_interest = |map: &maps::Mapping| {
            let empty = self.pagemap.is_none()
                && numa_of(map.range.start()).is_some_and(|line| line.pages.is_empty());
            let empty = empty || large_and_empty.contains(&map.range);
            !map.is_kernels_own() && !empty
        };
        let mapping = |map: &maps::Mapping| Mapping {
            range: map.range,
            name: if map.name.is_empty() { "[anon]".to_owned() } else { map.name.clone() },
            kind: self.kind(map),
            shared: map.permissions.shared,
            hugetlb: numa_of(map.range.start())
                .filter(|line| line.is_hugetlb)
                .map(|line| line.page_size.unwrap_or(Bytes::new(2 << 20))),
            file: file_id(map),
        };
        Ok(maps.iter().filter(|map| is_of_interest(map)).map(mapping).collect())
    }

    fn runs(
        &self,
        mapping: &Mapping,
        range: AddrRange,
        each: &mut dyn FnMut(crate::placement::Run) -> ControlFlow<()>,
    ) -> Result<Unplaced, ReadError> {
        let range = whole_hugetlb_pages(mapping, range);
        let mut joiner = RunJoiner::new(mapping, range, each);
        let mut query = ByQuery::new(self.tid, self.pagemap.as_ref());
        let Some(pagemap) = &self.pagemap else {
            query.every_page(range.start() / BASE_PAGE_BYTES, range.pages(), &mut joiner)?;
            joiner.flush();
            return Ok(joiner.unplaced);
        };
        let mut by_frame;
        let reader: &mut dyn Reader = match &self.frames {
            None => &mut query,
            Some(frames) => {
                let (zero, flags) = (&self.zero, self.flags.as_ref());
                by_frame = ByFrame { pagemap, frames: frames.lookup(), zero, flags, query };
                &mut by_frame
            }
        };
        // A scan tells a huge page that the range cuts; words tell one only when all are looked at.
        let is_told_by_words = self.frames.is_some() && !self.can_scan;
        let range = if is_told_by_words { whole_thps(mapping, range) } else { range };
        Walk { pagemap, can_scan: self.can_scan, reader, joiner: &mut joiner }.range(range)?;
        Ok(joiner.unplaced)
    }

    fn pages_by_node(&self) -> Result<BTreeMap<u64, BTreeMap<NodeId, u64>>, ReadError> {
        let lines = numa_maps::read(&self.root, self.pid)?;
        let pages = |line: &numa_maps::NumaMapping| {
            line.bytes().map(|(node, bytes)| (node, bytes.pages())).collect()
        };
        Ok(lines.iter().map(|line| (line.start, pages(line))).collect())
    }

    fn has_page(&self, address: u64) -> bool {
        let mut word = [0];
        let Some(pagemap) = self.pagemap.as_ref().filter(|_| self.frames.is_some()) else {
            return false;
        };
        let read = read_words(pagemap, address / BASE_PAGE_BYTES, &mut word).unwrap_or(0);
        let frame = PagemapEntry(word[0]).frame().filter(|_| read == 1);
        frame.is_some_and(|frame| !self.zero.contains(frame))
    }

    fn move_pages(
        &self,
        pages: &[u64],
        to: NodeId,
        sharing: Sharing,
        status: &mut [i32],
    ) -> Result<(), MoveError> {
        let flags = match sharing {
            Sharing::OwnOnly => MoveFlags::MOVE,
            Sharing::IncludeShared => MoveFlags::MOVE_ALL,
        };
        let nodes = vec![to.as_raw(); pages.len()];
        calls::move_pages(self.tid, pages, &nodes, status, flags).map(|_| ())
    }

    fn migrate_pages(&self, from: &NodeSet, to: NodeId, sharing: Sharing) -> Result<(), MoveError> {
        let call = || calls::migrate_pages(self.tid, from, &NodeSet::only(to)).map(|_| ());
        match sharing {
            Sharing::OwnOnly => calls::without_sys_nice(call).unwrap_or_else(|errno| {
                let call = "give CAP_SYS_NICE up for a move";
                Err(MoveError::Call { pid: self.tid, call, first_address: 0, pages: 0, errno })
            }),
            Sharing::IncludeShared => {
                // Without the right to, migrate_pages leaves shared pages and says nothing.
                calls::move_pages(self.tid, &[], &[], &mut [], MoveFlags::MOVE_ALL)?;
                call()
            }
        }
    }

    fn query_pages(&self, pages: &[u64], status: &mut [i32]) -> Result<(), MoveError> {
        calls::query_pages(self.tid, pages, status)
    }
}

/// Hugetlb mappings take whole pages of their pool.
fn whole_hugetlb_pages(mapping: &Mapping, range: AddrRange) -> AddrRange {
    mapping.hugetlb.map_or(range, |size| widened(mapping, range, size.get()))
}

/// Whole blocks of the size of a THP, as far as the mapping has them.
fn whole_thps(mapping: &Mapping, range: AddrRange) -> AddrRange {
    widened(mapping, range, THP_PAGES * BASE_PAGE_BYTES)
}

/// The range from a multiple of `bytes` to the next, within the mapping.
fn widened(mapping: &Mapping, range: AddrRange, bytes: u64) -> AddrRange {
    let start = range.start() / bytes * bytes;
    let end = range.end().next_multiple_of(bytes);
    AddrRange::new(start, end).and_then(|whole| whole.intersection(mapping.range)).unwrap_or(range)
}

/// A mapping of a hugetlb pool: by name, or possibly (a mounted hugetlbfs, a SysV segment).
fn may_be_hugetlb(mapping: &maps::Mapping) -> bool {
    let huge_aligned = mapping.range.start().is_multiple_of(2 << 20)
        && mapping.range.bytes().get().is_multiple_of(2 << 20);
    mapping.inode != 0 && mapping.device.major == 0 && huge_aligned
}

fn is_hugetlb(mapping: &maps::Mapping) -> bool {
    mapping.name.starts_with("/anon_hugepage") && mapping.permissions.shared
}

/// Whether this caller sees frame numbers: tried on a page of our own.
fn sees_frames(root: &Root) -> bool {
    let word = Box::new(1_u8);
    let page = std::ptr::from_ref(&*word).addr() as u64 / BASE_PAGE_BYTES;
    let mut entry = [0];
    Pagemap::open(root, std::process::id())
        .is_ok_and(|pagemap| pagemap.read_entries(page, &mut entry).is_ok())
        && PagemapEntry(entry[0]).frame().is_some()
}

/// Whether the kernel has PAGEMAP_SCAN: tried on the null page.
fn has_scan(pagemap: &Pagemap) -> bool {
    let request = ScanRequest {
        range: 0..BASE_PAGE_BYTES,
        all_of: ScanFlags::PRESENT,
        any_of: ScanFlags::NONE,
        report: ScanFlags::PRESENT,
    };
    pagemap.scan(&request, &mut [PageRegion::default()]).is_ok()
}

#[cfg(test)]
mod tests {
    use linux::calls::open_pidfd;
    use linux::sys::{Backing, OwnMemory};

    use super::*;
    use crate::placement::{PageSize, Tally};
    use crate::survey::for_each_run;

    fn ourselves() -> LinuxMemory {
        let pid = std::process::id();
        LinuxMemory::open(&Root::default(), pid, open_pidfd(pid).unwrap()).unwrap()
    }

    fn mapping_at(memory: &LinuxMemory, address: u64) -> Mapping {
        let mappings = memory.mappings().unwrap();
        mappings.into_iter().find(|mapping| mapping.range.contains(address)).unwrap()
    }

    fn tally_of(memory: &LinuxMemory, range: AddrRange) -> (Tally, Unplaced) {
        let mut tally = Tally::default();
        let mapping = mapping_at(memory, range.start());
        let unplaced = for_each_run(memory, &mapping, range, |run| tally.add(&run)).unwrap();
        (tally, unplaced)
    }

    /// Each sight that this caller's rights allow.
    fn sights() -> impl Iterator<Item = Sight> {
        let best = ourselves().sight();
        [Sight::Frames, Sight::Pagemap, Sight::Addresses]
            .into_iter()
            .skip_while(move |&sight| sight != best)
    }

    #[test]
    fn every_sight_counts_the_touched_pages_and_nothing_else() {
        let mut own = OwnMemory::map(Bytes::from_pages(1100), Backing::BasePages).unwrap();
        let range = own.range();
        for page in (0..1100).filter(|page| page % 3 != 0) {
            own.write(range.start() + page * BASE_PAGE_BYTES, 1);
        }
        for sight in sights() {
            let mut memory = ourselves();
            memory.limit_sight(sight);
            let (tally, _) = tally_of(&memory, range);
            assert_eq!(tally.pages(), 733, "{sight:?}");
            assert!(tally.lines().all(|line| line.kind == Kind::Anon), "{sight:?}");
        }
    }

    #[test]
    fn memory_that_was_only_read_is_the_zero_page_and_on_no_node() {
        let own = OwnMemory::map(Bytes::from_pages(7), Backing::BasePages).unwrap();
        let range = own.range();
        for page in 0..7 {
            let _ = own.read(range.start() + page * BASE_PAGE_BYTES);
        }
        // Without pagemap a mapping without pages on nodes is not looked at in the first place.
        for sight in sights().filter(|&sight| sight != Sight::Addresses) {
            let mut memory = ourselves();
            memory.limit_sight(sight);
            let (tally, unplaced) = tally_of(&memory, range);
            assert_eq!((tally.pages(), unplaced.zero_pages), (0, 7), "{sight:?}");
        }
    }

    #[test]
    fn huge_pages_are_seen_as_such_wherever_the_kernel_gave_them() {
        let mut own = OwnMemory::map(Bytes::new(8 << 20), Backing::HugePages).unwrap();
        let range = own.range();
        (0..2048).for_each(|page| own.write(range.start() + page * BASE_PAGE_BYTES, 1));
        let memory = ourselves();
        let (tally, _) = tally_of(&memory, range);
        let huge_kib: u64 = smaps::read(&Root::default(), std::process::id())
            .unwrap()
            .iter()
            .filter(|sizes| sizes.mapping.range.intersection(range).is_some())
            .map(|sizes| sizes.anon_huge().get() / 1024)
            .sum();
        let seen = tally.pages_where(|line| line.size == PageSize::Thp);
        if memory.can_scan || memory.flags.is_some() {
            assert_eq!(seen * 4, huge_kib);
        }
        assert_eq!(tally.pages(), 2048);
    }

    #[test]
    fn a_reader_that_has_had_enough_is_not_called_again() {
        let mut own = OwnMemory::map(Bytes::from_pages(64), Backing::BasePages).unwrap();
        let range = own.range();
        for page in (0..64).step_by(2) {
            own.write(range.start() + page * BASE_PAGE_BYTES, 1);
        }
        let memory = ourselves();
        let mut calls = 0;
        let mapping = mapping_at(&memory, range.start());
        memory
            .runs(&mapping, range, &mut |_| {
                calls += 1;
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(calls, 1);
    }

    #[test]
    fn the_survey_of_ourselves_agrees_with_numa_maps() {
        let mut own = OwnMemory::map(Bytes::from_pages(300), Backing::BasePages).unwrap();
        let range = own.range();
        (0..300).for_each(|page| own.write(range.start() + page * BASE_PAGE_BYTES, 1));
        let memory = ourselves();
        let lines = numa_maps::read(&Root::default(), std::process::id()).unwrap();
        let line = lines.iter().find(|line| line.start == range.start()).unwrap();
        let (tally, _) = tally_of(&memory, range);
        assert_eq!(tally.by_node(), line.pages);
    }

    #[test]
    fn a_large_mapping_without_a_page_is_not_read_word_by_word() {
        let empty = OwnMemory::map(LARGE, Backing::BasePages).unwrap();
        let mut other = OwnMemory::map(LARGE, Backing::BasePages).unwrap();
        other.write(other.range().start(), 1);
        let mut memory = ourselves();
        memory.can_scan = false;
        let mappings = memory.mappings().unwrap();
        let is_there = |own: &OwnMemory| {
            let start = own.range().start();
            mappings.iter().any(|mapping| mapping.range.contains(start))
        };
        assert!(!is_there(&empty) && is_there(&other));
        memory.can_scan = true;
        mapping_at(&memory, empty.range().start());
    }
}
