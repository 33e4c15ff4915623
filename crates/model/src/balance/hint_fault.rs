//! The hint fault: an access to a page that the scanner made inaccessible.
//!
//! Source: behaviour spec 10.3 and 10.4; mm/memory.c, `do_numa_page`; mm/huge_memory.c,
//! `do_huge_pmd_numa_page`; mm/migrate.c, `migrate_misplaced_folio`.

use crate::Machine;
use crate::balance::BALANCE_TIERING;
use crate::balance::account::FaultOutcome;
use crate::memory::frames::{PMD_ORDER, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, Fault};
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::Vma;
use crate::observe::call_path::Caller;
use crate::observe::vmstat::Counter;

impl Machine {
    /// `do_numa_page`: account, perhaps migrate, restore; then the access is tried again.
    pub(crate) fn hint_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<(), Fault> {
        let (entry, _) = self.entry(mm, page);
        let head = self.frames.head(entry.pfn());
        let large = self.frames.order(head) > 0;
        if large && self.behaviour.hint_ignores_large {
            self.restore_hint(mm, vma, page, false);
            return self.access(task, page * PAGE_BYTES, access);
        }
        self.note_pid(task, mm, page);
        let migrated = self.take_hint(task, vma, page, entry.pfn(), Caller::HintFault);
        if !migrated {
            self.restore_hint(mm, vma, page, large);
        }
        self.access(task, page * PAGE_BYTES, access)
    }

    /// `do_huge_pmd_numa_page`.
    pub(crate) fn huge_hint_fault(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        page: u64,
        access: Access,
    ) -> Result<bool, Fault> {
        let unit = page >> PMD_ORDER;
        let pmd = self.mm(mm).pmd(unit);
        self.note_pid(task, mm, page);
        let migrated = self.take_hint(task, vma, page, pmd.pfn(), Caller::HugeHintFault);
        if !migrated {
            let pmd = self.restored_hint(vma, self.mm(mm).pmd(unit));
            self.set_pmd(mm, unit, pmd);
        }
        self.access(task, page * PAGE_BYTES, access)?;
        Ok(true)
    }

    /// Counts the fault, decides, migrates, accounts; `true`: the engine rebuilt the entry.
    fn take_hint(&mut self, task: TaskId, vma: &Vma, page: u64, pfn: Pfn, caller: Caller) -> bool {
        let here = self.nodes.of_cpu(self.tasks[&task].cpu);
        let slot = self.nodes.slot_of(pfn);
        let head = self.frames.head(pfn);
        let last = self.last_cpupid(head, slot);
        self.counters.add(Counter::NumaHintFaults, 1);
        if slot == here {
            self.counters.add(Counter::NumaHintFaultsLocal, 1);
        }
        let mut outcome = FaultOutcome {
            slot,
            pages: u64::from(self.frames.pages(head)),
            private: last.is_none_or(|last| super::filter::is_same_thread(last, task)),
            is_local: slot == here,
            migrated: false,
            failed: false,
        };
        if let Some(target) = self.misplaced(task, vma, page, head) {
            let moved = self.migrate_misplaced(task, vma, head, target, caller);
            outcome.migrated = moved;
            outcome.failed = !moved;
            if moved {
                // Local is what was local before: a page that came counts as remote.
                outcome.slot = target;
            }
        }
        let migrated = outcome.migrated;
        self.account_fault(task, &outcome);
        migrated
    }

    /// The last CPU and thread, unless the field holds a time, or nothing.
    fn last_cpupid(&self, head: Pfn, slot: Slot) -> Option<u32> {
        let holds_time = self.balancing.has(BALANCE_TIERING) && !self.nodes.is_top_tier(slot);
        let word = self.frames.cpupid(head);
        (!holds_time && word != u32::MAX).then_some(word)
    }

    fn restored_hint(&self, vma: &Vma, entry: Entry) -> Entry {
        if entry.kind() != EntryKind::Hint {
            return entry; // The engine ran, and rebuilt it.
        }
        let restored = entry.with_kind(EntryKind::Present).with(Entry::YOUNG);
        let exclusive = self.frames.has(entry.pfn(), flag::EXCLUSIVE);
        if !self.behaviour.hint_keeps_write && vma.protection.write && exclusive {
            restored.with(Entry::WRITE)
        } else {
            restored
        }
    }

    /// Makes a page accessible again; of a large folio all its pages in this table.
    fn restore_hint(&mut self, mm: MmId, vma: &Vma, page: u64, whole_folio: bool) {
        let (entry, _) = self.entry(mm, page);
        let head = self.frames.head(entry.pfn());
        if !whole_folio {
            self.set_pte(mm, page, self.restored_hint(vma, entry));
            return;
        }
        let first = (page / Self::UNIT_PAGES * Self::UNIT_PAGES).max(vma.start);
        for page in first..(page / Self::UNIT_PAGES + 1) * Self::UNIT_PAGES {
            let (entry, _) = self.entry(mm, page);
            let ours = entry.mapped().is_some_and(|pfn| self.frames.head(pfn) == head);
            if ours && page < vma.end {
                self.set_pte(mm, page, self.restored_hint(vma, entry));
            }
        }
    }

    /// `migrate_misplaced_folio`: one folio, without waiting.
    fn migrate_misplaced(
        &mut self,
        task: TaskId,
        vma: &Vma,
        head: Pfn,
        target: Slot,
        caller: Caller,
    ) -> bool {
        if !self.may_migrate_misplaced(vma, head, target) || !self.isolate(head) {
            return false;
        }
        let by = self.allocator(task);
        let source = self.nodes.slot_of(head);
        let request = Request {
            mode: MigrateMode::Async,
            reason: MigrateReason::NumaMisplaced,
            target: Target::Exactly { slot: target, by },
            caller,
        };
        let outcome = self.migrate(vec![head], &request);
        self.put_back_all(outcome.left);
        if outcome.succeeded == 0 {
            return false;
        }
        self.counters.add(Counter::NumaPagesMigrated, outcome.succeeded);
        let promoted = !self.nodes.is_top_tier(source) && self.nodes.is_top_tier(target);
        let counts =
            !self.behaviour.promote_counts_in_tiering_only || self.balancing.has(BALANCE_TIERING);
        if promoted && counts {
            self.counters.add(Counter::PgpromoteSuccess, outcome.succeeded);
        }
        true
    }

    fn may_migrate_misplaced(&mut self, vma: &Vma, head: Pfn, target: Slot) -> bool {
        let is_file = matches!(self.frames.owner(head), Owner::File { .. });
        let swap_backed = self.frames.has(head, flag::SWAP_BACKED);
        if is_file && vma.protection.execute && self.is_shared_folio(head) {
            return false;
        }
        if is_file && !swap_backed && self.frames.has(head, flag::DIRTY) {
            return false;
        }
        let large = self.frames.order(head) > 0;
        if large && self.behaviour.hint_ignores_large && self.frames.total_mapcount(head) > 1 {
            return false;
        }
        let pages = u64::from(self.frames.pages(head));
        let zones = &self.nodes[target].zones;
        let room = zones.iter().any(|zone| zone.free >= zone.watermarks.high + pages);
        if !room && self.balancing.has(BALANCE_TIERING) {
            self.wake_kswapd(target);
        }
        room
    }
}
