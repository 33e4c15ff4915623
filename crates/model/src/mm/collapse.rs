//! MADV_COLLAPSE: a THP for each 2 MiB unit whose pages are mapped one by one.
//!
//! The pages are copied to the node that has most of them; holes and zero pages become zeroes.
//! What cannot be collapsed is passed over or ends the call, and the errno of the last such unit is
//! told. Called by [`Machine::madvise`]. Shared memory, which a kernel collapses too, stays as it
//! is here: the call fails. Source: mm/khugepaged.c, `madvise_collapse`, `hpage_collapse_scan_pmd`,
//! `madvise_collapse_errno`.

use crate::Machine;
use crate::errno::Errno;
use crate::memory::alloc::Wanted;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::mm::fault::WRITTEN;
use crate::mm::madvise::Part;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::vma::{Backing, vm};

/// Why a unit was not collapsed.
enum Uncollapsed {
    /// The next unit is tried.
    PassOver(Errno),
    /// The call ends.
    Stop(Errno),
}

impl Machine {
    /// Collapses all whole units of a part of a mapping; there may be none.
    pub(super) fn collapse_of(&mut self, part: &Part<'_>) -> Result<(), Errno> {
        let vma = part.vma;
        let last_unit = vma.end >> PMD_ORDER << PMD_ORDER;
        let has_room = last_unit >= vma.start + u64::from(PMD_PAGES);
        let untouched = vma.backing == Backing::Anon && !vma.has(vm::HAD_ANON);
        if !has_room || untouched || vma.has(vm::NO_HUGEPAGE) {
            return Err(Errno::EINVAL);
        }
        self.lru_drain_all();
        let first = part.start.next_multiple_of(u64::from(PMD_PAGES)) >> PMD_ORDER;
        let end = part.end >> PMD_ORDER;
        if end < first && !self.behaviour.collapse_of_no_unit_succeeds {
            return Err(Errno::EINVAL);
        }
        let mut result = Ok(());
        for unit in first..end {
            match self.collapse_unit(part, unit) {
                Ok(()) => {}
                Err(Uncollapsed::PassOver(errno)) => result = Err(errno),
                Err(Uncollapsed::Stop(errno)) => return Err(errno),
            }
        }
        result
    }

    fn collapse_unit(&mut self, part: &Part<'_>, unit: u64) -> Result<(), Uncollapsed> {
        if part.vma.backing != Backing::Anon {
            return Err(Uncollapsed::Stop(Errno::EINVAL));
        }
        let pmd = self.mm(part.mm).pmd(unit);
        let old = match pmd.kind() {
            EntryKind::Table => self.tables.entries(pmd.table_id()).to_vec(),
            EntryKind::None if self.behaviour.collapse_is_lenient => {
                return Err(Uncollapsed::PassOver(Errno::EINVAL));
            }
            EntryKind::None => return Err(Uncollapsed::Stop(Errno::EINVAL)),
            _ => return Ok(()),
        };
        let target = self.collapse_target(&old).map_err(Uncollapsed::PassOver)?;
        self.copy_into_thp(part, unit, &old, target).map_err(Uncollapsed::Stop)
    }

    /// The first node that has most of these pages, whatever else maps them.
    fn collapse_target(&self, entries: &[Entry]) -> Result<Slot, Errno> {
        let mut pages = vec![0u32; self.nodes.list.len()];
        for pfn in entries.iter().filter_map(|entry| entry.mapped()) {
            if self.frames.extra_references(self.frames.head(pfn)) > 0 {
                return Err(Errno::EAGAIN);
            }
            pages[self.nodes.slot_of(pfn).index()] += 1;
        }
        let is_writable = entries.iter().any(|entry| entry.has(Entry::WRITE));
        if !is_writable && !self.behaviour.collapse_is_lenient {
            return Err(Errno::EINVAL);
        }
        let most = pages.iter().max();
        let slot = self.nodes.slots().find(|slot| most == Some(&pages[slot.index()]));
        slot.ok_or(Errno::EINVAL)
    }

    fn copy_into_thp(
        &mut self,
        part: &Part<'_>,
        unit: u64,
        old: &[Entry],
        target: Slot,
    ) -> Result<(), Errno> {
        let &Part { task, mm, vma, .. } = part;
        let by = self.allocator(task);
        let wanted = Wanted {
            order: PMD_ORDER,
            start: target,
            this_node: true,
            nodes: None,
            mems: by.mems.as_ref(),
            cpu: by.cpu,
            movable: true,
        };
        let head = self.allocate(&wanted).ok_or(Errno::ENOMEM)?;
        for (at, entry) in (0..).zip(old) {
            if let Some(pfn) = entry.mapped() {
                self.frames.copy_tokens(pfn, head.plus(at), 1);
            }
        }
        let page = unit << PMD_ORDER;
        self.zap(mm, page, page + u64::from(PMD_PAGES));
        self.release_tables(mm, page, page + u64::from(PMD_PAGES));
        let family = self.mm(mm).family;
        let index = page.wrapping_add_signed(-vma.moved);
        self.frames.set_owner(head, Owner::Anon { family, index });
        self.frames.set(head, flag::SWAP_BACKED | flag::EXCLUSIVE);
        let unwritable = if vma.protection.write { 0 } else { Entry::WRITE };
        self.map_folio(mm, vma, unit, head, WRITTEN & !unwritable);
        self.lru_add(head, self.tasks[&task].cpu);
        Ok(())
    }
}
