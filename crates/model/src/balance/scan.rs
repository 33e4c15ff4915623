//! The scanner: makes pages of an address space inaccessible, a part of it at a time.
//!
//! Source: behaviour spec 10.2; kernel/sched/fair.c, `task_tick_numa`, `task_numa_work`;
//! mm/mprotect.c, `change_prot_numa`.

use crate::Machine;
use crate::balance::{BALANCE_NORMAL, BALANCE_TIERING, TICK_MS, TaskBalance};
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::migrate::queue::is_migratable;
use crate::mm::address_space::MmId;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};
use crate::observe::events::Event;
use crate::observe::vmstat::Counter;
use crate::policy::mempolicy::MemPolicy;

/// Pages that a scan may pass over, for each page that it may mark.
const VIRTUAL_FACTOR: u64 = 8;

/// What one scan may still do.
struct Budget {
    pages: u64,
    virtual_pages: u64,
}

impl Machine {
    /// Shortest and longest period for an address space, in ms.
    pub(crate) fn scan_bounds(&self, mm: MmId) -> (u64, u64) {
        let settings = self.balancing.settings;
        let per_scan = settings.scan_size_mib * 256;
        let windows = self.resident_pages(mm).div_ceil(per_scan.max(1)).max(1);
        let floor = 1000 / (2560 / settings.scan_size_mib.max(1)).max(1);
        let scan_min = floor.max(settings.scan_period_min_ms / windows);
        (scan_min, scan_min.max(settings.scan_period_max_ms / windows))
    }

    fn resident_pages(&self, mm: MmId) -> u64 {
        let units = self.mm(mm).units();
        units
            .map(|(_, pmd)| match pmd.kind() {
                EntryKind::Table => {
                    let entries = self.tables.entries(pmd.table_id());
                    entries.iter().filter(|entry| entry.mapped().is_some()).count() as u64
                }
                _ => pmd.mapped().map_or(0, |_| u64::from(PMD_PAGES)),
            })
            .sum()
    }

