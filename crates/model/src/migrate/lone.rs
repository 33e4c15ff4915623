//! The common folio: a base page that one process maps once, at the address where it was made.
//!
//! Its owner alone says where its entry is, so no list of mappings is made, and the way to the
//! entry is walked once for both halves of a migration. [`super::unmap`] and [`super::transfer`]
//! ask here first; what they do for any other folio, this does for a lone page.

use crate::Machine;
use crate::memory::frames::Pfn;
use crate::memory::owner::Owner;
use crate::mm::address_space::{MmId, Place};
use crate::mm::page_table::{Entry, EntryKind, hot_byte};
use crate::observe::events::Event;

/// Where a lone page was mapped, and by what.
#[derive(Debug)]
pub(crate) struct LoneMapping {
    mm: MmId,
    page: u64,
    place: Place,
    entry: Entry,
    /// An access went through, so the VMA allows it.
    was_hot: bool,
}

impl Machine {
    /// Replaces the entry of a lone page by a migration entry. `None`: it is none.
    #[inline]
    pub(super) fn unmap_lone(&mut self, source: Pfn) -> Option<LoneMapping> {
        let Owner::Anon { family, index: page } = self.frames.owner(source) else { return None };
        let &[mm] = self.families[family.0 as usize].as_slice() else { return None };
        if self.frames.order(source) > 0 || self.frames.mapcount(source) != 1 {
            return None;
        }
        let place = self.mm(mm).place(page)?;
        let entry = self.tables.get(place.table, place.entry());
        if entry.mapped() != Some(source) {
            return None;
        }
        let was_hot = self.mm_mut(mm).replace_hot(place, 0) != 0;
        self.tables.rewrite(place.table, place.entry(), entry.with_kind(EntryKind::Migration));
        self.frames.drop_mapcount(source);
        self.note_dirty(source, entry);
        self.emit_entry_event(Event::set_migration_pte, page, 0);
        Some(LoneMapping { mm, page, place, entry, was_hot })
    }

    /// The migration entry of a lone page becomes an entry of `target`.
    #[inline]
    pub(super) fn restore_lone(&mut self, lone: &LoneMapping, target: Pfn) {
        let &LoneMapping { mm, page, place, entry, was_hot } = lone;
        let entry = self.restored(entry).with_pfn(target);
        self.frames.add_mapcount(target);
        if was_hot {
            let hot = hot_byte(entry, true, self.nodes.slot_of(target));
            self.mm_mut(mm).replace_hot(place, hot);
            self.tables.rewrite(place.table, place.entry(), entry);
        } else {
            self.set_pte(mm, page, entry);
        }
        self.emit_entry_event(Event::remove_migration_pte, page, 0);
    }
}
