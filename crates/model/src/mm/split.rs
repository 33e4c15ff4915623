//! Splits: of a PMD mapping into page-table entries, and of a large folio into base pages.

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::mm::address_space::MmId;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::vma::vm;
use crate::observe::vmstat::Counter;

impl Machine {
    /// Maps a PMD-mapped THP (or the huge zero page) by 512 entries; the folio stays whole.
    pub(crate) fn split_pmd(&mut self, mm: MmId, unit: u64) {
        let pmd = self.mm(mm).pmd(unit);
        let huge = self.mm(mm).vma(unit << PMD_ORDER).is_some_and(|vma| vma.has(vm::HUGETLB));
        if matches!(pmd.kind(), EntryKind::None | EntryKind::Table) || huge {
            return;
        }
        let table = self.tables.allocate();
        self.mm_mut(mm).set_pmd(unit, Entry::table(table), 0);
        let first = unit << PMD_ORDER;
        if pmd.kind() == EntryKind::Zero {
            for page in 0..PMD_PAGES {
                self.set_pte(
                    mm,
                    first + u64::from(page),
                    Entry::new(EntryKind::Zero, Pfn(0), Entry::YOUNG),
                );
            }
            return;
        }
        self.counters.add(Counter::ThpSplitPmd, 1);
        let head = pmd.pfn();
        let exclusive = self.frames.has(head, flag::EXCLUSIVE);
        for page in 0..PMD_PAGES {
            let pfn = head.plus(page);
            self.frames.add_mapcount(pfn);
            if exclusive {
                self.frames.set(pfn, flag::EXCLUSIVE);
            }
            let entry = Entry::new(pmd.kind(), pfn, pmd.flags());
            self.set_pte(mm, first + u64::from(page), entry);
        }
        self.frames.drop_entire_mapcount(head);
        if self.frames.entire_mapcount(head) == 0 {
            // The removal of the last PMD mapping unlocks the folio (`munlock_vma_folio`).
            self.frames.clear(head, flag::UNEVICTABLE);
        }
    }

    /// Splits an isolated or unused large folio into base pages, which it returns; those that are
    /// isolated stay so. `None`: something else holds a reference (`split_folio`, spec 8.2).
    ///
    /// Since 6.12 mapped pages that hold only zeroes are replaced by the zero page, but in locked
    /// VMAs (`try_to_map_unused_to_zeropage`).
    pub(crate) fn split_folio(&mut self, head: Pfn) -> Option<Vec<Pfn>> {
        if self.frames.extra_references(head) > 0 || self.frames.has(head, flag::WRITEBACK) {
            self.counters.add(Counter::ThpSplitPageFailed, 1);
            return None;
        }
        let mut mappings = Vec::new();
        self.mappings(head, &mut mappings);
        for mapping in mappings.iter().filter(|mapping| mapping.by_pmd) {
            self.split_pmd(mapping.mm, mapping.page >> PMD_ORDER);
        }
        mappings.clear();
        self.mappings(head, &mut mappings);
        let pages: Vec<Pfn> = (0..self.frames.pages(head)).map(|page| head.plus(page)).collect();
        let owner = self.frames.owner(head);
        self.mappers.remove(&head);
        self.frames.split(head);
        for (page, &pfn) in (0..).zip(&pages) {
            self.frames.set_owner(pfn, owner.plus(page));
        }
        self.counters.add(Counter::ThpSplitPage, 1);
        if self.behaviour.split_uses_zero_page && owner.is_anon() {
            for mapping in mappings {
                let (entry, _) = self.entry(mapping.mm, mapping.page);
                let vma = self.mm(mapping.mm).vma(mapping.page);
                let is_locked = vma.is_some_and(|vma| vma.has(vm::LOCKED));
                if !is_locked && self.frames.token(entry.pfn()) == 0 {
                    let zero = Entry::new(EntryKind::Zero, Pfn(0), Entry::YOUNG);
                    self.set_pte(mapping.mm, mapping.page, zero);
                    self.frames.drop_mapcount(entry.pfn());
                }
            }
        }
        Some(pages)
    }
}
