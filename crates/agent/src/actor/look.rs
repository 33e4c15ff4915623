//! Steps that look at a process from outside: where its pages are, what procfs says of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;

use linux::proc::kpageflags::{FrameFlags, KPageFlags};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::proc::{smaps, vmstat};
use linux::sysfs::frame_map::{self, FrameMap};
use linux::{ReadError, Root, frame_trust};
use scenario::layout::{PAGE_BYTES, Span};
use scenario::{PageNode, Place, Seen, Step};

use super::board::{Board, KernelPages};
use super::numbered;
use super::part::{Performed, Unable};

/// What is counted of migrations, as `/proc/vmstat` names it.
const COUNTERS: [&str; 5] = [
    "pgmigrate_success",
    "pgmigrate_fail",
    "thp_migration_success",
    "thp_migration_fail",
    "thp_migration_split",
];
/// Frames whose flags are read at a time.
const BLOCK_FRAMES: u64 = 512;

impl From<ReadError> for Unable {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

/// Looks at processes; knows what does not change while the machine runs.
#[derive(Debug)]
pub(crate) struct Looker {
    root: Root,
    frames: FrameMap,
    /// Whether frames tell nodes: not under `pagetide run`.
    frames_tell: bool,
    flags: Option<KPageFlags>,
    counted: [u64; COUNTERS.len()],
    /// Mount points, and how results name them.
    mounts: Vec<(String, &'static str)>,
}

/// The process that a step looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    pub(crate) board: Board,
    pub(crate) own: KernelPages,
}

impl Target {
    fn span(&self, place: Place) -> Option<Span> {
        self.board.span(place, self.own)
    }
}

impl Looker {
    pub(crate) fn new(mounts: Vec<(String, &'static str)>) -> Result<Self, ReadError> {
        let root = Root::default();
        let frames = frame_map::read(&root)?;
        // Who may not read it sees no frames either: see `nodes_by_query`.
        let flags = KPageFlags::open(&root).ok();
        let frames_tell = frame_trust::tell_nodes(&root, &frames);
        Ok(Self { root, frames, frames_tell, flags, counted: [0; COUNTERS.len()], mounts })
    }

    /// Counters are counted from now on.
    pub(crate) fn count_from_now(&mut self) -> Result<(), ReadError> {
        self.counted = self.migration_counters()?;
        Ok(())
    }

    /// Performs a step that looks; what is no such step gives nothing.
    pub(crate) fn perform(&mut self, step: &Step, target: Target) -> Performed {
        if !self.frames_tell {
            // Under `pagetide run` a call that it answers makes files fresh that were read just now.
            rustix::thread::sched_getaffinity(None)?;
        }
        match step {
            Step::Where(places) => {
                let ranges =
                    places.iter().map(|&place| Ok((place.to_string(), self.nodes(target, place)?)));
                Ok(Some(Seen::Where(ranges.collect::<Result<_, Unable>>()?)))
            }
            Step::HugeUnits(place) => self.huge_units(target, *place).map(Some),
            Step::Counters => self.counters().map(Some),
            Step::Pagemap(place) => self.pagemap(target, *place).map(Some),
            Step::NumaMaps(place) => self.numa_maps(target, *place).map(Some),
            Step::Status(field) => self.status(target, field).map(Some),
            Step::SysFile(path) => {
                let text = fs::read_to_string(path)?;
                let text = text.trim();
                Ok((!text.is_empty()).then(|| Seen::Text(text.to_owned())))
            }
            Step::Smaps(place, field) => {
                let sizes = self.smaps(target, *place)?;
                let kib: u64 = sizes.iter().map(|sizes| sizes.size(field).get() >> 10).sum();
                Ok(Some(Seen::Text(format!("{field}={kib}"))))
            }
            Step::ClearRefs => {
                fs::write(format!("/proc/{}/clear_refs", target.pid), "4")?;
                Ok(None)
            }
            Step::PageFlag(place, bit) => {
                let flag = FrameFlags(1u64.checked_shl(*bit).unwrap_or(0));
                let frames = self.frames_of(&self.entries(target, *place)?)?;
                let count = frames.into_iter().flatten().filter(|flags| flags.contains(flag));
                Ok(Some(Seen::Text(count.count().to_string())))
            }
            _ => Ok(None),
        }
    }

    // ---- pages ----

    /// The words of pagemap of the pages of a place; zeros where the process has no such address.
    fn entries(&self, target: Target, place: Place) -> Result<Vec<PagemapEntry>, Unable> {
        let Some(span) = target.span(place) else { return Ok(Vec::new()) };
        let pagemap = Pagemap::open(&self.root, target.pid)?;
        let mut words = vec![0; usize::try_from(span.pages).unwrap_or_default()];
        let first = span.start / PAGE_BYTES;
        let mut done = 0;
        while done < words.len() {
            match pagemap.read_entries(first + numbered(done), &mut words[done..])? {
                0 => break,
                count => done += count,
            }
        }
        let stride = usize::try_from(span.stride).unwrap_or(1).max(1);
        Ok(words.into_iter().step_by(stride).map(PagemapEntry).collect())
    }

    fn nodes(&self, target: Target, place: Place) -> Result<Vec<PageNode>, Unable> {
        let entries = self.entries(target, place)?;
        let blind = entries.iter().any(|entry| entry.is_present() && entry.frame().is_none());
        if blind
            || !self.frames_tell
            || (self.flags.is_none() && entries.iter().any(|entry| entry.is_present()))
        {
            return self.nodes_by_query(target, place, &entries);
        }
        let flags = self.frames_of(&entries)?;
        let mut lookup = self.frames.lookup();
        let node = |(entry, flags): (&PagemapEntry, Option<FrameFlags>)| {
            let Some(frame) = entry.frame() else { return Ok(PageNode::Absent) };
            if flags.is_some_and(|flags| flags.contains(FrameFlags::ZERO_PAGE)) {
                return Ok(PageNode::Zero);
            }
            let node = lookup.node_of(frame);
            let node = node.ok_or_else(|| Unable(format!("frame {frame:#x} is on no node")))?;
            Ok(PageNode::On(node.get()))
        };
        entries.iter().zip(flags).map(node).collect()
    }

    /// Where frames may not be seen: a page that is present and has no node is the zero page.
    fn nodes_by_query(
        &self,
        target: Target,
        place: Place,
        entries: &[PagemapEntry],
    ) -> Result<Vec<PageNode>, Unable> {
        let Some(span) = target.span(place) else { return Ok(Vec::new()) };
        let addresses: Vec<u64> = span.addresses().collect();
        let mut status = vec![i32::MIN; addresses.len()];
        linux::sys::query_pages(target.pid, &addresses, &mut status)?;
        let node = |(&word, entry): (&i32, &PagemapEntry)| match u16::try_from(word) {
            Ok(node) => PageNode::On(node),
            Err(_) if entry.is_present() => PageNode::Zero,
            Err(_) => PageNode::Absent,
        };
        Ok(status.iter().zip(entries).map(node).collect())
    }

    /// The flags of the frame of each entry; `None` where nothing is present.
    fn frames_of(&self, entries: &[PagemapEntry]) -> Result<Vec<Option<FrameFlags>>, Unable> {
        let Some(file) = &self.flags else { return Ok(vec![None; entries.len()]) };
        let mut blocks: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut flags = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(frame) = entry.frame() else {
                flags.push(None);
                continue;
            };
            let block = frame / BLOCK_FRAMES;
            let words = match blocks.entry(block) {
                Entry::Occupied(read) => read.into_mut(),
                Entry::Vacant(unread) => {
                    let mut words = vec![0; usize::try_from(BLOCK_FRAMES).unwrap_or_default()];
                    file.read(block * BLOCK_FRAMES, &mut words)?;
                    unread.insert(words)
                }
            };
            let place = usize::try_from(frame % BLOCK_FRAMES).unwrap_or_default();
            flags.push(words.get(place).copied().map(FrameFlags));
        }
        Ok(flags)
    }

