//! mmap, munmap, mprotect, mlock, mremap: what changes VMAs, and what that does to pages.

use crate::Machine;
use crate::errno::Errno;
use crate::memory::frames::{Order, PMD_ORDER, PMD_PAGES};
use crate::memory::hugetlb::is_hugetlb_order;
use crate::memory::owner::{FileId, Owner};
use crate::mm::address_space::MmId;
use crate::mm::file::FileKind;
use crate::mm::page_table::Entry;
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Protection, Vma, VmaScan, vm};
use crate::policy::mempolicy::PolicyMode;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// One past the highest address of user space.
pub const USER_LIMIT: u64 = 0x7fff_ffff_f000;
/// What mmap(2) is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Private anonymous memory.
    Anon,
    /// A shared mapping of a file, from this page offset.
    Shared(FileId, u64),
    /// A private mapping of a file, from this page offset.
    Private(FileId, u64),
}

/// Pages of a file that can be mapped: what the owner of a frame has room for.
const FILE_PAGES_MAX: u64 = 1 << 38;

/// Page number range of `length` bytes at `address`, rounded outwards.
pub(crate) const fn page_range(address: u64, length: u64) -> (u64, u64) {
    (address / PAGE_BYTES, address.saturating_add(length).div_ceil(PAGE_BYTES))
}

impl Machine {
    fn mm_of_live(&self, task: TaskId) -> Result<MmId, Errno> {
        self.mm_of(task).ok_or(Errno::ESRCH)
    }

    /// mmap(2) with MAP_FIXED_NOREPLACE: `pages` pages at byte address `address`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned, nothing is asked for, a file offset beyond 1 PiB, or a
    /// hugetlb mapping that is not made of whole pages of 2 MiB or 1 GiB. `ENOMEM`: the range is not
    /// free, or not enough hugetlb pages are left to be promised.
    ///
    /// Source: mmap(2).
    pub fn mmap(
        &mut self,
        task: TaskId,
        address: u64,
        pages: u64,
        kind: MapKind,
        protection: Protection,
    ) -> Result<(), Errno> {
        let mm = self.mm_of_live(task)?;
        let start = address / PAGE_BYTES;
        if !address.is_multiple_of(PAGE_BYTES) || pages == 0 {
            return Err(Errno::EINVAL);
        }
        let pages = self.whole_huge_pages(kind, pages);
        let end = start.checked_add(pages).ok_or(Errno::ENOMEM)?;
        let at = self.mm(mm).find_from(start);
        let taken = self.mm(mm).vmas.get(at).is_some_and(|vma| vma.start < end);
        if end > USER_LIMIT / PAGE_BYTES || taken {
            return Err(Errno::ENOMEM);
        }
        let (backing, pgoff, flags) = match kind {
            MapKind::Anon => (Backing::Anon, start, 0),
            MapKind::Shared(file, offset) => {
                (Backing::File { file, shared: true }, offset, self.vm_flags(file))
            }
            MapKind::Private(file, offset) => {
                (Backing::File { file, shared: false }, offset, self.vm_flags(file))
            }
        };
        if pgoff.checked_add(pages).is_none_or(|last| last > FILE_PAGES_MAX) {
            return Err(Errno::EINVAL);
        }
        self.reserve_hugetlb(task, backing, pgoff, pages)?;
        if let Backing::File { file, .. } = backing {
            let mappers = &mut self.file_mut(file).mappers;
            if !mappers.contains(&mm) {
                mappers.push(mm);
            }
        }
        self.mm_mut(mm).insert(Vma {
            start,
            end,
            pgoff,
            moved: 0,
            backing,
            protection,
            flags: flags | vm::SOFT_DIRTY,
            policy: None,
            scan: VmaScan::default(),
        });
        self.mm_mut(mm).merge(start, end);
        Ok(())
    }

    /// hugetlb memory is mapped in whole huge pages (`ksys_mmap_pgoff`).
    fn whole_huge_pages(&self, kind: MapKind, pages: u64) -> u64 {
        let (MapKind::Shared(file, _) | MapKind::Private(file, _)) = kind else { return pages };
        match self.file(file).kind {
            FileKind::Hugetlb(order) => pages.checked_next_multiple_of(1 << order).unwrap_or(pages),
            _ => pages,
        }
    }

