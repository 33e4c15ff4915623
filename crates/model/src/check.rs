//! Every promise that a machine keeps between two steps.
//!
//! Tests call [`Machine::check`] after each step; nothing else does. It walks every page table and
//! every frame.

use std::collections::BTreeMap;

use machine::NodeId;

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::page_table::{Entry, EntryKind, hot_byte};

/// The first promise that was found broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Broken {
    /// An entry is still a migration entry.
    #[error("page {page:#x} is still in flight")]
    InFlight { page: u64 },
    /// A page table maps a frame that nobody allocated.
    #[error("page {page:#x} maps the free frame {frame:?}")]
    MapsFreeFrame { page: u64, frame: Pfn },
    /// The hot byte of an entry does not follow from it.
    #[error("page {page:#x} has hot byte {hot:#x} instead of {expected:#x}")]
    HotByte { page: u64, hot: u8, expected: u8 },
    /// The map count of a page is not the number of entries that map it.
    #[error("frame {frame:?} is mapped by {mapped} entries and counts {counted}")]
    Mapcount { frame: Pfn, mapped: u32, counted: u32 },
    /// The reverse map does not find every entry of a folio.
    #[error("folio {folio:?}: the reverse map finds {found} of {mapped} entries")]
    ReverseMap { folio: Pfn, found: usize, mapped: usize },
    /// A page of a large folio disagrees with its head.
    #[error("frame {frame:?} is no tail of its folio")]
    Tail { frame: Pfn },
    /// The references of a folio are not those that tasks and batches hold.
    #[error("folio {folio:?}: tasks and batches hold {held} references, it counts {counted}")]
    References { folio: Pfn, held: u32, counted: u32 },
    /// A folio is isolated though no migration runs.
    #[error("folio {folio:?} is isolated")]
    Isolated { folio: Pfn },
    /// A folio waits in no LRU batch and is on no LRU, or says so of itself.
    #[error("folio {folio:?} is neither on the LRU nor in a batch")]
    Lru { folio: Pfn },
    /// A folio that nobody uses.
    #[error("folio {folio:?} is allocated and used by nobody")]
    Leaked { folio: Pfn },
    /// A frame is free and allocated, or neither.
    #[error("frame {frame:?}: free is {free}, allocated is {allocated}")]
    Frame { frame: Pfn, free: bool, allocated: bool },
    /// The free count of a zone is wrong.
    #[error("node {node}: a zone counts {counted} free frames and has {free}")]
    FreeCount { node: NodeId, counted: u64, free: u64 },
    /// A page of a file does not say so.
    #[error("frame {frame:?} is cached at page {offset} of a file and belongs elsewhere")]
    Cache { frame: Pfn, offset: u64 },
    /// Allocations of a node do not add up.
    #[error("node {node}: hit + miss is {placed}, local + other is {located}")]
    Statistics { node: NodeId, placed: u64, located: u64 },
}

/// Entries that map each frame, and each folio as a whole.
struct Found {
    pages: Vec<u32>,
    folios: BTreeMap<Pfn, u32>,
}

impl Machine {
    /// Checks every promise. Linear in frames and page-table entries.
    ///
    /// # Errors
    ///
    /// The first promise that is broken, in the order of `docs/model.md`, "Promises".
    pub fn check(&self) -> Result<(), Broken> {
        let found = self.check_page_tables()?;
        self.check_files()?;
        self.check_frames(&found)?;
        self.check_references()?;
        self.check_nodes()
    }

    fn check_page_tables(&self) -> Result<Found, Broken> {
        let mut found = Found { pages: vec![0; self.frames.len()], folios: BTreeMap::new() };
        for (id, mm) in (0..).map(MmId).zip(&self.mms) {
            let Some(mm) = mm else { continue };
            for (unit, pmd) in mm.units() {
                let first = unit * Self::UNIT_PAGES;
                if pmd.kind() == EntryKind::Table {
                    let entries = self.tables.entries(pmd.table_id());
                    let hot = mm.hot_from(first);
                    for ((page, &entry), &hot) in (first..).zip(entries).zip(hot) {
                        self.check_entry(id, page, entry, hot)?;
                        if let Some(pfn) = entry.mapped() {
                            found.pages[pfn.index()] += 1;
                        }
                    }
                    continue;
                }
                self.check_entry(id, first, pmd, mm.hot_from(first)[0])?;
                if let Some(pfn) = pmd.mapped().filter(|&pfn| self.frames.head(pfn) == pfn) {
                    *found.folios.entry(pfn).or_default() += 1;
                }
            }
        }
        Ok(found)
    }

