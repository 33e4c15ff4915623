//! Second half of a migration: check the references, copy, hand everything over, restore the
//! entries (`migrate_folio_move`, spec 7.8 to 7.11).

use crate::Machine;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_ORDER, Pfn, flag};
use crate::memory::owner::Owner;
use crate::migrate::unmap::{Failure, Mappings, Unmapped};
use crate::mm::file::FileKind;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::rmap::Mapping;
use crate::observe::events::Event;

impl Machine {
    /// Whether the folio may be moved now: nobody else holds it, and its owner has a way.
    pub(crate) fn check_move(&self, source: Pfn) -> Result<(), Failure> {
        let kind = match self.frames.owner(source) {
            Owner::File { file, .. } => Some(self.file(file).kind),
            _ => None,
        };
        let dirty = self.frames.has(source, flag::DIRTY);
        match kind {
            Some(FileKind::Secret) => return Err(Failure::Final),
            // No callback and no way to write it out: dirty for ever (spec 7.9).
            Some(FileKind::Ramfs) if dirty => return Err(Failure::Final),
            _ => {}
        }
        // Expected: the isolation's reference, and the page cache's. Anything more is a user.
        if self.frames.extra_references(source) > 0 { Err(Failure::Again) } else { Ok(()) }
    }

    /// Copies an unmapped folio to its destination, restores its entries there, and frees it.
    #[inline]
    pub(crate) fn transfer(&mut self, unmapped: &Unmapped) {
        let (source, target) = (unmapped.source, unmapped.target);
        if !self.planted(PlantedFault::CopyForgotten) {
            self.frames.copy_tokens(source, target, self.frames.pages(source));
        }
        self.hand_over(source, target);
        self.restore_entries(unmapped, target);
        self.frames.clear(source, flag::ISOLATED);
        if !self.frames.has(source, flag::HUGETLB) {
            self.free(source);
        } else if self.fresh_hugetlb.remove(&target) {
            // A fresh page took the place of the old one: the pool moves with it (spec 1.6).
            self.dissolve(source);
        } else {
            self.give_hugetlb_page(source);
        }
    }

    /// What the new folio inherits (spec 7.10).
    #[inline]
    fn hand_over(&mut self, source: Pfn, target: Pfn) {
        self.frames.hand_over(source, target);
        let partial = self.frames.has(source, flag::PARTIALLY_MAPPED);
        self.frames.set(target, flag::LRU | if partial { flag::DEFERRED_SPLIT } else { 0 });
        if let Owner::File { file, index } = self.frames.owner(source) {
            self.file_mut(file).pages.insert(index, target);
        }
        let cpupid = self.frames.cpupid(source);
        self.frames.set_cpupid(target, cpupid);
    }

    /// Undoes an unmapping: the entries come back, the destination is given up.
    pub(crate) fn undo_unmap(&mut self, unmapped: &Unmapped) {
        self.restore_entries(unmapped, unmapped.source);
        self.free_target(unmapped.target);
    }

    /// The migration entries of a folio become entries of `target`, which may be the folio itself.
    #[inline(always)]
    fn restore_entries(&mut self, unmapped: &Unmapped, target: Pfn) {
        match &unmapped.mappings {
            Mappings::Lone(lone) => self.restore_lone(lone, target),
            Mappings::Listed(list) => {
                list.iter().for_each(|mapping| self.restore_entry(mapping, unmapped.source, target))
            }
        }
        self.renew_mappers(unmapped.source, target);
    }

    /// A migration entry of `source` becomes an entry of `target` (`remove_migration_pte`). A NUMA
    /// hint is lost: the protection comes from the VMA.
    #[inline(never)]
    fn restore_entry(&mut self, mapping: &Mapping, source: Pfn, target: Pfn) {
        let &Mapping { mm, page, by_pmd, entry } = mapping;
        if by_pmd {
            let unit = page >> PMD_ORDER;
            let entry = self.restored(entry).with_pfn(target);
            self.frames.add_entire_mapcount(target);
            let order = self.frames.order(target);
            if self.frames.has(target, flag::HUGETLB) {
                self.map_hugetlb(mm, page, order, entry);
                self.emit_entry_event(Event::remove_migration_pte, page, order);
            } else {
                self.set_pmd(mm, unit, entry);
                self.emit_entry_event(Event::remove_migration_pmd, page, order);
            }
            return;
        }
        let pfn = target.plus(entry.pfn().0 - source.0);
        let entry = self.restored(entry).with_pfn(pfn);
        self.frames.add_mapcount(pfn);
        self.set_pte(mm, page, entry);
        let order = self.frames.order(target);
        self.emit_entry_event(Event::remove_migration_pte, page, order);
    }

    pub(super) fn restored(&self, entry: Entry) -> Entry {
        let entry = entry.with_kind(EntryKind::Present);
        if self.behaviour.restore_marks_soft_dirty && entry.has(Entry::DIRTY) {
            entry.with(Entry::SOFT_DIRTY)
        } else {
            entry
        }
    }
}
