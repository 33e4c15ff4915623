//! Entries of page tables as the rest of the model reads and writes them, with what follows: hot
//! bytes, map counts, and the end of folios that nobody uses.

use crate::Machine;
use crate::convert::next_id;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::page_table::{Entry, EntryKind, entry_index, hot_byte};

impl Machine {
    /// The entry that maps a page, whatever its size: the frame of this very page, and whether a
    /// PMD maps it.
    #[inline]
    pub(crate) fn entry(&self, id: MmId, page: u64) -> (Entry, bool) {
        let pmd = self.mm(id).pmd(page >> PMD_ORDER);
        let at = entry_index(page);
        match pmd.kind() {
            EntryKind::Table => (self.tables.get(pmd.table_id(), at), false),
            EntryKind::None => (Entry::NONE, false),
            EntryKind::Zero => (pmd, true),
            _ => (pmd.with_pfn(pmd.pfn().plus(next_id(at))), true),
        }
    }

    /// Writes a page-table entry and the hot byte that follows from it.
    #[inline(never)]
    pub(crate) fn set_pte(&mut self, id: MmId, page: u64, entry: Entry) {
        let hot = match entry.mapped() {
            None => 0,
            Some(pfn) => {
                let vma = self.mm(id).vma(page);
                let accessible = vma.is_some_and(|vma| vma.protection.is_accessible());
                hot_byte(entry, accessible, self.nodes.slot_of(pfn))
            }
        };
        self.write_pte(id, page, entry, hot);
    }

    /// Writes a page-table entry and its hot byte as they are, into a new table if there is none.
    pub(crate) fn write_pte(&mut self, id: MmId, page: u64, entry: Entry, hot: u8) {
        let mm = self.mms[id.0 as usize].as_mut().expect("an address space lives while it is used");
        if let Some(place) = mm.place(page) {
            mm.replace_hot(place, hot);
            self.tables.set(place.table, place.entry(), entry);
            return;
        }
        let table = self.tables.allocate();
        mm.set_pmd(page >> PMD_ORDER, Entry::table(table), 0);
        mm.set_hot(page, hot);
        self.tables.set(table, entry_index(page), entry);
    }

    /// Writes a PMD entry with its hot byte.
    pub(crate) fn set_pmd(&mut self, id: MmId, unit: u64, entry: Entry) {
        let accessible =
            self.mm(id).vma(unit << PMD_ORDER).is_some_and(|vma| vma.protection.is_accessible());
        let hot = match entry.mapped() {
            Some(pfn) => hot_byte(entry, accessible, self.nodes.slot_of(pfn)),
            None => 0,
        };
        self.mm_mut(id).set_pmd(unit, entry, hot);
    }

    /// Rewrites the mapped entries of a range, and their hot bytes with them.
    pub(crate) fn rewrite_entries(
        &mut self,
        id: MmId,
        start: u64,
        end: u64,
        change: impl Fn(Entry) -> Entry,
    ) {
        for (unit, pmd) in self.mm(id).units_in(start, end) {
            let first = unit << PMD_ORDER;
            if pmd.kind() != EntryKind::Table {
                if pmd.mapped().is_some() {
                    self.set_pmd(id, unit, change(pmd));
                }
                continue;
            }
            for page in first.max(start)..(first + u64::from(PMD_PAGES)).min(end) {
                let entry = self.tables.get(pmd.table_id(), entry_index(page));
                if entry.mapped().is_some() {
                    self.set_pte(id, page, change(entry));
                }
            }
        }
    }

    /// Takes everything out of the page table in `[start, end)`; boundaries inside a PMD-mapped
    /// folio were cut before.
    pub(crate) fn zap(&mut self, id: MmId, start: u64, end: u64) {
        for (unit, pmd) in self.mm(id).units_in(start, end) {
            let first = unit << PMD_ORDER;
            if pmd.kind() != EntryKind::Table {
                self.mm_mut(id).set_pmd(unit, Entry::NONE, 0);
                self.unmap_pmd_folio(pmd);
                continue;
            }
            let table = pmd.table_id();
            for page in first.max(start)..(first + u64::from(PMD_PAGES)).min(end) {
                let at = entry_index(page);
                let entry = self.tables.get(table, at);
                if entry != Entry::NONE {
                    self.tables.set(table, at, Entry::NONE);
                    self.mm_mut(id).set_hot(page, 0);
                    self.forget_entry(id, page, entry);
                }
            }
        }
    }

