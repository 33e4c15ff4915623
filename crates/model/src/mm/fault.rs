//! Page faults of base pages: first touch, copy on write, page cache, and what leads to them.
//!
//! [`Machine::access`] is what a load or a store does. A page that is mapped answers from its hot
//! byte; everything else comes here, in the kernel's order of cases (`handle_mm_fault`).

use crate::Machine;
use crate::errno::Errno;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::file::FileKind;
use crate::mm::mapping::{PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Vma, vm};
use crate::version::LargeReuse;

/// What an access does to its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// The signal or end that an access leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No mapping there, or its protection forbids the access.
    #[error("SIGSEGV: no mapping that allows the access")]
    Segv,
    /// The mapping has no page to give: a hugetlb pool is empty.
    #[error("SIGBUS: the mapping has no page to give")]
    Bus,
    /// No node that the policy and the cpuset allow has memory.
    #[error("out of memory: no node that is allowed has a free page")]
    OutOfMemory,
}

/// Flags of an entry that has just been written through.
pub(crate) const WRITTEN: u64 = Entry::WRITE | Entry::DIRTY | Entry::YOUNG | Entry::SOFT_DIRTY;
/// Pages around a file fault that are mapped with it, if they are cached.
const FAULT_AROUND: u64 = 16;

impl Machine {
    /// A load or store of `task` at byte address `address`.
    ///
    /// # Errors
    ///
    /// What the access leads to instead: see [`Fault`].
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn access(&mut self, task: TaskId, address: u64, access: Access) -> Result<(), Fault> {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let page = address / PAGE_BYTES;
        if self.is_fast(mm, page, access) {
            return Ok(());
        }
        self.fault(task, mm, page, access)
    }

    /// A store of a whole page: its content is `token` afterwards. Zero is a page of zeroes.
    ///
    /// # Errors
    ///
    /// As [`Machine::access`].
    ///
    /// # Panics
    ///
    /// As [`Machine::access`].
    pub fn write(&mut self, task: TaskId, address: u64, token: u32) -> Result<(), Fault> {
        self.access(task, address, Access::Write)?;
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let pfn = self.entry(mm, address / PAGE_BYTES).0.mapped();
        self.frames.set_token(pfn.expect("a page that was written is mapped"), token);
        Ok(())
    }

    /// A load of a whole page: its content.
    ///
    /// # Errors
    ///
    /// As [`Machine::access`].
    ///
    /// # Panics
    ///
    /// As [`Machine::access`].
    pub fn read(&mut self, task: TaskId, address: u64) -> Result<u32, Fault> {
        self.access(task, address, Access::Read)?;
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let pfn = self.entry(mm, address / PAGE_BYTES).0.mapped();
        Ok(pfn.map_or(0, |pfn| self.frames.token(pfn)))
    }

    /// Brings in all pages of a range, as MAP_POPULATE and mlock do: writing to private pages that
    /// may be written, reading others, unless `access` says which.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: a hole, or no memory. `EFAULT`: a page that has no backing, or may not be
    /// accessed.
    pub fn populate(
        &mut self,
        task: TaskId,
        address: u64,
        length: u64,
        access: Option<Access>,
    ) -> Result<(), Errno> {
        let mm = self.mm_of(task).ok_or(Errno::ESRCH)?;
        let (start, end) = page_range(address, length);
        let mut next = start;
        while next < end {
            let page = next;
            next = page + self.populate_table(task, mm, page, end, access)?.max(1);
            if next > page + 1 {
                continue;
            }
            let vma = self.mm(mm).vma(page).ok_or(Errno::ENOMEM)?;
            let writes = vma.protection.write && !vma.is_shared();
            let access = access.unwrap_or(if writes { Access::Write } else { Access::Read });
            if access == Access::Read && !vma.protection.read {
                continue;
            }
            self.access(task, page * PAGE_BYTES, access).map_err(|fault| match fault {
                Fault::OutOfMemory => Errno::ENOMEM,
                Fault::Segv | Fault::Bus => Errno::EFAULT,
            })?;
        }
        if start < end {
            self.drain_lru_batch(task);
        }
        Ok(())
    }

