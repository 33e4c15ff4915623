//! madvise(2), as far as it matters for where pages are.

use crate::Machine;
use crate::errno::Errno;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::mm::address_space::MmId;
use crate::mm::fault::Access;
use crate::mm::mapping::{PAGE_BYTES, USER_LIMIT, page_range};
use crate::mm::page_table::Entry;
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};

/// The advice that the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// MADV_DONTNEED: the pages are given up.
    DontNeed,
    /// MADV_HUGEPAGE: THPs are welcome.
    HugePage,
    /// MADV_NOHUGEPAGE: they are not.
    NoHugePage,
    /// MADV_MERGEABLE: KSM may look at the pages.
    Mergeable,
    /// MADV_COLD: reclaim these first.
    Cold,
    /// MADV_PAGEOUT: reclaim these now; without swap, anonymous pages stay.
    PageOut,
    /// MADV_COLLAPSE: make THPs of what is there.
    Collapse,
    /// MADV_POPULATE_READ.
    PopulateRead,
    /// MADV_POPULATE_WRITE.
    PopulateWrite,
}

/// The part of a mapping that an advice is for, in pages, and who gives it.
pub(super) struct Part<'a> {
    pub(super) task: TaskId,
    pub(super) mm: MmId,
    pub(super) vma: &'a Vma,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Gives an advice to a part of a mapping.
