//! madvise(2), as far as it matters for where pages are.

use crate::Machine;
use crate::errno::Errno;
use crate::memory::alloc::Wanted;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, WRITTEN};
use crate::mm::mapping::{PAGE_BYTES, USER_LIMIT, page_range};
use crate::mm::page_table::Entry;
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Vma, vm};

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

/// Gives an advice to the part of a mapping that it is for.
type AdviseVma = fn(&mut Machine, MmId, &Vma, (u64, u64)) -> Result<(), Errno>;

impl Machine {
    /// madvise(2) of `[address, address + length)`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned, or nothing could be collapsed. `ENOMEM`: there is a
    /// hole, or no memory. `EFAULT`: a page has no backing.
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
            Advice::DontNeed => self.advise_each(mm, (start, end), Self::discard_of),
            Advice::Cold | Advice::PageOut => self.advise_each(mm, (start, end), Self::cool_of),
            Advice::Collapse => self.collapse(task, mm, start, end),
            Advice::PopulateRead => self.populate(task, address, length, Some(Access::Read)),
            Advice::PopulateWrite => self.populate(task, address, length, Some(Access::Write)),
        }
    }

    /// Takes the advice mapping by mapping: the first that cannot take it ends the call, and a hole
    /// is told in the end (`madvise_walk_vmas`).
    fn advise_each(
        &mut self,
        mm: MmId,
        (start, end): (u64, u64),
        advise: AdviseVma,
    ) -> Result<(), Errno> {
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
            advise(self, mm, &vma, (vma.start.max(start), vma.end.min(end)))?;
        }
        if has_hole || page < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `madvise_dontneed_free_valid_vma`: locked memory keeps its pages; of hugetlb memory only
    /// whole pages go, and the range begins with one.
    fn discard_of(&mut self, mm: MmId, vma: &Vma, (start, end): (u64, u64)) -> Result<(), Errno> {
        if !vma.has(vm::HUGETLB) {
            if vma.has(vm::PFNMAP) || vma.has(vm::LOCKED) {
                return Err(Errno::EINVAL);
            }
            self.discard(mm, start, end);
            return Ok(());
        }
        let unit = self.unit_pages(vma);
        if !start.is_multiple_of(unit) {
            return Err(Errno::EINVAL);
        }
        self.discard(mm, start, end / unit * unit);
        Ok(())
    }

    /// `can_madv_lru_vma`.
    fn cool_of(&mut self, mm: MmId, vma: &Vma, (start, end): (u64, u64)) -> Result<(), Errno> {
        if vma.has(vm::PFNMAP) || vma.has(vm::LOCKED) || vma.has(vm::HUGETLB) {
            return Err(Errno::EINVAL);
        }
        self.split_cut_folios(mm, start, end);
        self.make_cold(mm, start, end);
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
        for at in 0..self.mm(mm).vmas.len() {
            let (from, upto) = {
                let vma = &self.mm(mm).vmas[at];
                (vma.start.max(start), vma.end.min(end))
            };
            for page in from..upto {
                if let Some(pfn) = self.entry(mm, page).0.mapped() {
                    self.frames.clear(self.frames.head(pfn), flag::ACTIVE | flag::REFERENCED);
                }
            }
        }
    }

    fn collapse(&mut self, task: TaskId, mm: MmId, start: u64, end: u64) -> Result<(), Errno> {
        let vma = self.mm(mm).vma(start).ok_or(Errno::ENOMEM)?;
        let last_unit = vma.end >> PMD_ORDER << PMD_ORDER;
        let has_room = last_unit >= vma.start + u64::from(PMD_PAGES);
        if !has_room || (vma.backing == Backing::Anon && vma.flags & vm::HAD_ANON == 0) {
            return Err(Errno::EINVAL);
        }
        self.lru_drain_all();
        let (first, end) =
            (start.next_multiple_of(u64::from(PMD_PAGES)) >> PMD_ORDER, end >> PMD_ORDER);
        if end < first && !self.behaviour.collapse_of_no_unit_succeeds {
            return Err(Errno::EINVAL);
        }
        // All whole units of the range, which may be none (`madvise_collapse`).
        let mut all = true;
        for unit in first..end {
            all &= self.collapse_unit(task, mm, unit)?;
        }
        if all { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Copies 512 pages into one THP, on the node that has most of them.
    fn collapse_unit(&mut self, task: TaskId, mm: MmId, unit: u64) -> Result<bool, Errno> {
        let page = unit << PMD_ORDER;
        let vma = self.mm(mm).vma(page).ok_or(Errno::ENOMEM)?.clone();
        let Some(table) = self.mm(mm).table(unit) else { return Ok(self.entry(mm, page).1) };
        let fits = vma.start <= page && page + u64::from(PMD_PAGES) <= vma.end;
        if vma.backing != Backing::Anon || !fits {
            return Ok(false);
        }
        let old: Vec<Entry> = self.tables.entries(table).to_vec();
        let Some(target) = self.node_of_most(&old) else { return Ok(false) };
        let by = self.allocator(task);
        let wanted = Wanted {
            order: PMD_ORDER,
            start: target,
            this_node: true,
            nodes: None,
            mems: by.mems.as_ref(),
            cpu: by.cpu,
            movable: true,
        };
        let head = self.allocate(&wanted).ok_or(Errno::ENOMEM)?;
        for (at, entry) in (0..).zip(&old) {
            if let Some(pfn) = entry.mapped() {
                self.frames.copy_tokens(pfn, head.plus(at), 1);
            }
        }
        self.zap(mm, page, page + u64::from(PMD_PAGES));
        self.tables.release(table);
        self.mm_mut(mm).set_pmd(unit, Entry::NONE, 0);
        let family = self.mm(mm).family;
        let index = page.wrapping_add_signed(-vma.moved);
        self.frames.set_owner(head, Owner::Anon { family, index });
        self.frames.set(head, flag::SWAP_BACKED | flag::EXCLUSIVE);
        self.map_folio(mm, &vma, unit, head, WRITTEN);
        self.lru_add(head, self.tasks[&task].cpu);
        Ok(true)
    }

    /// The node that has most of these pages; `None` when one of them cannot be collapsed.
    fn node_of_most(&self, entries: &[Entry]) -> Option<Slot> {
        let mut pages = vec![0u32; self.nodes.list.len()];
        let single = |pfn: Pfn| {
            self.frames.order(pfn) == 0
                && self.frames.mapcount(pfn) == 1
                && self.frames.extra_references(pfn) == 0
        };
        for pfn in entries.iter().filter_map(|entry| entry.mapped()) {
            if !single(pfn) {
                return None;
            }
            pages[self.nodes.slot_of(pfn).index()] += 1;
        }
        let most = *pages.iter().max()?;
        let slot = self.nodes.slots().find(|slot| pages[slot.index()] == most)?;
        (most > 0).then_some(slot)
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