    fn huge_units(&self, target: Target, place: Place) -> Result<Seen, Unable> {
        let sizes = self.smaps(target, place)?;
        let fields = [
            "AnonHugePages",
            "ShmemPmdMapped",
            "FilePmdMapped",
            "Shared_Hugetlb",
            "Private_Hugetlb",
        ];
        let mapped: u64 =
            sizes.iter().flat_map(|sizes| fields.map(|field| sizes.size(field).get())).sum();
        let frames = self.frames_of(&self.entries(target, place)?)?;
        let is_head = |flags: &FrameFlags| flags.contains(FrameFlags::COMPOUND_HEAD);
        let heads = frames.into_iter().flatten().filter(is_head).count();
        let pairs = [("pmd", (mapped >> 21).to_string()), ("heads", heads.to_string())];
        Ok(Seen::Pairs(pairs.to_vec()))
    }

    fn pagemap(&self, target: Target, place: Place) -> Result<Seen, Unable> {
        let letters = |entry: PagemapEntry| {
            let letters = [
                (entry.is_present(), 'P'),
                (entry.is_file_or_shared(), 'F'),
                (entry.is_exclusive(), 'X'),
                (entry.is_soft_dirty(), 'D'),
            ];
            letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
        };
        let pages = self.entries(target, place)?.into_iter().map(letters).collect();
        Ok(Seen::Flags(place.to_string(), pages))
    }

