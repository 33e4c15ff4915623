//! Which address spaces a large folio has noted as its mappers, which decides whether it counts as
//! shared on 7.3 (`CONFIG_MM_ID`; spec 1.4, rule B).
//!
//! A folio has two slots. It is shared from when a second address space maps it until all that map it
//! have one slot: a third one is not noted, and when it alone is left, the folio stays shared
//! until nobody maps it. What is unmapped frees its slot, and so does a migration, for entries are
//! made anew. Slots that are free are found when somebody looks. Source: include/linux/rmap.h,
//! `folio_add_return_large_mapcount`, `folio_sub_return_large_mapcount`.

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::mm::address_space::MmId;
use crate::version::LargeShared;

/// Address spaces that a folio can note.
const SLOTS: usize = 2;

impl Machine {
    /// An address space maps a page of a folio, which others may map too.
    pub(crate) fn note_mapper(&mut self, mm: MmId, pfn: Pfn) {
        let head = self.frames.head(pfn);
        let has_slots = self.behaviour.large_shared == LargeShared::NotedMappers
            && self.frames.order(head) > 0
            && !self.frames.has(head, flag::HUGETLB);
        if !has_slots || self.mappers.get(&head).is_some_and(|slots| slots.contains(&mm)) {
            return;
        }
        let mut all = self.mappers_of(head);
        if all.iter().all(|&other| other == mm) {
            return;
        }
        let slots = self.mappers.entry(head).or_insert_with(|| {
            all.retain(|&other| other != mm);
            all.clone()
        });
        slots.retain(|slot| all.contains(slot));
        slots.push(mm);
        slots.truncate(SLOTS);
    }

    /// The entries of a folio have become those of another one, or were taken away and put back.
    pub(crate) fn renew_mappers(&mut self, from: Pfn, to: Pfn) {
        if self.mappers.remove(&from).is_some() {
            let mut all = self.mappers_of(to);
            if all.len() > 1 {
                all.truncate(SLOTS);
                self.mappers.insert(to, all);
            }
        }
    }

    /// Whether the folio counts as mapped by several.
    pub(super) fn is_noted_as_shared(&self, head: Pfn) -> bool {
        let Some(slots) = self.mappers.get(&head) else { return false };
        let all = self.mappers_of(head);
        all.len() > 1 || all.iter().any(|mm| !slots.contains(mm))
    }

    /// The address spaces that map a folio.
    fn mappers_of(&self, head: Pfn) -> Vec<MmId> {
        let mut mappings = Vec::new();
        self.mappings(head, &mut mappings);
        let mut all: Vec<MmId> = mappings.iter().map(|mapping| mapping.mm).collect();
        all.dedup();
        all
    }
}