    fn forget_entry(&mut self, id: MmId, page: u64, entry: Entry) {
        let Some(pfn) = entry.mapped() else { return };
        if let Owner::Ksm { node } = self.frames.owner(pfn) {
            self.ksm.forget(node, id, page);
        }
        self.unmap_page(pfn, entry);
    }

    /// One page-table entry less maps this page.
    pub(crate) fn unmap_page(&mut self, pfn: Pfn, entry: Entry) {
        let head = self.frames.head(pfn);
        if entry.has(Entry::DIRTY) {
            self.frames.set(head, flag::DIRTY);
        }
        let left = self.frames.drop_mapcount(pfn);
        if self.frames.order(head) > 0 && left == 0 {
            self.note_partial_mapping(head);
        }
        self.free_if_unused(head);
    }

    /// A page of a large folio lost its last entry: if others are mapped still, reclaim would like
    /// to split it, and since 6.12 the migration engine does (spec 8.1).
    pub(crate) fn note_partial_mapping(&mut self, head: Pfn) {
        let mapped = self.frames.entire_mapcount(head) == 0 && self.frames.total_mapcount(head) > 0;
        if mapped && self.frames.owner(head).is_anon() && self.frames.order(head) > 1 {
            self.frames.set(head, flag::DEFERRED_SPLIT | flag::PARTIALLY_MAPPED);
        }
    }

    fn unmap_pmd_folio(&mut self, pmd: Entry) {
        let Some(pfn) = pmd.mapped() else { return };
        let head = self.frames.head(pfn);
        if pfn != head {
            return; // A further part of a 1 GiB page: its first part counts.
        }
        self.frames.drop_entire_mapcount(head);
        // Where entries map all pages one by one, none was lost.
        let mut pages = (0..self.frames.pages(head)).map(|page| head.plus(page));
        if pages.any(|page| self.frames.mapcount(page) == 0) {
            self.note_partial_mapping(head);
        }
        self.free_if_unused(head);
    }

    /// Frees a folio that no page table, no file, no pipe and no migration uses any more.
    pub(crate) fn free_if_unused(&mut self, head: Pfn) {
        let cached = matches!(self.frames.owner(head), Owner::File { .. });
        let used = cached
            || self.frames.has(head, flag::ISOLATED | flag::RESERVED)
            || self.frames.extra_references(head) > 0
            || self.frames.total_mapcount(head) > 0;
        if used {
            return;
        }
        if let Owner::Ksm { node } = self.frames.owner(head) {
            self.ksm.remove(node);
        }
        if self.frames.has(head, flag::HUGETLB) {
            self.give_hugetlb_page(head);
        } else if !self.frames.has(head, flag::POISONED) {
            self.free(head);
        }
    }

    pub(crate) fn release_tables(&mut self, id: MmId, start: u64, end: u64) {
        for (unit, pmd) in self.mm(id).units_in(start, end) {
            if pmd.kind() == EntryKind::Table && self.tables.is_empty(pmd.table_id()) {
                self.tables.release(pmd.table_id());
                self.mm_mut(id).set_pmd(unit, Entry::NONE, 0);
            }
        }
    }

    pub(crate) fn clear_entries(&mut self, id: MmId, entries: &[(u64, Entry, bool)]) {
        for &(page, _, by_pmd) in entries {
            if by_pmd {
                self.mm_mut(id).set_pmd(page >> PMD_ORDER, Entry::NONE, 0);
            } else {
                self.set_pte(id, page, Entry::NONE);
            }
        }
    }
}
