//! First half of a migration: a destination, the locks, and migration entries in place of the
//! page-table entries (`migrate_folio_unmap`, spec 7.6).

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, Pfn, flag};
use crate::migrate::lone::LoneMapping;
use crate::migrate::{MigrateMode, Request};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::rmap::Mapping;
use crate::observe::events::Event;

/// Why one attempt on one folio did not move it (spec 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Worth another pass: EAGAIN.
    Again,
    /// No destination: ENOMEM.
    NoMemory,
    /// Not in this stage: EBUSY, EINVAL and others.
    Final,
}

/// A folio whose entries are migration entries, with its destination.
#[derive(Debug)]
pub(crate) struct Unmapped {
    pub(crate) source: Pfn,
    pub(crate) target: Pfn,
    pub(crate) mappings: Mappings,
}

/// Where a folio was mapped.
#[derive(Debug)]
pub(crate) enum Mappings {
    /// By one entry, as most are.
    Lone(LoneMapping),
    /// By any number of entries of any size.
    Listed(Vec<Mapping>),
}

impl Machine {
    /// `may_wait`: this pass may sleep, as far as the mode allows it (6.1 never does in its first
    /// three passes).
    pub(crate) fn unmap_folio(
        &mut self,
        source: Pfn,
        request: &Request<'_>,
        mode: MigrateMode,
        may_wait: bool,
    ) -> Result<Unmapped, Failure> {
        let target = self.allocate_target(source, &request.target).ok_or(Failure::NoMemory)?;
        if let Err(failure) = self.lock_for_migration(source, mode, may_wait) {
            self.free_target(target);
            return Err(failure);
        }
        let pinned = flag::LONGTERM_PIN | flag::EXCLUSIVE;
        if self.frames.flags(source) & pinned == pinned && self.frames.owner(source).is_anon() {
            // An exclusive page that a device writes to cannot be made shared: it stays mapped.
            self.free_target(target);
            return Err(Failure::Again);
        }
        let mappings = match self.unmap_lone(source) {
            Some(lone) => Mappings::Lone(lone),
            None => Mappings::Listed(self.unmap_everywhere(source)),
        };
        Ok(Unmapped { source, target, mappings })
    }

    /// Lock and writeback. Who may wait finds both released: the holder finishes meanwhile.
    fn lock_for_migration(
        &mut self,
        source: Pfn,
        mode: MigrateMode,
        may_wait: bool,
    ) -> Result<(), Failure> {
        if self.frames.has(source, flag::LOCKED) {
            if mode == MigrateMode::Async || !may_wait {
                return Err(Failure::Again);
            }
            self.frames.clear(source, flag::LOCKED);
        }
        if self.frames.has(source, flag::WRITEBACK) {
            match mode {
                MigrateMode::Async | MigrateMode::SyncLight => return Err(Failure::Final),
                MigrateMode::Sync if !may_wait => return Err(Failure::Again),
                MigrateMode::Sync => self.frames.clear(source, flag::WRITEBACK),
            }
        }
        Ok(())
    }

    /// Replaces every entry of a folio by a migration entry.
    #[inline(never)]
    fn unmap_everywhere(&mut self, source: Pfn) -> Vec<Mapping> {
        let mut all = Vec::new();
        self.mappings(source, &mut all);
        for mapping in &all {
            self.set_migration_entry(source, mapping);
        }
        let by_pages = || all.iter().any(|mapping| !mapping.by_pmd);
        if self.frames.order(source) > 1 && by_pages() && self.frames.owner(source).is_anon() {
            // Entries of a large folio went one by one: it was partially mapped for a moment, and
            // is marked for good (spec 8.1).
            self.frames.set(source, flag::DEFERRED_SPLIT | flag::PARTIALLY_MAPPED);
        }
        all
    }

    fn set_migration_entry(&mut self, source: Pfn, mapping: &Mapping) {
        let &Mapping { mm, page, by_pmd, entry } = mapping;
        if by_pmd && self.frames.has(source, flag::HUGETLB) {
            let order = self.frames.order(source);
            self.map_hugetlb(mm, page, order, entry.with_kind(EntryKind::Migration));
            self.frames.drop_entire_mapcount(source);
            self.emit_entry_event(Event::set_migration_pte, page, order);
        } else if by_pmd {
            let unit = page >> PMD_ORDER;
            self.mm_mut(mm).set_pmd(unit, entry.with_kind(EntryKind::Migration), 0);
            self.frames.drop_entire_mapcount(source);
            self.note_dirty(source, entry);
            self.emit_entry_event(Event::set_migration_pmd, page, PMD_ORDER);
        } else {
            self.write_pte(mm, page, entry.with_kind(EntryKind::Migration), 0);
            self.frames.drop_mapcount(entry.pfn());
            self.note_dirty(source, entry);
            let order = self.frames.order(source);
            self.emit_entry_event(Event::set_migration_pte, page, order);
        }
    }

    pub(super) fn note_dirty(&mut self, source: Pfn, entry: Entry) {
        if entry.has(Entry::DIRTY) {
            self.frames.set(source, flag::DIRTY);
        }
    }
}