    fn check_entry(&self, mm: MmId, page: u64, entry: Entry, hot: u8) -> Result<(), Broken> {
        if entry.kind() == EntryKind::Migration {
            return Err(Broken::InFlight { page });
        }
        let Some(frame) = entry.mapped() else { return Ok(()) };
        if !self.frames.has(frame, flag::ALLOCATED) {
            return Err(Broken::MapsFreeFrame { page, frame });
        }
        let accessible = self.mm(mm).vma(page).is_some_and(|vma| vma.protection.is_accessible());
        let expected = hot_byte(entry, accessible, self.nodes.slot_of(frame));
        if hot == expected { Ok(()) } else { Err(Broken::HotByte { page, hot, expected }) }
    }

    fn check_files(&self) -> Result<(), Broken> {
        for (file, cache) in self.files.iter().enumerate().map(|(at, file)| (at, &file.pages)) {
            for (&offset, &frame) in cache {
                let belongs = matches!(self.frames.owner(frame),
                    Owner::File { file: owner, index } if owner.0 as usize == file && index == offset);
                if !belongs {
                    return Err(Broken::Cache { frame, offset });
                }
            }
        }
        Ok(())
    }

    fn check_frames(&self, found: &Found) -> Result<(), Broken> {
        let pools: std::collections::BTreeSet<Pfn> =
            self.hugetlb.free_pages().map(|(_, page)| page).collect();
        let mut next = 0;
        for zone in self.nodes.list.iter().flat_map(|node| &node.zones) {
            for frame in (zone.start.0..zone.start.0 + zone.pages).map(Pfn) {
                let (free, flags) = (zone.is_free(frame), self.frames.flags(frame));
                let allocated = flags & flag::ALLOCATED != 0;
                if free == allocated {
                    return Err(Broken::Frame { frame, free, allocated });
                }
                if !allocated {
                    continue;
                }
                let (mapped, counted) = (found.pages[frame.index()], self.frames.mapcount(frame));
                if mapped != counted {
                    return Err(Broken::Mapcount { frame, mapped, counted });
                }
                if frame.0 < next {
                    if self.frames.head(frame).0 + self.frames.pages(frame) != next {
                        return Err(Broken::Tail { frame });
                    }
                    continue;
                }
                next = frame.0 + self.frames.pages(frame);
                self.check_folio(frame, found, pools.contains(&frame))?;
            }
        }
        Ok(())
    }

    fn check_folio(&self, folio: Pfn, found: &Found, pooled: bool) -> Result<(), Broken> {
        if self.reclaim.withdrawn.contains(&folio) {
            return Ok(());
        }
        let whole = found.folios.get(&folio).copied().unwrap_or(0);
        let counted = self.frames.entire_mapcount(folio);
        if whole != counted {
            return Err(Broken::Mapcount { frame: folio, mapped: whole, counted });
        }
        let from = folio.index();
        let pages = &found.pages[from..from + self.frames.pages(folio) as usize];
        let mapped = whole as usize + pages.iter().map(|&entries| entries as usize).sum::<usize>();
        if mapped > 0 {
            let mut mappings = Vec::new();
            self.mappings(folio, &mut mappings);
            if mappings.len() != mapped {
                return Err(Broken::ReverseMap { folio, found: mappings.len(), mapped });
            }
        }
        let flags = self.frames.flags(folio);
        if flags & flag::ISOLATED != 0 {
            return Err(Broken::Isolated { folio });
        }
        let cached = matches!(self.frames.owner(folio), Owner::File { .. });
        let used = mapped > 0 || cached || pooled || self.frames.extra_references(folio) > 0;
        if !used {
            return Err(Broken::Leaked { folio });
        }
        let listed = flags & flag::LRU != 0;
        let batched = self.lru_batches.iter().flatten().any(|&pfn| pfn == folio);
        let says_batched = flags & flag::IN_LRU_BATCH != 0;
        let placed = pooled || self.is_kernel_page(folio) || listed != batched;
        if batched != says_batched || !placed { Err(Broken::Lru { folio }) } else { Ok(()) }
    }

    /// Pages of the vdso and its data are on no list.
    fn is_kernel_page(&self, folio: Pfn) -> bool {
        matches!(self.frames.owner(folio), Owner::File { file, .. }
            if file == self.vdso || file == self.vvar)
    }

    fn check_references(&self) -> Result<(), Broken> {
        let mut held: BTreeMap<Pfn, u32> = BTreeMap::new();
        let pinned = self.tasks.values().flat_map(|task| &task.pins);
        for &page in pinned.chain(self.cold_batches.iter().flatten()) {
            *held.entry(page).or_default() += 1;
        }
        for (&folio, &held) in &held {
            let counted = self.frames.extra_references(folio);
            if counted != held {
                return Err(Broken::References { folio, held, counted });
            }
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), Broken> {
        for node in &self.nodes.list {
            for zone in &node.zones {
                let (counted, free) = (zone.free, zone.count_free());
                if counted != free {
                    return Err(Broken::FreeCount { node: node.id, counted, free });
                }
            }
            let stats = node.stats;
            let (placed, located) = (stats.hit + stats.miss, stats.local + stats.other);
            if placed != located {
                return Err(Broken::Statistics { node: node.id, placed, located });
            }
        }
        Ok(())
    }
}
