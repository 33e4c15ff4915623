//! Pages: given a place where a first touch would have put them, and forgotten when they are gone.

use crate::Machine;
use crate::convert::next_id;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::memory::owner::{FileId, Owner};
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, Fault, WRITTEN};
use crate::mm::file::{File, FileKind};
use crate::mm::mapping::{PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Vma, vm};

const UNIT: u64 = PMD_PAGES as u64;

/// What a run of pages is that another kernel has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Anonymous pages, in private mappings.
    Anon,
    /// THPs or hugetlb pages.
    Huge,
    /// Pages of the file behind the mapping.
    File,
    /// The zero page.
    Zero,
    /// The huge zero page.
    HugeZero,
}

impl Machine {
    /// Gives a place to those pages of `[start, end)` (bytes) that have none yet: where a first
    /// touch by `task` would have put them.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`]: no node that the policy allows has room; pages before it are placed.
    /// [`Fault::Segv`]: there is no mapping. [`Fault::Bus`]: no hugetlb page is left.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn place(&mut self, task: TaskId, start: u64, end: u64, found: Found) -> Result<(), Fault> {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let (mut page, end) = page_range(start, end.saturating_sub(start));
        while page < end {
            let vma = self.mm(mm).vma(page).ok_or(Fault::Segv)?.clone();
            let upto = end.min(vma.end).min(((page >> PMD_ORDER) + 1) << PMD_ORDER);
            self.place_in_unit(task, mm, &vma, (page, upto), found)?;
            page = upto;
        }
        Ok(())
    }

    /// The same within one VMA and one 2 MiB unit.
    fn place_in_unit(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
        found: Found,
    ) -> Result<(), Fault> {
        let unit = page >> PMD_ORDER;
        let pmd = self.mm(mm).pmd(unit);
        let whole = upto - page == UNIT;
        if vma.has(vm::HUGETLB) {
            return self.hugetlb_fault(task, mm, vma, page, Access::Read);
        }
        if pmd.mapped().is_some() {
            return Ok(());
        }
        let anon = vma.backing == Backing::Anon;
        let empty = matches!(pmd.kind(), EntryKind::None | EntryKind::Zero);
        match found {
            Found::Huge if whole && anon && empty && self.new_thp(task, mm, vma, unit) => {
                return Ok(());
            }
            Found::HugeZero if whole && anon && pmd == Entry::NONE => {
                self.set_pmd(mm, unit, Entry::new(EntryKind::Zero, crate::Pfn(0), Entry::YOUNG));
                return Ok(());
            }
            Found::Zero | Found::HugeZero if pmd.kind() == EntryKind::Zero => return Ok(()),
            _ if pmd.kind() == EntryKind::Zero => self.split_pmd(mm, unit),
            _ => {}
        }
        match found {
            Found::Anon => self.place_anon(task, mm, vma, (page, upto)),
            Found::Huge if vma.file().is_none() => self.place_anon(task, mm, vma, (page, upto)),
            Found::Huge | Found::File => self.place_file(task, mm, vma, (page, upto)),
            Found::Zero | Found::HugeZero => {
                for page in page..upto {
                    if self.entry(mm, page).0 == Entry::NONE && !vma.is_shared() {
                        let zero = Entry::new(EntryKind::Zero, crate::Pfn(0), Entry::YOUNG);
                        self.set_pte(mm, page, zero);
                    }
                }
                Ok(())
            }
        }
    }

    /// Anonymous pages; a page of a file that stands there was copied since.
    fn place_anon(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
    ) -> Result<(), Fault> {
        let by = self.allocator(task);
        let mut placing = self.placing(task, vma, page, 0);
        let (family, cpu) = (self.mm(mm).family, self.tasks[&task].cpu);
        for page in page..upto {
            let old = self.entry(mm, page).0;
            if old.mapped().is_some_and(|pfn| {
                let owner = self.frames.owner(self.frames.head(pfn));
                owner.is_anon() || vma.is_shared()
            }) {
                continue;
            }
            placing.index = self.interleave_index(vma, page, 0);
            let pfn = self.allocate_by(&by, &placing, 0).ok_or(Fault::OutOfMemory)?;
            let index = page.wrapping_add_signed(-vma.moved);
            self.frames.set_owner(pfn, Owner::Anon { family, index });
            self.frames.set(pfn, flag::SWAP_BACKED | flag::EXCLUSIVE);
            self.lru_add(pfn, cpu);
            self.mm_mut(mm).note_anon(page);
            self.map_page(mm, vma, page, pfn, WRITTEN);
            if let Some(copied) = old.mapped() {
                self.unmap_page(copied, old);
            }
        }
        Ok(())
    }

    /// Pages of the file behind the mapping: found in its cache, or brought in.
    fn place_file(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
    ) -> Result<(), Fault> {
        let Backing::File { file, .. } = vma.backing else { return Ok(()) };
        let placing = self.placing_in_file(task, vma, page, file);
        let kind = self.file(file).kind;
        let kernels = matches!(kind, FileKind::Vdso | FileKind::Vvar);
        for page in page..upto {
            if self.entry(mm, page).0 != Entry::NONE {
                continue;
            }
            let offset = vma.offset_of(page);
            let cached = self.file(file).pages.get(&offset).copied();
            if kernels && cached.is_none() {
                continue;
            }
            if vma.has(vm::PFNMAP) {
                let pfn = cached.ok_or(Fault::Bus)?;
                self.set_pte(mm, page, Entry::new(EntryKind::Special, pfn, Entry::YOUNG));
                continue;
            }
            let mut placing = placing;
            if kind.has_shared_policy() {
                placing = self.placing_in_file(task, vma, page, file);
            }
            let cached = self.cache_page(task, file, offset, &placing).ok_or(Fault::OutOfMemory)?;
            if kind.has_shared_policy() || kind == FileKind::Ramfs {
                // Memory without a disk behind it is there because somebody wrote it, but for holes
                // that were read.
                self.frames.set(self.frames.head(cached), flag::DIRTY);
            }
            self.map_page(mm, vma, page, cached, Entry::YOUNG);
            self.note_mapper(mm, cached);
        }
        Ok(())
    }

    /// A page that was shared after fork is `task`'s alone now, as after a store by it.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`]: there is no room for its copy.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn unshare(&mut self, task: TaskId, address: u64) -> Result<(), Fault> {
        match self.access(task, address, Access::Write) {
            Err(Fault::OutOfMemory) => Err(Fault::OutOfMemory),
            // A mapping that may not be written any more: the copy was made before.
            _ => Ok(()),
        }
    }

    /// The pages of `[start, end)` (bytes) are gone.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn forget(&mut self, task: TaskId, start: u64, end: u64) {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let (start, end) = (start.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
        if start < end && self.has_entries(mm, start, end) {
            self.discard(mm, start, end);
            self.release_tables(mm, start, end);
        }
    }

    /// madvise(2) with `MADV_REMOVE`, as another kernel has done it: shared memory in `[start, end)`
    /// (bytes) has lost its pages, for all who map it.
    pub fn remove_pages(&mut self, task: TaskId, start: u64, end: u64) {
        let Some(mm) = self.mm_of(task) else { return };
        let (start, end) = page_range(start, end.saturating_sub(start));
        let vmas = &self.mm(mm).vmas[self.mm(mm).find_from(start)..];
        let shared = vmas.iter().take_while(|vma| vma.start < end).filter(|vma| vma.is_shared());
        let parts: Vec<(FileId, u64, u64)> = shared
            .filter_map(|vma| {
                let first = vma.offset_of(vma.start.max(start));
                let last = vma.offset_of(vma.end.min(end));
                Some((vma.file()?, first, last))
            })
            .collect();
        for (file, first, last) in parts {
            if self.file(file).kind.is_shmem() {
                self.punch_hole(file, first, last);
            }
        }
    }

    /// Drops the cached pages of files on disks that nobody maps, as reclaim would. Pages.
    pub fn drop_caches(&mut self) -> u64 {
        let is_idle = |file: &File| file.kind == FileKind::Disk && file.mappers.is_empty();
        let ids = (0..self.files.len()).map(|at| FileId(next_id(at)));
        let idle: Vec<FileId> = ids.filter(|&id| is_idle(self.file(id))).collect();
        idle.into_iter().map(|id| self.drop_pages(id)).sum()
    }

    /// Pages of a file in memory that a path, a descriptor or an identifier keeps, and no mapping does.
    pub fn pages_without_mapping(&self, id: FileId) -> u64 {
        let file = self.file(id);
        let is_kept = matches!(file.kind, FileKind::Memfd | FileKind::Tmpfs | FileKind::Ramfs);
        if is_kept && file.mappers.is_empty() { file.pages.len() as u64 } else { 0 }
    }

    /// Whether some address space maps a file.
    pub fn is_file_mapped(&self, id: FileId) -> bool {
        !self.file(id).mappers.is_empty()
    }

    /// A file that nobody maps has ceased to exist. Pages that are free by that.
    pub fn delete_file(&mut self, id: FileId) -> u64 {
        if self.is_file_mapped(id) { 0 } else { self.drop_pages(id) }
    }
}