    fn vm_flags(&self, file: FileId) -> u16 {
        match self.file(file).kind {
            FileKind::Hugetlb(_) => vm::HUGETLB,
            FileKind::Vdso => vm::DONT_SPLIT,
            FileKind::Vvar if self.behaviour.vvar_is_ordinary => vm::DONT_SPLIT,
            FileKind::Vvar => vm::DONT_SPLIT | vm::PFNMAP,
            FileKind::Secret => vm::LOCKED,
            _ => 0,
        }
    }

    fn reserve_hugetlb(
        &mut self,
        task: TaskId,
        backing: Backing,
        pgoff: u64,
        pages: u64,
    ) -> Result<(), Errno> {
        let Backing::File { file, shared } = backing else { return Ok(()) };
        let FileKind::Hugetlb(order) = self.file(file).kind else { return Ok(()) };
        if !is_hugetlb_order(order) || !pages.is_multiple_of(1 << order) {
            return Err(Errno::EINVAL);
        }
        let there = if shared {
            self.file(file).pages.range(pgoff..pgoff + pages).count() as u64
        } else {
            0
        };
        let needed = (pages >> order) - there;
        if needed > self.allowed_huge_pages(task, order) || !self.hugetlb.reserve(order, needed) {
            return Err(Errno::ENOMEM);
        }
        self.file_mut(file).reserved += needed;
        Ok(())
    }

    /// Free huge pages where a task may allocate: in its cpuset, and where its own BIND policy is
    /// (`allowed_mems_nr`).
    fn allowed_huge_pages(&self, task: TaskId, order: Order) -> u64 {
        let task = &self.tasks[&task];
        let mems = task.mems_allowed;
        let bind = task.policy.filter(|policy| policy.mode == PolicyMode::Bind);
        let bound = bind.map_or(mems, |policy| policy.nodes.intersection(&mems));
        let nodes = if bound.is_empty() { mems } else { bound };
        nodes.iter().map(|node| self.hugetlb_pool(node, order).1).sum()
    }

    /// munmap(2) of the pages in `[address, address + length)`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned, nothing is asked for, or a boundary is inside a mapping
    /// that cannot be cut there.
    ///
    /// Source: munmap(2).
    pub fn munmap(&mut self, task: TaskId, address: u64, length: u64) -> Result<(), Errno> {
        let (mm, start, end) = self.aligned_range(task, address, length)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let was_mapped = self.mm(mm).vmas.get(self.mm(mm).find_from(start));
        let was_mapped = was_mapped.is_some_and(|vma| vma.start < end);
        self.unmap_range(mm, start, end)?;
        if was_mapped {
            self.lru_drain_after_unmap(task);
        }
        Ok(())
    }

    pub(crate) fn unmap_range(&mut self, id: MmId, start: u64, end: u64) -> Result<(), Errno> {
        self.cut(id, start, end)?;
        self.zap(id, start, end);
        let mm = self.mm_mut(id);
        let from = mm.find_from(start);
        let upto = mm.vmas.partition_point(|vma| vma.start < end);
        let gone: Vec<Vma> = mm.vmas.drain(from..upto).collect();
        gone.iter().filter_map(Vma::file).for_each(|file| self.leave_file(file, id));
        self.release_tables(id, start, end);
        Ok(())
    }

    /// Makes `start` and `end` boundaries of VMAs; a THP that a boundary cuts is mapped by pages
    /// from then on (the folio stays).
    pub(crate) fn cut(&mut self, id: MmId, start: u64, end: u64) -> Result<(), Errno> {
        for page in [start, end] {
            let unit = self.mm(id).vma(page).map_or(1, |vma| self.unit_pages(vma));
            self.mm_mut(id).split_at(page, unit).map_err(|_| Errno::EINVAL)?;
            if !page.is_multiple_of(u64::from(PMD_PAGES)) {
                self.split_pmd(id, page >> PMD_ORDER);
            }
        }
        Ok(())
    }

