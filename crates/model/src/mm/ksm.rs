//! KSM: equal anonymous pages become one, wherever they are mapped.

use std::collections::{BTreeMap, BTreeSet};

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::rmap::Mapping;
use crate::mm::vma::vm;

/// Merged pages, each with the places that map it.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Ksm {
    places: BTreeMap<u32, BTreeSet<(MmId, u64)>>,
    next: u32,
}

impl Ksm {
    pub(crate) fn places(&self, node: u32) -> impl Iterator<Item = (MmId, u64)> + '_ {
        self.places.get(&node).into_iter().flatten().copied()
    }

    pub(crate) fn add(&mut self, node: u32, mm: MmId, page: u64) {
        self.places.entry(node).or_default().insert((mm, page));
    }

    pub(crate) fn forget(&mut self, node: u32, mm: MmId, page: u64) {
        if let Some(places) = self.places.get_mut(&node) {
            places.remove(&(mm, page));
        }
    }

    pub(crate) fn remove(&mut self, node: u32) {
        self.places.remove(&node);
    }

    fn create(&mut self, places: BTreeSet<(MmId, u64)>) -> u32 {
        self.next += 1;
        self.places.insert(self.next, places);
        self.next
    }
}

impl Machine {
    /// Lets KSM scan all memory that was given to it (MADV_MERGEABLE) until nothing more merges.
    /// Of equal pages the first one, in the order of address spaces and addresses, stays.
    pub fn ksm_scan(&mut self) {
        let mut first: BTreeMap<u32, Pfn> = BTreeMap::new();
        for (mm, page) in self.mergeable_pages() {
            let (entry, by_pmd) = self.entry(mm, page);
            let Some(pfn) = entry.mapped() else { continue };
            let large = by_pmd || self.frames.order(pfn) > 0;
            if large || !self.frames.owner(pfn).is_anon() {
                continue;
            }
            let kept = *first.entry(self.frames.token(pfn)).or_insert(pfn);
            if kept != pfn {
                let node = self.make_ksm_page(kept);
                self.remap_to_ksm(mm, page, entry, kept, node);
            }
        }
    }

    fn mergeable_pages(&self) -> Vec<(MmId, u64)> {
        let mut pages = Vec::new();
        for (id, mm) in (0..).map(MmId).zip(&self.mms) {
            let vmas = mm.iter().flat_map(|mm| &mm.vmas).filter(|vma| vma.has(vm::MERGEABLE));
            pages.extend(vmas.flat_map(|vma| vma.start..vma.end).map(|page| (id, page)));
        }
        pages
    }

    fn make_ksm_page(&mut self, pfn: Pfn) -> u32 {
        if let Owner::Ksm { node } = self.frames.owner(pfn) {
            return node;
        }
        let mut mappings: Vec<Mapping> = Vec::new();
        self.mappings(pfn, &mut mappings);
        for mapping in &mappings {
            let (entry, _) = self.entry(mapping.mm, mapping.page);
            self.set_pte(mapping.mm, mapping.page, entry.without(Entry::WRITE));
        }
        let places = mappings.iter().map(|mapping| (mapping.mm, mapping.page)).collect();
        let node = self.ksm.create(places);
        self.frames.set_owner(pfn, Owner::Ksm { node });
        self.frames.clear(pfn, flag::EXCLUSIVE);
        node
    }

    fn remap_to_ksm(&mut self, mm: MmId, page: u64, entry: Entry, kept: Pfn, node: u32) {
        let old = entry.pfn();
        if self.frames.owner(old).is_ksm() || self.frames.extra_references(old) > 0 {
            return;
        }
        self.frames.add_mapcount(kept);
        self.ksm.add(node, mm, page);
        let flags = entry.flags() & !Entry::WRITE;
        self.set_pte(mm, page, Entry::new(EntryKind::Present, kept, flags));
        self.unmap_page(old, entry);
    }
}