    /// First touches of many untouched pages at once: what is left of one table, as long as they
    /// are anonymous base pages that are written. How many pages; 0: they need real faults.
    fn populate_table(
        &mut self,
        task: TaskId,
        mm: MmId,
        page: u64,
        end: u64,
        access: Option<Access>,
    ) -> Result<u64, Errno> {
        let unit = page >> PMD_ORDER;
        let Some(vma) = self.mm(mm).vma(page) else { return Ok(0) };
        let writes = vma.protection.write && access != Some(Access::Read);
        let empty = self.mm(mm).pmd(unit) == Entry::NONE;
        if vma.backing != Backing::Anon || !writes || !empty || self.takes_thp(vma, unit) {
            return Ok(0);
        }
        let vma = vma.clone();
        let by = self.allocator(task);
        let mut placing = self.placing(task, &vma, page, 0);
        let (family, cpu) = (self.mm(mm).family, self.tasks[&task].cpu);
        let end = end.min(vma.end).min((unit + 1) << PMD_ORDER);
        self.mm_mut(mm).note_anon(page);
        for page in page..end {
            placing.index = self.interleave_index(&vma, page, 0);
            let pfn = self.allocate_by(&by, &placing, 0).ok_or(Errno::ENOMEM)?;
            let index = page.wrapping_add_signed(-vma.moved);
            self.frames.set_owner(pfn, Owner::Anon { family, index });
            self.frames.set(pfn, flag::SWAP_BACKED | flag::EXCLUSIVE);
            self.lru_add(pfn, cpu);
            self.map_page(mm, &vma, page, pfn, WRITTEN);
        }
        Ok(end - page)
    }

    fn fault(&mut self, task: TaskId, mm: MmId, page: u64, access: Access) -> Result<(), Fault> {
        let vma = self.mm(mm).vma(page).ok_or(Fault::Segv)?;
        let allowed = match access {
            Access::Read => vma.protection.read,
            Access::Write => vma.protection.write,
        };
        if !allowed {
            return Err(Fault::Segv);
        }
        let vma = vma.clone();
        if vma.has(vm::HUGETLB) {
            return self.hugetlb_fault(task, mm, &vma, page, access);
        }
        if self.mm(mm).pmd(page >> PMD_ORDER).kind() != EntryKind::Table
            && self.huge_fault(task, mm, &vma, page, access)?
        {
            return Ok(());
        }
        let (entry, _) = self.entry(mm, page);
        match entry.kind() {
            EntryKind::None => self.first_touch(task, mm, &vma, page, access),
            EntryKind::Zero if access == Access::Write => self.copy_zero(task, mm, &vma, page),
            EntryKind::Hint => self.hint_fault(task, mm, &vma, page, access),
            EntryKind::Present if access == Access::Write && !entry.has(Entry::WRITE) => {
                self.write_protect_fault(task, mm, &vma, page)
            }
            EntryKind::Present => {
                self.note_access(mm, page, entry, access);
                Ok(())
            }
            EntryKind::Migration => unreachable!("no migration is in flight between two steps"),
            EntryKind::Zero | EntryKind::Special | EntryKind::Table => Ok(()),
        }
    }

    /// The access was allowed: young, and dirty after a store.
    pub(crate) fn note_access(&mut self, mm: MmId, page: u64, entry: Entry, access: Access) {
        let flags = match access {
            Access::Read => Entry::YOUNG,
            Access::Write => Entry::YOUNG | Entry::DIRTY | Entry::SOFT_DIRTY,
        };
        self.set_pte(mm, page, entry.with(flags));
    }