    /// mprotect(2) of `[address, address + length)`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned, or a boundary cannot be cut. `ENOMEM`: there is a
    /// hole.
    pub fn mprotect(
        &mut self,
        task: TaskId,
        address: u64,
        length: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        self.change_vmas(task, address, length, |vma| vma.protection = protection)?;
        let mm = self.mm_of_live(task)?;
        let (start, end) = page_range(address, length);
        self.rewrite_entries(mm, start, end, |entry| {
            if protection.write { entry } else { entry.without(Entry::WRITE) }
        });
        Ok(())
    }

    /// The address space of a task, and the pages of a range of it that begins with a page.
    pub(super) fn aligned_range(
        &self,
        task: TaskId,
        address: u64,
        length: u64,
    ) -> Result<(MmId, u64, u64), Errno> {
        let id = self.mm_of_live(task)?;
        if !address.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL);
        }
        let (start, end) = page_range(address, length);
        Ok((id, start, end))
    }

    /// Applies `change` to the VMAs of a range without holes, cutting and joining as needed.
    pub(crate) fn change_vmas(
        &mut self,
        task: TaskId,
        address: u64,
        length: u64,
        change: impl Fn(&mut Vma),
    ) -> Result<(), Errno> {
        let (id, start, end) = self.aligned_range(task, address, length)?;
        if start == end {
            return Ok(());
        }
        self.cut(id, start, end)?;
        let mm = self.mm_mut(id);
        let mut page = start;
        for vma in &mut mm.vmas {
            if vma.start == page && page < end {
                change(vma);
                page = vma.end;
            }
        }
        mm.merge(start, end);
        if page < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// mremap(2) that moves a whole mapping of private anonymous memory to a free place.
    ///
    /// # Errors
    ///
    /// `EINVAL`: an address is not aligned, or the range is no whole mapping of that kind.
    /// `ENOMEM`: the new place is not free.
    pub fn mremap(&mut self, task: TaskId, from: u64, to: u64) -> Result<(), Errno> {
        let id = self.mm_of_live(task)?;
        let (from, to) = (from / PAGE_BYTES, to / PAGE_BYTES);
        let shift = to.cast_signed() - from.cast_signed();
        let found = self.mm(id).find(from).ok_or(Errno::EINVAL)?;
        let vma = self.mm(id).vmas[found].clone();
        let plain = vma.start == from && vma.backing == Backing::Anon;
        if !plain || !shift.unsigned_abs().is_multiple_of(u64::from(PMD_PAGES)) {
            return Err(Errno::EINVAL);
        }
        let end = to + vma.pages();
        let at = self.mm(id).find_from(to);
        if self.mm(id).vmas.get(at).is_some_and(|next| next.start < end) {
            return Err(Errno::ENOMEM);
        }
        let mut entries = Vec::new();
        self.cut(id, vma.start, vma.end)?;
        for page in vma.start..vma.end {
            let (entry, by_pmd) = self.entry(id, page);
            if entry != Entry::NONE && (!by_pmd || page.is_multiple_of(u64::from(PMD_PAGES))) {
                entries.push((page, entry, by_pmd));
            }
        }
        self.clear_entries(id, &entries);
        self.release_tables(id, vma.start, vma.end);
        let mm = self.mm_mut(id);
        mm.vmas.remove(found);
        mm.has_moved = true;
        mm.insert(Vma { start: to, end, moved: vma.moved + shift, ..vma });
        for (page, entry, by_pmd) in entries {
            let page = page.wrapping_add_signed(shift);
            if let (Some(pfn), false) = (entry.mapped(), by_pmd)
                && let Owner::Ksm { node } = self.frames.owner(pfn)
            {
                self.ksm.forget(node, id, page.wrapping_add_signed(-shift));
                self.ksm.add(node, id, page);
            }
            if by_pmd {
                self.set_pmd(id, page >> PMD_ORDER, entry);
            } else {
                self.set_pte(id, page, entry);
            }
        }
        Ok(())
    }
}
