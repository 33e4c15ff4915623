//! Faults at the PMD: THPs, the huge zero page, and hugetlb pages.

use crate::Machine;
use crate::memory::frames::{Order, PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, Fault, WRITTEN};
use crate::mm::file::FileKind;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Vma, vm};
use crate::policy::mempolicy::PolicyMode;

/// `/sys/kernel/mm/transparent_hugepage/enabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ThpMode {
    /// In every aligned 2 MiB of anonymous memory.
    #[default]
    Always,
    /// Only after MADV_HUGEPAGE.
    Madvise,
    /// Not at all.
    Never,
}

impl Machine {
    /// A fault where the PMD is no table. `false`: base pages are to deal with it.
    pub(crate) fn huge_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<bool, Fault> {
        let unit = page >> PMD_ORDER;
        let pmd = self.mm(mm).pmd(unit);
        match (pmd.kind(), access) {
            (EntryKind::None, _) if !self.takes_thp(vma, unit) => Ok(false),
            (EntryKind::None, Access::Read) => {
                // It could become one of its own in the same fault (`vmf_anon_prepare`).
                self.mm_mut(mm).note_anon(page);
                self.set_pmd(mm, unit, Entry::new(EntryKind::Zero, Pfn(0), Entry::YOUNG));
                Ok(true)
            }
            (EntryKind::None, Access::Write) => Ok(self.new_thp(task, mm, vma, unit)),
            (EntryKind::Zero, Access::Read) => Ok(true),
            (EntryKind::Zero, Access::Write) => {
                let whole = self.behaviour.huge_zero_write_allocates_thp;
                if whole && self.new_thp(task, mm, vma, unit) {
                    return Ok(true);
                }
                self.split_pmd(mm, unit);
                Ok(false)
            }
            (EntryKind::Hint, _) => self.huge_hint_fault(task, mm, vma, page, access),
            (EntryKind::Present, Access::Write) if !pmd.has(Entry::WRITE) => {
                Ok(self.huge_write_protect(mm, unit))
            }
            (EntryKind::Present, Access::Write) => {
                let written = Entry::YOUNG | Entry::DIRTY | Entry::SOFT_DIRTY;
                self.set_pmd(mm, unit, pmd.with(written));
                Ok(true)
            }
            (EntryKind::Present, Access::Read) => {
                self.set_pmd(mm, unit, pmd.with(Entry::YOUNG));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether a THP may be mapped at a 2 MiB unit of a VMA.
    pub(crate) fn takes_thp(&self, vma: &Vma, unit: u64) -> bool {
        let first = unit << PMD_ORDER;
        let fits = vma.start <= first && first + u64::from(PMD_PAGES) <= vma.end;
        let wanted = match self.options.thp {
            ThpMode::Always => !vma.has(vm::NO_HUGEPAGE),
            ThpMode::Madvise => vma.has(vm::HUGEPAGE),
            ThpMode::Never => false,
        };
        fits && wanted && vma.backing == Backing::Anon
    }

    /// Allocates and maps a THP; `false`: there is none, base pages must do.
    pub(crate) fn new_thp(&mut self, task: TaskId, mm: MmId, vma: &Vma, unit: u64) -> bool {
        let page = unit << PMD_ORDER;
        let placing = self.placing(task, vma, page, PMD_ORDER);
        let by = self.allocator(task);
        let Some(head) = self.allocate_by(&by, &placing, PMD_ORDER) else { return false };
        let family = self.mm(mm).family;
        let index = page.wrapping_add_signed(-vma.moved);
        self.frames.set_owner(head, Owner::Anon { family, index });
        self.frames.set(head, flag::SWAP_BACKED | flag::EXCLUSIVE);
        self.mm_mut(mm).note_anon(page);
        self.map_folio(mm, vma, unit, head, WRITTEN);
        self.lru_add(head, self.tasks[&task].cpu);
        true
    }

    /// Maps a folio of PMD order with one PMD entry.
    pub(crate) fn map_folio(&mut self, mm: MmId, vma: &Vma, unit: u64, head: Pfn, flags: u64) {
        self.frames.add_entire_mapcount(head);
        if vma.has(vm::LOCKED) {
            self.frames.set(head, flag::UNEVICTABLE);
        }
        self.set_pmd(mm, unit, Entry::new(EntryKind::Present, head, flags));
    }

    /// A store to a THP that is mapped read-only. `false`: the PMD was split, base pages are to
    /// copy (`do_huge_pmd_wp_page`).
    fn huge_write_protect(&mut self, mm: MmId, unit: u64) -> bool {
        let pmd = self.mm(mm).pmd(unit);
        let head = pmd.pfn();
        let alone =
            self.frames.total_mapcount(head) == 1 && self.frames.extra_references(head) == 0;
        if self.frames.has(head, flag::EXCLUSIVE) || alone {
            self.frames.set(head, flag::EXCLUSIVE);
            self.set_pmd(mm, unit, pmd.with(WRITTEN));
            return true;
        }
        self.split_pmd(mm, unit);
        false
    }

    /// First touch of, or store to, a hugetlb page.
    pub(crate) fn hugetlb_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<(), Fault> {
        let Backing::File { file, shared } = vma.backing else { return Err(Fault::Bus) };
        let FileKind::Hugetlb(order) = self.file(file).kind else { return Err(Fault::Bus) };
        let first = vma.start + ((page - vma.start) >> order << order);
        let pmd = self.mm(mm).pmd(first >> PMD_ORDER);
        if pmd.kind() == EntryKind::Present {
            if access == Access::Write && !pmd.has(Entry::WRITE) {
                return self.hugetlb_write_protect(task, mm, vma, first, order, pmd);
            }
            let flags = if access == Access::Write { WRITTEN } else { Entry::YOUNG };
            self.map_hugetlb(mm, first, order, pmd.with(flags));
            return Ok(());
        }
        let offset = vma.offset_of(first);
        let cached = self.file(file).pages.get(&offset).copied().filter(|_| shared);
        let head = match cached {
            Some(head) => head,
            None => {
                let head = self.take_hugetlb_page(task, vma, first, order, true)?;
                let owner = if shared {
                    self.file_mut(file).pages.insert(offset, head);
                    Owner::File { file, index: offset }
                } else {
                    Owner::Anon { family: self.mm(mm).family, index: first }
                };
                self.frames.set_owner(head, owner);
                self.frames.set(head, flag::EXCLUSIVE | flag::LRU);
                head
            }
        };
        self.frames.add_entire_mapcount(head);
        let writable = vma.protection.write && (shared || access == Access::Write);
        let flags = match access {
            Access::Write => WRITTEN,
            Access::Read if writable => Entry::YOUNG | Entry::WRITE,
            Access::Read => Entry::YOUNG,
        };
        self.map_hugetlb(mm, first, order, Entry::new(EntryKind::Present, head, flags));
        Ok(())
    }

    /// Writes the PMD entries of a hugetlb page: one for each 2 MiB of it.
    pub(crate) fn map_hugetlb(&mut self, mm: MmId, first: u64, order: Order, entry: Entry) {
        for part in 0..1u32 << (order - PMD_ORDER) {
            let pfn = entry.pfn().plus(part * PMD_PAGES);
            self.set_pmd(mm, (first >> PMD_ORDER) + u64::from(part), entry.with_pfn(pfn));
        }
    }

    fn hugetlb_write_protect(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        first: u64,
        order: Order,
        pmd: Entry,
    ) -> Result<(), Fault> {
        let old = pmd.pfn();
        if vma.is_shared() || self.frames.entire_mapcount(old) == 1 {
            self.frames.set(old, flag::EXCLUSIVE);
            self.map_hugetlb(mm, first, order, pmd.with(WRITTEN));
            return Ok(());
        }
        let copy = self.take_hugetlb_page(task, vma, first, order, false)?;
        let family = self.mm(mm).family;
        self.frames.set_owner(copy, Owner::Anon { family, index: first });
        self.frames.set(copy, flag::EXCLUSIVE | flag::LRU);
        self.frames.copy_tokens(old, copy, 1 << order);
        self.frames.drop_entire_mapcount(old);
        self.frames.add_entire_mapcount(copy);
        self.map_hugetlb(mm, first, order, Entry::new(EntryKind::Present, copy, WRITTEN));
        self.free_if_unused(old);
        Ok(())
    }

    /// A page of the pool, by the policy of the address; SIGBUS when none is allowed or left.
    fn take_hugetlb_page(
        &mut self,
        task: TaskId,
        vma: &Vma,
        page: u64,
        order: Order,
        reserved: bool,
    ) -> Result<Pfn, Fault> {
        let file = vma.file().ok_or(Fault::Bus)?;
        let promised = reserved && self.file(file).reserved > 0;
        if !promised && self.hugetlb.unreserved(order) == 0 {
            return Err(Fault::Bus);
        }
        let placing = self.placing(task, vma, page, order);
        let by = self.allocator(task);
        let start = self.start_slot(&by, &placing);
        let strict = placing.policy.filter(|policy| policy.mode == PolicyMode::Bind);
        let slots: Vec<Slot> = self.nodes[start].fallback.clone();
        let head = slots
            .into_iter()
            .filter(|&slot| {
                let id = self.nodes[slot].id;
                by.mems.is_none_or(|mems| mems.contains(id))
                    && strict.is_none_or(|policy| policy.nodes.contains(id))
            })
            .find_map(|slot| self.hugetlb.take(order, slot))
            .ok_or(Fault::Bus)?;
        if promised {
            self.file_mut(file).reserved -= 1;
            self.hugetlb.unreserve(order, 1);
        }
        Ok(head)
    }
}