    fn first_touch(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<(), Fault> {
        match (vma.backing, access) {
            (Backing::Anon, Access::Read) => {
                self.set_pte(mm, page, Entry::new(EntryKind::Zero, Pfn(0), Entry::YOUNG));
                Ok(())
            }
            (Backing::Anon, Access::Write) => {
                let pfn = self.new_anon_page(task, mm, vma, page)?;
                self.map_page(mm, vma, page, pfn, WRITTEN);
                Ok(())
            }
            (Backing::File { .. }, _) => self.file_fault(task, mm, vma, page, access),
        }
    }

    /// An anonymous page for `page`, placed by the policy there, not yet mapped.
    pub(crate) fn new_anon_page(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
    ) -> Result<Pfn, Fault> {
        let placing = self.placing(task, vma, page, 0);
        let by = self.allocator(task);
        let pfn = self.allocate_by(&by, &placing, 0).ok_or(Fault::OutOfMemory)?;
        let family = self.mm(mm).family;
        let index = page.wrapping_add_signed(-vma.moved);
        self.frames.set_owner(pfn, Owner::Anon { family, index });
        self.frames.set(pfn, flag::SWAP_BACKED | flag::EXCLUSIVE);
        self.lru_add(pfn, self.tasks[&task].cpu);
        self.mm_mut(mm).note_anon(page);
        Ok(pfn)
    }

    /// Maps a page with one more entry.
    pub(crate) fn map_page(&mut self, mm: MmId, vma: &Vma, page: u64, pfn: Pfn, flags: u64) {
        self.frames.add_mapcount(pfn);
        if vma.has(vm::LOCKED) {
            self.frames.set(pfn, flag::UNEVICTABLE);
        }
        self.set_pte(mm, page, Entry::new(EntryKind::Present, pfn, flags));
    }

    fn copy_zero(&mut self, task: TaskId, mm: MmId, vma: &Vma, page: u64) -> Result<(), Fault> {
        let pfn = self.new_anon_page(task, mm, vma, page)?;
        self.map_page(mm, vma, page, pfn, WRITTEN);
        Ok(())
    }

    fn file_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<(), Fault> {
        let Backing::File { file, shared } = vma.backing else { return Err(Fault::Segv) };
        if access == Access::Read && self.map_around(mm, vma, page) {
            return Ok(());
        }
        let offset = vma.offset_of(page);
        if vma.has(vm::PFNMAP) {
            let pfn = self.file(file).pages.get(&offset).copied().ok_or(Fault::Bus)?;
            self.set_pte(mm, page, Entry::new(EntryKind::Special, pfn, Entry::YOUNG));
            return Ok(());
        }
        let placing = self.placing_in_file(task, vma, page, file);
        let cached = self.cache_page(task, file, offset, &placing).ok_or(Fault::OutOfMemory)?;
        match (access, shared) {
            (Access::Write, false) => {
                let copy = self.new_anon_page(task, mm, vma, page)?;
                self.frames.copy_tokens(cached, copy, 1);
                self.map_page(mm, vma, page, copy, WRITTEN);
            }
            (Access::Write, true) => {
                self.frames.set(cached, flag::DIRTY);
                self.map_page(mm, vma, page, cached, WRITTEN);
            }
            (Access::Read, _) => self.map_page(mm, vma, page, cached, Entry::YOUNG),
        }
        self.note_mapper(mm, cached);
        Ok(())
    }

    /// Maps the cached pages around a read fault; `true` when `page` was one of them.
    fn map_around(&mut self, mm: MmId, vma: &Vma, page: u64) -> bool {
        let Some(file) = vma.file() else { return false };
        if matches!(self.file(file).kind, FileKind::Secret | FileKind::Vdso | FileKind::Vvar) {
            return false;
        }
        let start = (page / FAULT_AROUND * FAULT_AROUND).max(vma.start);
        let end = (page / FAULT_AROUND * FAULT_AROUND + FAULT_AROUND).min(vma.end);
        let offset = vma.offset_of(start);
        let cached: Vec<(u64, Pfn)> = self
            .file(file)
            .pages
            .range(offset..offset + (end - start))
            .map(|(&at, &pfn)| (start + (at - offset), pfn))
            .collect();
        for &(at, pfn) in &cached {
            if self.entry(mm, at).0.kind() == EntryKind::None {
                self.map_page(mm, vma, at, pfn, Entry::YOUNG);
                self.note_mapper(mm, pfn);
            }
        }
        cached.iter().any(|&(at, _)| at == page)
    }

    /// A store to a page that is mapped read-only in a mapping that may be written
    /// (`do_wp_page`).
    fn write_protect_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
    ) -> Result<(), Fault> {
        let (entry, _) = self.entry(mm, page);
        let pfn = entry.pfn();
        if vma.is_shared() {
            self.frames.set(self.frames.head(pfn), flag::DIRTY);
            self.set_pte(mm, page, entry.with(WRITTEN));
            return Ok(());
        }
        if self.may_reuse(task, pfn) {
            self.frames.set(pfn, flag::EXCLUSIVE);
            if self.behaviour.reuse_forgets_cpupid {
                self.frames.set_cpupid(self.frames.head(pfn), u32::MAX);
            }
            self.set_pte(mm, page, entry.with(WRITTEN));
            return Ok(());
        }
        let copy = self.new_anon_page(task, mm, vma, page)?;
        self.frames.copy_tokens(pfn, copy, 1);
        if let Owner::Ksm { node } = self.frames.owner(pfn) {
            self.ksm.forget(node, mm, page);
        }
        self.map_page(mm, vma, page, copy, WRITTEN);
        self.unmap_page(pfn, entry);
        Ok(())
    }

