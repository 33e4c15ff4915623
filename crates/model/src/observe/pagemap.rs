//! Pages one by one: `/proc/PID/pagemap`, the sums of smaps, and `/proc/kpageflags`.

use crate::Machine;
use crate::memory::frames::flag;
use crate::memory::owner::Owner;
use crate::mm::mapping::{PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::vm;

/// The bits of a pagemap entry that do not name a frame (spec 11.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PagemapEntry {
    /// Bit 63.
    pub present: bool,
    /// Bit 61: a file or shared memory.
    pub file: bool,
    /// Bit 56: mapped exactly once.
    pub exclusive: bool,
    /// Bit 55.
    pub soft_dirty: bool,
}

/// Sums of `/proc/PID/smaps` over a range, in kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Smaps {
    /// `Rss`.
    pub rss: u64,
    /// `Anonymous`.
    pub anonymous: u64,
    /// `Locked`: pages of locked mappings, divided among their users.
    pub locked: u64,
}

impl Machine {
    /// The pagemap entry of the page at an address.
    pub fn pagemap(&self, task: TaskId, address: u64) -> PagemapEntry {
        let Some(mm) = self.mm_of(task) else { return PagemapEntry::default() };
        let page = address / PAGE_BYTES;
        let (entry, _) = self.entry(mm, page);
        let fresh = self.mm(mm).vma(page).is_some_and(|vma| vma.has(vm::SOFT_DIRTY));
        let mut bits = PagemapEntry {
            present: matches!(entry.kind(), EntryKind::Zero | EntryKind::Special),
            soft_dirty: fresh || entry.has(Entry::SOFT_DIRTY),
            ..PagemapEntry::default()
        };
        if let Some(pfn) = entry.mapped() {
            bits.present = true;
            bits.exclusive = self.frames.page_mapcount(pfn) == 1;
            let owner = self.frames.owner(self.frames.head(pfn));
            bits.file = matches!(owner, Owner::File { .. });
        }
        bits
    }

    /// Sums of smaps over `[address, address + length)`.
    pub fn smaps(&self, task: TaskId, address: u64, length: u64) -> Smaps {
        let Some(mm) = self.mm_of(task) else { return Smaps::default() };
        let (start, end) = page_range(address, length);
        let (mut rss, mut anonymous, mut locked) = (0, 0, 0);
        for page in start..end {
            let Some(pfn) = self.entry(mm, page).0.mapped() else { continue };
            rss += 4;
            let owner = self.frames.owner(self.frames.head(pfn));
            anonymous += if owner.is_anon() { 4 } else { 0 };
            if self.mm(mm).vma(page).is_some_and(|vma| vma.has(vm::LOCKED)) {
                locked += (PAGE_BYTES << 12) / u64::from(self.frames.page_mapcount(pfn).max(1));
            }
        }
        Smaps { rss, anonymous, locked: (locked >> 12) / 1024 }
    }

    /// Whether the page at an address is one that KSM merged (bit 21 of `/proc/kpageflags`).
    pub fn is_ksm_page(&self, task: TaskId, address: u64) -> bool {
        let mm = self.mm_of(task);
        let pfn = mm.and_then(|mm| self.entry(mm, address / PAGE_BYTES).0.mapped());
        pfn.is_some_and(|pfn| {
            self.frames.order(pfn) == 0
                && !self.frames.has(pfn, flag::RESERVED)
                && self.frames.owner(pfn).is_ksm()
        })
    }
}
