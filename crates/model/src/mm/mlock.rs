//! mlock(2) and mlock2(2): which mappings take a lock, and which of their pages become unevictable.
//!
//! Hugetlb, secret and special mappings take none, and are not cut for one; but for secret ones,
//! their pages come in all the same, with MLOCK_ONFAULT too. Source: mm/mlock.c, `mlock_fixup`,
//! `allow_mlock_munlock`; mm/gup.c, `populate_vma_page_range`.

use crate::Machine;
use crate::errno::Errno;
use crate::memory::frames::flag;
use crate::mm::address_space::MmId;
use crate::mm::file::FileKind;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};

impl Machine {
    /// mlock(2), or mlock2(2) with MLOCK_ONFAULT.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not aligned. `ENOMEM`: there is a hole, or a page that cannot be
    /// brought in, as none of memfd_secret can.
    pub fn mlock(
        &mut self,
        task: TaskId,
        address: u64,
        length: u64,
        on_fault: bool,
    ) -> Result<(), Errno> {
        let (id, start, end) = self.aligned_range(task, address, length)?;
        if start == end {
            return Ok(());
        }
        let flags = if on_fault { vm::LOCKED | vm::LOCK_ON_FAULT } else { vm::LOCKED };
        self.flag_locked(id, start, end, flags)?;
        self.drain_lru_batch(task);
        self.populate_locked(task, id, start, end)?;
        for page in start..end {
            let (entry, by_pmd) = self.entry(id, page);
            let Some(head) = entry.mapped().map(|pfn| self.frames.head(pfn)) else { continue };
            let locks = by_pmd || self.frames.order(head) == 0 || self.locks_large(id, page, end);
            if locks && self.mm(id).vma(page).is_some_and(|vma| self.takes_lock(vma)) {
                self.frames.set(head, flag::UNEVICTABLE);
            }
        }
        Ok(())
    }

    /// Whether a mapping can be locked page by page.
    fn takes_lock(&self, vma: &Vma) -> bool {
        !vma.has(vm::HUGETLB | vm::DONT_SPLIT | vm::PFNMAP) && !self.is_secret(vma)
    }

    fn is_secret(&self, vma: &Vma) -> bool {
        vma.file().is_some_and(|file| self.file(file).kind == FileKind::Secret)
    }

    /// Marks the mappings of a range, as far as there is no hole.
    fn flag_locked(&mut self, id: MmId, start: u64, end: u64, flags: u16) -> Result<(), Errno> {
        let mut page = start;
        while page < end {
            let vma = self.mm(id).vma(page).ok_or(Errno::ENOMEM)?;
            let (from, upto) = (page, vma.end.min(end));
            page = upto;
            if !self.takes_lock(vma) {
                continue;
            }
            self.cut(id, from, upto)?;
            let mm = self.mm_mut(id);
            let at = mm.find_from(from);
            mm.vmas[at].flags = mm.vmas[at].flags & !(vm::LOCKED | vm::LOCK_ON_FAULT) | flags;
            mm.merge(from, upto);
        }
        Ok(())
    }

    /// Brings in what is not locked on fault only.
    fn populate_locked(
        &mut self,
        task: TaskId,
        id: MmId,
        start: u64,
        end: u64,
    ) -> Result<(), Errno> {
        let mut page = start;
        while page < end {
            let vma = self.mm(id).vma(page).ok_or(Errno::ENOMEM)?;
            let (from, upto) = (page, vma.end.min(end));
            page = upto;
            if vma.has(vm::LOCK_ON_FAULT) {
                continue;
            }
            if self.is_secret(vma) {
                return Err(Errno::ENOMEM);
            }
            // `__mlock_posix_error_return`.
            self.populate(task, from * PAGE_BYTES, (upto - from) * PAGE_BYTES, None)
                .map_err(|errno| if errno == Errno::EFAULT { Errno::ENOMEM } else { errno })?;
        }
        Ok(())
    }

    /// Whether locking pages from `page` to `end` makes the large folio unevictable that entries
    /// map there: all of it must be mapped, in one VMA (`allow_mlock_munlock`).
    fn locks_large(&self, id: MmId, page: u64, end: u64) -> bool {
        let mapped = |page| self.entry(id, page).0.mapped();
        let Some((vma, head)) = self.mm(id).vma(page).zip(mapped(page)) else { return false };
        let behind = page + u64::from(self.frames.pages(head));
        self.behaviour.locks_large_by_entries
            && self.frames.head(head) == head
            && behind <= end.min(vma.end)
            && (page..behind).zip(0..).all(|(page, n)| mapped(page) == Some(head.plus(n)))
    }
}