    /// A page that this entry alone uses needs no copy (`wp_can_reuse_anon_folio`). A batch that
    /// waits for the LRU uses it too; only the one of this CPU is emptied for that, and only where
    /// few others use the page.
    fn may_reuse(&mut self, task: TaskId, pfn: Pfn) -> bool {
        let head = self.frames.head(pfn);
        if !self.frames.owner(head).is_anon() {
            return false;
        }
        if self.frames.has(pfn, flag::EXCLUSIVE) {
            return true;
        }
        if self.frames.owner(head).is_ksm() {
            return false;
        }
        let held = self.frames.extra_references(head);
        if self.frames.order(head) > 0 {
            match self.behaviour.large_reuse {
                LargeReuse::LastPage => {}
                LargeReuse::Never => return false,
                LargeReuse::OneMapper => return held == 0 && !self.is_shared_folio(head),
            }
        }
        let users = self.frames.total_mapcount(head) + held;
        if self.frames.has(head, flag::IN_LRU_BATCH) && users < self.behaviour.reuse_drains_up_to {
            self.drain_lru_batch(task);
        }
        users == 1 && !self.frames.has(head, flag::IN_LRU_BATCH)
    }

    /// Node of a page, if one is mapped there: what a user would learn from move_pages(2).
    pub fn node_of(&self, task: TaskId, address: u64) -> Option<machine::NodeId> {
        let mm = self.mm_of(task)?;
        let (entry, _) = self.entry(mm, address / PAGE_BYTES);
        match entry.kind() {
            EntryKind::Special => Some(self.nodes.id_of(entry.pfn())),
            _ => entry.mapped().map(|pfn| self.nodes.id_of(pfn)),
        }
    }

    /// Whether the zero page is mapped at an address.
    pub fn is_zero_page(&self, task: TaskId, address: u64) -> bool {
        self.mm_of(task)
            .is_some_and(|mm| self.entry(mm, address / PAGE_BYTES).0.kind() == EntryKind::Zero)
    }

    /// 2 MiB units of a range that a PMD maps to memory, and heads of large folios among its pages, that of
    /// the huge zero page too.
    pub fn huge_units(&self, task: TaskId, address: u64, length: u64) -> (u64, u64) {
        let Some(mm) = self.mm_of(task) else { return (0, 0) };
        let (start, end) = page_range(address, length);
        let (mut pmds, mut heads) = (0, 0);
        for page in start..end {
            let (entry, by_pmd) = self.entry(mm, page);
            let begins_unit = by_pmd && page.is_multiple_of(u64::from(PMD_PAGES));
            heads += u64::from(begins_unit && entry.kind() == EntryKind::Zero);
            let Some(pfn) = entry.mapped() else { continue };
            pmds += u64::from(begins_unit);
            heads += u64::from(self.frames.has(pfn, flag::HEAD));
        }
        (pmds, heads)
    }
}