    // ---- texts ----

    /// The counters of [`COUNTERS`]; 0 where the kernel has none.
    fn migration_counters(&self) -> Result<[u64; COUNTERS.len()], ReadError> {
        Ok(vmstat::read_some(&self.root, COUNTERS)?.map(Option::unwrap_or_default))
    }

    fn counters(&mut self) -> Result<Seen, Unable> {
        let now = self.migration_counters()?;
        let since = |at: usize| now[at].wrapping_sub(self.counted[at]);
        let mut pairs = vec![("ok", since(0).to_string()), ("fail", since(1).to_string())];
        let thp = [2, 3, 4].map(since);
        if thp != [0; 3] {
            pairs.push(("thp", format!("{}/{}/{}", thp[0], thp[1], thp[2])));
        }
        self.counted = now;
        Ok(Seen::Pairs(pairs))
    }

    fn numa_maps(&self, target: Target, place: Place) -> Result<Seen, Unable> {
        let start = target.span(place).map_or(0, |span| span.start);
        let text = fs::read(format!("/proc/{}/numa_maps", target.pid))?;
        let text = String::from_utf8_lossy(&text);
        let address = format!("{start:08x}");
        let line = text.lines().find_map(|line| {
            line.strip_prefix(address.as_str()).and_then(|rest| rest.strip_prefix(' '))
        });
        let Some(line) = line else { return Ok(Seen::Text("noline".into())) };
        let named = self.mounts.iter().fold(line.to_owned(), |line, (path, name)| {
            line.replace(&format!("file={path}/"), &format!("file={name}/"))
        });
        Ok(Seen::Quoted(vec![named]))
    }

    fn status(&self, target: Target, field: &str) -> Result<Seen, Unable> {
        let text = fs::read_to_string(format!("/proc/{}/status", target.pid))?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field).and_then(|rest| rest.strip_prefix(':')));
        Ok(Seen::Text(value.map_or_else(|| format!("no field {field}"), |v| v.trim().to_owned())))
    }

    /// What smaps says of the mappings that lie in a place.
    fn smaps(&self, target: Target, place: Place) -> Result<Vec<smaps::MappingSizes>, Unable> {
        let Some(span) = target.span(place) else { return Ok(Vec::new()) };
        let (start, end) = (span.start, span.start.saturating_add(span.bytes()));
        let mut sizes = smaps::read(&self.root, target.pid)?;
        sizes
            .retain(|sizes| sizes.mapping.range.start() < end && sizes.mapping.range.end() > start);
        Ok(sizes)
    }
}
