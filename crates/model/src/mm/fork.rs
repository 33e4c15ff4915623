//! fork(2) and threads: how an address space is copied, and what stays shared.

use crate::Machine;
use crate::balance::TaskBalance;
use crate::errno::Errno;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::{Mm, MmId, MmScan};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::{Task, TaskId};
use crate::mm::vma::{Backing, Vma, VmaScan, vm};

impl Machine {
    /// fork(2): a child with a copy of the address space, in the group and with the policy of its
    /// parent.
    ///
    /// # Errors
    ///
    /// `ESRCH`: `parent` has no memory.
    pub fn fork(&mut self, parent: TaskId) -> Result<TaskId, Errno> {
        let mm = self.mm_of(parent).ok_or(Errno::ESRCH)?;
        self.delay_scan(mm);
        let copy = self.copy_address_space(mm);
        let id = self.new_task_id();
        let mut task = self.copy_task(parent, id, copy);
        task.policy = task.policy.filter(|_| !self.planted(PlantedFault::PolicyNotInherited));
        self.tasks.insert(id, task);
        Ok(id)
    }

    /// clone(2) with CLONE_THREAD: another thread of the same process.
    ///
    /// # Errors
    ///
    /// `ESRCH`: `creator` has no memory.
    pub fn clone_thread(&mut self, creator: TaskId) -> Result<TaskId, Errno> {
        let mm = self.mm_of(creator).ok_or(Errno::ESRCH)?;
        self.delay_scan(mm);
        self.mm_mut(mm).users += 1;
        let process = self.tasks[&creator].process;
        let id = self.new_task_id();
        let delay = self.balancing.settings.scan_delay_ms;
        let balance =
            TaskBalance::of_thread(&self.tasks[&creator].balance, delay, self.mm(mm).scan.seq);
        let task = Task { balance, ..self.copy_task(creator, process, mm) };
        self.tasks.insert(id, task);
        Ok(id)
    }

    pub(crate) fn copy_task(&self, from: TaskId, process: TaskId, mm: MmId) -> Task {
        let balance = TaskBalance::default();
        Task { process, mm: Some(mm), pins: Vec::new(), balance, ..self.tasks[&from].clone() }
    }

    /// Where one thread alone uses an address space, a fork or a second thread makes its scan start
    /// again (`init_numa_balancing`, which is called before the memory is copied or shared).
    fn delay_scan(&mut self, mm: MmId) {
        let next_scan_ms = self.balancing.now_ms + self.balancing.settings.scan_delay_ms;
        let mm = self.mm_mut(mm);
        if mm.users == 1 {
            mm.scan = MmScan { next_scan_ms, seq: 0, ..mm.scan.clone() };
        }
    }

    fn copy_address_space(&mut self, parent: MmId) -> MmId {
        let original = self.mm(parent);
        let mut copy = Mm::new(original.family);
        copy.dumpable = original.dumpable;
        copy.has_moved = original.has_moved;
        copy.is_mirror = original.is_mirror;
        copy.scan = original.scan.clone();
        let vmas = original.vmas.clone();
        let child = self.add_address_space(copy);
        for vma in vmas {
            if let Some(file) = vma.file() {
                self.file_mut(file).mappers.push(child);
            }
            let flags = vma.flags & !(vm::LOCKED | vm::LOCK_ON_FAULT);
            // The scanner has not met the copy (`vma_numab_state_init`).
            self.mm_mut(child).insert(Vma { flags, scan: VmaScan::default(), ..vma.clone() });
            self.copy_entries(parent, child, &vma);
        }
        let mappers = self.files.iter_mut().map(|file| &mut file.mappers);
        mappers.for_each(|mappers| {
            mappers.sort_unstable();
            mappers.dedup();
        });
        child
    }

    /// Private mappings that ever had a page of their own are copied; what the others have, zero
    /// pages and pages of a file, is faulted in again (`vma_needs_copy`).
    fn copy_entries(&mut self, parent: MmId, child: MmId, vma: &Vma) {
        let special = vma.has(vm::DONT_SPLIT) && vma.is_shared();
        let untouched = vma.backing == Backing::Anon && !vma.has(vm::HAD_ANON);
        if vma.is_shared() && !special || untouched || self.is_clean_file_mapping(parent, vma) {
            return;
        }
        let mut page = vma.start;
        while let Some(next) = self.mm(parent).next_with_entry(page).filter(|&it| it < vma.end) {
            page = next;
            let unit = page >> PMD_ORDER;
            let unit_end = ((unit + 1) << PMD_ORDER).min(vma.end);
            let pmd = self.mm(parent).pmd(unit);
            match pmd.kind() {
                EntryKind::None => {}
                EntryKind::Table => {
                    for page in page..unit_end {
                        self.copy_entry(parent, child, page);
                    }
                }
                _ => self.copy_pmd(parent, child, unit, pmd),
            }
            page = unit_end;
        }
    }

    /// A private file mapping without a copied page has nothing that a fault would not bring.
    fn is_clean_file_mapping(&self, mm: MmId, vma: &Vma) -> bool {
        let huge = vma.has(vm::HUGETLB);
        matches!(vma.backing, Backing::File { shared: false, .. })
            && !huge
            && self.mm(mm).units_in(vma.start, vma.end).into_iter().all(|(unit, _)| {
                let first = unit << PMD_ORDER;
                let mut pages = first.max(vma.start)..(first + u64::from(PMD_PAGES)).min(vma.end);
                pages.all(|page| {
                    let pfn = self.entry(mm, page).0.mapped();
                    pfn.is_none_or(|pfn| !self.frames.owner(self.frames.head(pfn)).is_anon())
                })
            })
    }

    fn copy_pmd(&mut self, parent: MmId, child: MmId, unit: u64, pmd: Entry) {
        let Some(pfn) = pmd.mapped() else {
            self.mm_mut(child).set_pmd(unit, pmd, 0);
            return;
        };
        let head = self.frames.head(pfn);
        let shared = pmd.without(Entry::WRITE);
        self.set_pmd(parent, unit, shared);
        self.set_pmd(child, unit, shared);
        if pfn == head {
            self.frames.clear(head, flag::EXCLUSIVE);
            self.frames.add_entire_mapcount(head);
            self.note_mapper(child, head);
        }
    }

    fn copy_entry(&mut self, parent: MmId, child: MmId, page: u64) {
        let (entry, _) = self.entry(parent, page);
        let Some(pfn) = entry.mapped() else {
            if entry != Entry::NONE {
                self.set_pte(child, page, entry);
            }
            return;
        };
        let head = self.frames.head(pfn);
        let owner = self.frames.owner(head);
        let copied = if owner.is_anon() { entry.without(Entry::WRITE) } else { entry };
        if owner.is_anon() {
            self.frames.clear(pfn, flag::EXCLUSIVE);
        }
        self.frames.add_mapcount(pfn);
        if let Owner::Ksm { node } = owner {
            self.ksm.add(node, child, page);
        }
        self.set_pte(parent, page, copied);
        self.set_pte(child, page, copied);
        let before = self.entry(child, page.saturating_sub(1)).0.mapped();
        if page == 0 || before.map(|pfn| self.frames.head(pfn)) != Some(head) {
            self.note_mapper(child, head);
        }
    }

    /// Pages that one PMD maps.
    pub(crate) const UNIT_PAGES: u64 = PMD_PAGES as u64;
}