    /// A thread ran for `ms`, scanned or not.
    pub(crate) fn add_runtime(&mut self, id: TaskId, ms: u64) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.balance.runtime_ms += ms;
        }
    }

    /// A tick of a running thread: whether it is to scan (`task_tick_numa`).
    pub(crate) fn scan_tick(&mut self, id: TaskId) -> bool {
        let Some(mm) = self.mm_of(id).filter(|_| self.balancing.settings.mode != 0) else {
            return false;
        };
        let (now, delay) = (self.balancing.now_ms, self.balancing.settings.scan_delay_ms);
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        let balance = &mut task.balance;
        if balance.period_ms == 0 {
            balance.period_ms = delay;
        }
        if balance.runtime_ms <= balance.stamp_ms + balance.period_ms {
            return false;
        }
        if balance.stamp_ms == 0 {
            let scan_start = self.scan_bounds(mm).0;
            self.balance_mut(id).period_ms = scan_start;
        }
        let balance = self.balance_mut(id);
        balance.stamp_ms += balance.period_ms;
        now >= self.mm(mm).scan.next_scan_ms
    }

    fn balance_mut(&mut self, id: TaskId) -> &mut TaskBalance {
        &mut self.tasks.get_mut(&id).expect("a thread that runs is a task").balance
    }

    /// `task_numa_work`.
    pub(crate) fn scan_work(&mut self, id: TaskId) {
        let Some(mm) = self.mm_of(id) else { return };
        let confined = self.cpusets.are_used() && self.tasks[&id].mems_allowed.len() == 1;
        if self.behaviour.scan_skips_confined && confined {
            return;
        }
        let (now, settings) = (self.balancing.now_ms, self.balancing.settings);
        let scan = &mut self.mm_mut(mm).scan;
        if scan.next_scan_ms == 0 {
            scan.next_scan_ms = now + settings.scan_delay_ms;
        }
        if now < scan.next_scan_ms {
            return;
        }
        let balance = self.balance_mut(id);
        // The other threads shall have their turn: `p->node_stamp += 2 * TICK_NSEC`.
        balance.stamp_ms += 2 * TICK_MS;
        let period = balance.period_ms;
        self.mm_mut(mm).scan.next_scan_ms = now + period;
        let pages = settings.scan_size_mib * 256;
        if pages > 0 {
            self.scan_vmas(id, mm, Budget { pages, virtual_pages: pages * VIRTUAL_FACTOR });
        }
    }

    /// One scan: from where the last one stopped, as far as the budget goes.
    ///
    /// VMAs that this thread did not use are passed over. Where nothing else is left of the list, one
    /// of them is scanned after all, and the next scan goes on behind it, in the same pass.
    fn scan_vmas(&mut self, id: TaskId, mm: MmId, mut budget: Budget) {
        for is_forced in [false, true] {
            let mut cursor = self.mm(mm).scan.offset;
            let mut at = self.mm(mm).find_from(cursor);
            if at >= self.mm(mm).vmas.len() {
                self.end_pass(mm);
                (cursor, at) = (0, 0);
            }
            let mut skipped_inactive = false;
            while let Some(vma) = self.mm(mm).vmas.get(at).cloned() {
                at += 1;
                if let Some(reason) = self.why_not_scan(id, mm, &vma, at - 1, is_forced) {
                    skipped_inactive |= reason == "pid_inactive";
                    self.emit(|_| Event::SkipVmaNuma {
                        start: vma.start * PAGE_BYTES,
                        end: vma.end * PAGE_BYTES,
                        reason,
                    });
                    continue;
                }
                cursor = self.scan_vma(id, mm, &vma, cursor.max(vma.start), &mut budget);
                let is_spent = budget.pages == 0 || budget.virtual_pages == 0;
                if !is_spent {
                    let seq = self.mm(mm).scan.seq;
                    self.mm_mut(mm).vmas[at - 1].scan.prev_seq = seq;
                }
                if is_spent || is_forced {
                    self.mm_mut(mm).scan.offset = cursor;
                    return;
                }
            }
            if !skipped_inactive {
                break;
            }
        }
        self.end_pass(mm);
    }

    /// `reset_ptenuma_scan`.
    fn end_pass(&mut self, mm: MmId) {
        let scan = &mut self.mm_mut(mm).scan;
        scan.seq += 1;
        scan.offset = 0;
    }

    /// Marks a VMA from `start` on, window by window; where it stopped.
    fn scan_vma(
        &mut self,
        id: TaskId,
        mm: MmId,
        vma: &Vma,
        start: u64,
        budget: &mut Budget,
    ) -> u64 {
        let mut start = start;
        while start < vma.end && budget.pages > 0 && budget.virtual_pages > 0 {
            let window = (start + budget.pages).next_multiple_of(Self::UNIT_PAGES);
            let end = window.min(vma.end);
            let length = end - start;
            if self.mark_range(id, mm, vma, start, end) > 0 {
                budget.pages = budget.pages.saturating_sub(length);
            }
            budget.virtual_pages = budget.virtual_pages.saturating_sub(length);
            start = end;
        }
        start
    }

    /// The kernel's reason for passing over a VMA whatever its history.
    fn is_unsuitable(&self, id: TaskId, vma: &Vma) -> Option<&'static str> {
        let protection = vma.protection;
        let policy = self.scan_policy(id, vma);
        if !is_migratable(vma) || vma.has(vm::HUGETLB | vm::DONT_SPLIT) || policy.is_err() {
            Some("unsuitable")
        } else if vma.file().is_some() && protection.read && !protection.write {
            Some("shared_ro")
        } else if !protection.is_accessible() {
            Some("inaccessible")
        } else {
            None
        }
    }

    /// `Err`: a policy that pages must not leave (`vma_policy_mof`).
    fn scan_policy(&self, id: TaskId, vma: &Vma) -> Result<(), ()> {
        let own = self.vma_policy(vma, vma.start);
        let is_shmem = vma.file().is_some_and(|file| self.file(file).kind.is_shmem());
        if is_shmem && own.is_none() && !self.behaviour.scans_shmem_by_thread {
            return Err(());
        }
        let policy: Option<MemPolicy> = own.or(self.tasks[&id].policy);
        if policy.is_none_or(|policy| policy.migrates_on_fault()) { Ok(()) } else { Err(()) }
    }

    /// The kernel's reason for passing over the VMA with this index; `is_forced`: whoever used it.
    fn why_not_scan(
        &mut self,
        id: TaskId,
        mm: MmId,
        vma: &Vma,
        at: usize,
        is_forced: bool,
    ) -> Option<&'static str> {
        if let Some(reason) = self.is_unsuitable(id, vma) {
            return Some(reason);
        }
        if !self.behaviour.staged_engine {
            return None; // 6.1 keeps no history of a VMA.
        }
        let (now, delay) = (self.balancing.now_ms, self.balancing.settings.scan_delay_ms);
        let (seq, offset) = (self.mm(mm).scan.seq, self.mm(mm).scan.offset);
        let users = self.mm(mm).users;
        let scan = &mut self.mm_mut(mm).vmas[at].scan;
        if !scan.met {
            scan.met = true;
            scan.start_seq = seq;
            scan.next_scan_ms = now + delay;
            scan.pids_reset_ms = scan.next_scan_ms + 4 * delay;
            scan.prev_seq = seq.wrapping_sub(1);
        }
        if seq != 0 && now < scan.next_scan_ms {
            return Some("scan_delay");
        }
        if now > scan.pids_reset_ms {
            scan.pids_reset_ms += 4 * delay;
            scan.pids = [scan.pids[1], 0];
        }
        let seen = (scan.pids[0] | scan.pids[1]) >> pid_bit(id) & 1 == 1;
        if scan.prev_seq == seq {
            self.mm_mut(mm).scan.offset = vma.end;
            return Some("seq_completed");
        }
        let active = is_forced
            || seq.wrapping_sub(scan.start_seq) < 2
            || seen
            || offset > vma.start
            || seq > scan.prev_seq.wrapping_add(users);
        if active { None } else { Some("pid_inactive") }
    }

    /// Remembers that a thread took a hint fault in the VMA of a page.
    pub(crate) fn note_pid(&mut self, id: TaskId, mm: MmId, page: u64) {
        if let Some(at) = self.mm(mm).find(page) {
            self.mm_mut(mm).vmas[at].scan.pids[1] |= 1 << pid_bit(id);
        }
    }

    /// Makes the pages of a range inaccessible; how many entries were changed, a PMD as 512
    /// (`change_prot_numa`).
    fn mark_range(&mut self, id: TaskId, mm: MmId, vma: &Vma, start: u64, end: u64) -> u64 {
        let (mut updates, mut huge_updates) = (0, 0);
        let cpu = self.nodes.of_cpu(self.tasks[&id].cpu);
        let mut page = start;
        while page < end {
            let unit = page >> PMD_ORDER;
            let unit_end = ((unit + 1) << PMD_ORDER).min(end);
            let pmd = self.mm(mm).pmd(unit);
            match pmd.kind() {
                EntryKind::Table => {
                    for page in page..unit_end {
                        let (entry, _) = self.entry(mm, page);
                        if self.may_mark(mm, vma, entry, cpu, false) {
                            self.note_marking_time(entry.pfn());
                            self.set_pte(mm, page, self.marked(entry));
                            updates += 1;
                        }
                    }
                }
                EntryKind::Present
                    if unit_end - page == Self::UNIT_PAGES
                        && self.may_mark(mm, vma, pmd, cpu, true) =>
                {
                    self.note_marking_time(pmd.pfn());
                    self.set_pmd(mm, unit, self.marked(pmd));
                    updates += Self::UNIT_PAGES;
                    huge_updates += 1;
                }
                _ => {}
            }
            page = unit_end;
        }
        self.counters.add(Counter::NumaPteUpdates, updates);
        self.counters.add(Counter::NumaHugePteUpdates, huge_updates);
        updates
    }

    /// 6.1 saves the write bit in the hint; later kernels work it out again.
    fn marked(&self, entry: Entry) -> Entry {
        let entry = entry.with_kind(EntryKind::Hint);
        if self.behaviour.hint_keeps_write { entry } else { entry.without(Entry::WRITE) }
    }

    fn may_mark(&self, mm: MmId, vma: &Vma, entry: Entry, cpu: Slot, huge: bool) -> bool {
        if entry.kind() != EntryKind::Present {
            return false;
        }
        let (pfn, head) = (entry.pfn(), self.frames.head(entry.pfn()));
        let owner = self.frames.owner(head);
        let slot = self.nodes.slot_of(pfn);
        if owner.is_ksm() || self.frames.has(head, flag::RESERVED) {
            return false;
        }
        let tier_forbids = !self.balancing.has(BALANCE_NORMAL) && self.nodes.is_top_tier(slot);
        if tier_forbids {
            return false;
        }
        if huge && !self.behaviour.scan_skips_local_pmd {
            return true;
        }
        let is_private = !vma.is_shared();
        let dirty_file = matches!(owner, Owner::File { .. })
            && self.frames.has(head, flag::DIRTY)
            && !self.frames.has(head, flag::SWAP_BACKED);
        let local = self.mm(mm).users == 1 && slot == cpu;
        let stays = is_private && (local || self.is_shared_for_scan(pfn));
        !stays && !dirty_file
    }

    fn is_shared_for_scan(&self, pfn: Pfn) -> bool {
        let head = self.frames.head(pfn);
        if self.behaviour.scan_wants_one_reference {
            return self.frames.order(head) > 0
                || self.frames.mapcount(pfn) != 1
                || self.frames.extra_references(head) > 0
                || self.frames.has(head, flag::IN_LRU_BATCH);
        }
        self.frames.has(head, flag::LONGTERM_PIN) || self.is_shared_folio(head)
    }

    /// In tiering mode a page on a slower tier remembers when it was marked.
    fn note_marking_time(&mut self, pfn: Pfn) {
        let slower = !self.nodes.is_top_tier(self.nodes.slot_of(pfn));
        if slower && self.balancing.has(BALANCE_TIERING) {
            let head = self.frames.head(pfn);
            let now = self.balancing.now_ms;
            self.frames.set_cpupid(head, super::tiering::time_word(now));
        }
    }
}