type AdvisePart = fn(&mut Machine, &Part<'_>) -> Result<(), Errno>;

impl Machine {
    /// madvise(2) of `[address, address + length)`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned, or a unit cannot be collapsed. `EAGAIN`: something
    /// holds a page of such a unit. `ENOMEM`: there is a hole, or no memory. `EFAULT`: a page has no
    /// backing.
    ///
    /// Source: madvise(2).
    pub fn madvise(
        &mut self,
        task: TaskId,
        address: u64,
        length: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        let mm = self.mm_of(task).ok_or(Errno::ESRCH)?;
        let (start, end) = page_range(address, length);
        let flag_vmas = |machine: &mut Self, set: u16, clear: u16| {
            machine.change_vmas(task, address, length, |vma| vma.flags = vma.flags & !clear | set)
        };
        match advice {
            Advice::HugePage => flag_vmas(self, vm::HUGEPAGE, vm::NO_HUGEPAGE),
            Advice::NoHugePage => flag_vmas(self, vm::NO_HUGEPAGE, vm::HUGEPAGE),
            Advice::Mergeable => flag_vmas(self, vm::MERGEABLE, 0),
            Advice::DontNeed => self.advise_each(task, mm, (start, end), Self::discard_of),
            Advice::Cold => self.advise_each(task, mm, (start, end), Self::cool_of),
            Advice::PageOut => self.advise_each(task, mm, (start, end), Self::page_out_of),
            Advice::Collapse => self.advise_each(task, mm, (start, end), Self::collapse_of),
            Advice::PopulateRead => self.populate(task, address, length, Some(Access::Read)),
            Advice::PopulateWrite => self.populate(task, address, length, Some(Access::Write)),
        }
    }

    /// Takes the advice mapping by mapping: the first that cannot take it ends the call, and a hole
    /// is told in the end (`madvise_walk_vmas`).
    fn advise_each(
        &mut self,
        task: TaskId,
        mm: MmId,
        (start, end): (u64, u64),
        advise: AdvisePart,
    ) -> Result<(), Errno> {
        if start == end {
            return Ok(());
        }
        let vmas: Vec<Vma> = {
            let mm = self.mm(mm);
            let from = mm.find_from(start);
            mm.vmas[from..].iter().take_while(|vma| vma.start < end).cloned().collect()
        };
        let mut page = start;
        let mut has_hole = false;
        for vma in vmas {
            has_hole |= vma.start > page;
            page = vma.end;
            let (start, end) = (vma.start.max(start), vma.end.min(end));
            advise(self, &Part { task, mm, vma: &vma, start, end })?;
        }
        if has_hole || page < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `madvise_dontneed_free_valid_vma`: locked memory keeps its pages; of hugetlb memory only
    /// whole pages go, and the range begins with one.
    fn discard_of(&mut self, part: &Part<'_>) -> Result<(), Errno> {
        let mut end = part.end;
        if part.vma.has(vm::HUGETLB) {
            let unit = self.unit_pages(part.vma);
            if !part.start.is_multiple_of(unit) {
                return Err(Errno::EINVAL);
            }
            end = end / unit * unit;
        } else if part.vma.has(vm::PFNMAP | vm::LOCKED) {
            return Err(Errno::EINVAL);
        }
        self.lru_drain_after_unmap(part.task);
        self.discard(part.mm, part.start, end);
        Ok(())
    }

    fn cool_of(&mut self, part: &Part<'_>) -> Result<(), Errno> {
        self.page_out_of(part)?;
        let cpu = self.tasks[&part.task].cpu;
        for page in part.start..part.end {
            let Some(pfn) = self.entry(part.mm, page).0.mapped() else { continue };
            let head = self.frames.head(pfn);
            if self.frames.total_mapcount(head) == 1 {
                self.lru_deactivate(head, cpu);
            }
        }
        Ok(())
    }

    /// `can_madv_lru_vma`; without swap the pages become cold and stay.
    fn page_out_of(&mut self, part: &Part<'_>) -> Result<(), Errno> {
        if part.vma.has(vm::PFNMAP | vm::LOCKED | vm::HUGETLB) {
            return Err(Errno::EINVAL);
        }
        self.drain_lru_batch(part.task);
        self.split_cut_folios(part.mm, part.start, part.end);
        self.make_cold(part.mm, part.start, part.end);
        Ok(())
    }

    pub(crate) fn discard(&mut self, mm: MmId, start: u64, end: u64) {
        for page in [start, end] {
            if !page.is_multiple_of(u64::from(PMD_PAGES)) {
                self.split_pmd(mm, page >> PMD_ORDER);
            }
        }
        if start < end {
            self.zap(mm, start, end);
        }
        if self.behaviour.discard_frees_tables {
            let unit = u64::from(PMD_PAGES);
            self.release_tables(mm, start.next_multiple_of(unit), end / unit * unit);
        }
    }

    /// A large folio that the range cuts is split first, unless others map it too.
    fn split_cut_folios(&mut self, mm: MmId, start: u64, end: u64) {
        for page in [start, end] {
            let (entry, _) = self.entry(mm, page);
            let Some(pfn) = entry.mapped() else { continue };
            let head = self.frames.head(pfn);
            let first = page - u64::from(pfn.0 - head.0);
            let is_cut = first < page && self.frames.owner(head).is_anon();
            if is_cut && !self.is_shared_folio(head) {
                // A pinned one stays whole. Pages that became the zero page are free now.
                let parts = self.split_folio(head).unwrap_or_default();
                parts.into_iter().for_each(|part| self.free_if_unused(part));
            }
        }
    }

    fn make_cold(&mut self, mm: MmId, start: u64, end: u64) {
        self.rewrite_entries(mm, start, end, |entry| entry.without(Entry::YOUNG));
        for page in start..end {
            if let Some(pfn) = self.entry(mm, page).0.mapped() {
                self.frames.clear(self.frames.head(pfn), flag::ACTIVE | flag::REFERENCED);
            }
        }
    }

    /// Writes 4 to `/proc/PID/clear_refs`: no page of the process is soft-dirty any more, and the
    /// next store to each faults.
    ///
    /// Source: proc_pid_clear_refs(5).
    pub fn clear_soft_dirty(&mut self, task: TaskId) {
        let Some(mm) = self.mm_of(task) else { return };
        self.mm_mut(mm).vmas.iter_mut().for_each(|vma| vma.flags &= !vm::SOFT_DIRTY);
        let end = USER_LIMIT / PAGE_BYTES;
        self.rewrite_entries(mm, 0, end, |entry| entry.without(Entry::SOFT_DIRTY | Entry::WRITE));
    }
}
