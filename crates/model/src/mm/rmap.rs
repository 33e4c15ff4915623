//! The reverse map: from a folio to every entry that maps it.

use crate::Machine;
use crate::convert::index;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::page_table::{Entry, EntryKind};
use crate::version::LargeShared;

/// One entry that maps a page of a folio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) mm: MmId,
    pub(crate) page: u64,
    pub(crate) by_pmd: bool,
    /// What it holds.
    pub(crate) entry: Entry,
}

impl Machine {
    /// Collects the entries that map a folio or are migration entries of it, process by process,
    /// addresses ascending.
    pub(crate) fn mappings(&self, head: Pfn, out: &mut Vec<Mapping>) {
        let pages = u64::from(self.frames.pages(head));
        match self.frames.owner(head) {
            Owner::None => {}
            Owner::Anon { family, index } => {
                for &mm in &self.families[family.0 as usize] {
                    self.anon_mappings(mm, head, index, pages, out);
                }
            }
            Owner::File { file, index } => {
                for &mm in &self.file(file).mappers {
                    for vma in self.mm(mm).vmas.iter().filter(|vma| vma.file() == Some(file)) {
                        let end = vma.pgoff + vma.pages();
                        let (from, upto) = (index.max(vma.pgoff), (index + pages).min(end));
                        if from < upto {
                            let page = vma.start + (from - vma.pgoff);
                            self.mappings_in(mm, head, page, page + (upto - from), out);
                        }
                    }
                }
            }
            Owner::Ksm { node } => {
                let places = self.ksm.places(node);
                out.extend(places.map(|(mm, page)| {
                    let (entry, by_pmd) = self.entry(mm, page);
                    Mapping { mm, page, by_pmd, entry }
                }));
            }
        }
    }

    fn anon_mappings(&self, mm: MmId, head: Pfn, index: u64, pages: u64, out: &mut Vec<Mapping>) {
        self.mappings_in(mm, head, index, index + pages, out);
        if !self.mm(mm).has_moved {
            return;
        }
        for vma in self.mm(mm).vmas.iter().filter(|vma| vma.moved != 0) {
            let from = index.wrapping_add_signed(vma.moved);
            if from < vma.end && vma.start < from + pages {
                self.mappings_in(mm, head, from.max(vma.start), (from + pages).min(vma.end), out);
            }
        }
    }

    /// Entries in `[start, end)` that hold a page of the folio.
    fn mappings_in(&self, mm: MmId, head: Pfn, start: u64, end: u64, out: &mut Vec<Mapping>) {
        let belongs = |entry: Entry| {
            let holds =
                matches!(entry.kind(), EntryKind::Present | EntryKind::Hint | EntryKind::Migration);
            holds && self.frames.head(entry.pfn()) == head
        };
        let mut page = start;
        while let Some(next) = self.mm(mm).next_with_entry(page).filter(|&it| it < end) {
            page = next;
            let unit = page >> PMD_ORDER;
            let unit_end = ((unit + 1) << PMD_ORDER).min(end);
            let pmd = self.mm(mm).pmd(unit);
            match pmd.kind() {
                EntryKind::Table => {
                    let first = unit << PMD_ORDER;
                    let entries = self.tables.entries(pmd.table_id());
                    for page in page..unit_end {
                        let entry = entries[index(page - first)];
                        if belongs(entry) {
                            out.push(Mapping { mm, page, by_pmd: false, entry });
                        }
                    }
                }
                _ if belongs(pmd) && pmd.pfn() == head => {
                    let page = unit << PMD_ORDER;
                    out.push(Mapping { mm, page, by_pmd: true, entry: pmd });
                }
                _ => {}
            }
            page = unit_end;
        }
    }

    /// Whether a folio is "shared", as move_pages sees the page `pfn` of it (spec 1.4).
    #[inline]
    pub(crate) fn is_shared_page(&self, pfn: Pfn) -> bool {
        if self.planted(PlantedFault::MapcountUnchecked) {
            return false;
        }
        if self.frames.order(pfn) == 0 {
            return self.frames.mapcount(pfn) > 1;
        }
        self.is_shared(self.frames.head(pfn), self.frames.page_mapcount(pfn) > 1)
    }

    /// The same, as migrate_pages and mbind see the folio.
    #[inline]
    pub(crate) fn is_shared_folio(&self, head: Pfn) -> bool {
        if self.frames.order(head) == 0 {
            return self.frames.mapcount(head) > 1;
        }
        self.is_shared(head, self.frames.page_mapcount(head) != 1)
    }

    /// `by_page` is the answer of the page that the caller looked at.
    #[inline(never)]
    fn is_shared(&self, head: Pfn, by_page: bool) -> bool {
        if self.frames.has(head, flag::HUGETLB) {
            return self.frames.entire_mapcount(head) > 1;
        }
        match self.behaviour.large_shared {
            LargeShared::OneSubpage => by_page,
            _ => self.is_large_shared(head),
        }
    }

    fn is_large_shared(&self, head: Pfn) -> bool {
        let total = self.frames.total_mapcount(head);
        if total <= 1 {
            return false;
        }
        if self.behaviour.large_shared == LargeShared::NotedMappers {
            return self.is_noted_as_shared(head);
        }
        self.frames.entire_mapcount(head) > 0
            || total > self.frames.pages(head).min(PMD_PAGES)
            || self.frames.mapcount(head) > 1
    }
}