/// Bit of a thread in a VMA's bitmap (`hash_32` to six bits).
const fn pid_bit(id: TaskId) -> u32 {
    id.bits().wrapping_mul(0x61c8_8647) >> 26
}

#[cfg(test)]
mod tests {
    use machine::{CpuId, load};

    use super::*;
    use crate::mm::mapping::MapKind;
    use crate::mm::task::Credentials;
    use crate::mm::vdso::{VDSO_ADDRESS, VVAR_PAGES};
    use crate::mm::vma::{Protection, VmaScan};
    use crate::{BalancingSettings, KernelVersion, Options};

    fn machine() -> (Machine, TaskId) {
        let topology = load("two-socket").unwrap();
        let mut machine = Machine::boot(topology, KernelVersion::V6_12, Options::default());
        let task = machine.spawn(Credentials::ROOT, CpuId::new(0).unwrap());
        let settings = BalancingSettings { mode: BALANCE_NORMAL, ..machine.balancing() };
        machine.set_balancing(settings).unwrap();
        (machine, task)
    }

    #[test]
    fn what_a_thread_did_not_use_is_scanned_one_vma_a_scan_in_the_same_pass() {
        let (mut machine, task) = machine();
        let vvar = VDSO_ADDRESS - VVAR_PAGES * PAGE_BYTES;
        machine.munmap(task, vvar, (VVAR_PAGES + 2) * PAGE_BYTES).unwrap();
        let mm = machine.mm_of(task).unwrap();
        for page in [16, 32, 48] {
            let address = page * PAGE_BYTES;
            machine.mmap(task, address, 1, MapKind::Anon, Protection::READ_WRITE).unwrap();
        }
        // Met in pass 0, scanned last in pass 9; the first was used by the thread.
        let met = VmaScan { met: true, prev_seq: 9, pids_reset_ms: 1 << 40, ..VmaScan::default() };
        machine.mm_mut(mm).vmas.iter_mut().for_each(|vma| vma.scan = met.clone());
        machine.mm_mut(mm).vmas[0].scan.pids[0] = 1 << pid_bit(task);
        machine.mm_mut(mm).scan.seq = 10;

        let mut seen = Vec::new();
        for _ in 0..3 {
            machine.scan_vmas(task, mm, Budget { pages: 512, virtual_pages: 4096 });
            let scanned = machine.mm(mm).vmas.iter().map(|vma| vma.scan.prev_seq).collect();
            seen.push((machine.mm(mm).scan.seq, machine.mm(mm).scan.offset, scanned));
        }
        let expected: [(u32, u64, Vec<u32>); 3] =
            [(10, 33, vec![10, 10, 9]), (10, 49, vec![10, 10, 10]), (11, 33, vec![11, 11, 10])];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_thread_that_scanned_gives_way_to_the_others_for_two_ticks() {
        let (mut machine, task) = machine();
        machine.mm_mut(machine.mm_of(task).unwrap()).scan.next_scan_ms = 1;
        machine.run(task, 1004);
        let balance = &machine.tasks[&task].balance;
        assert_eq!((balance.period_ms, balance.stamp_ms), (1000, 1000 + 2 * TICK_MS));
    }
}
