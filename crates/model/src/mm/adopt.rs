//! Adoption: processes that live elsewhere, whose pages exist already and only need a place.
//!
//! `pagetide run` has real processes and a real kernel's word for which pages they have. It mirrors
//! their mappings here ([`Machine::mirror`]), then says of each run of pages what it is
//! ([`Machine::place`]) or that it is gone ([`Machine::forget`]). What is placed goes where a first
//! touch by that thread would have put it; what has a place keeps it. Whether pages are huge is the
//! caller's word too, not [`crate::ThpMode`]'s.

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::memory::owner::{FileId, Owner};
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, Fault, WRITTEN};
use crate::mm::file::FileKind;
use crate::mm::mapping::{MapKind, PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Protection, Vma, vm};

const UNIT: u64 = PMD_PAGES as u64;

/// A mapping as another kernel has it; bytes, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
    /// What is behind it.
    pub kind: MapKind,
    /// What may be done with it.
    pub protection: Protection,
}

impl Mirrored {
    /// The part of it from `start` to `end`.
    #[must_use]
    pub fn part(&self, start: u64, end: u64) -> Self {
        Self { start, end, kind: shifted(self, start / PAGE_BYTES), ..*self }
    }
}

/// What a run of pages is that another kernel has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Anonymous pages, in private mappings.
    Anon,
    /// THPs or hugetlb pages.
    Huge,
    /// Pages of the file behind the mapping.
    File,
    /// The zero page.
    Zero,
    /// The huge zero page.
    HugeZero,
}

impl Machine {
    /// The next task has the number after this one, as after a write to
    /// `/proc/sys/kernel/ns_last_pid`.
    pub fn set_last_task(&mut self, number: i32) {
        self.last_task = number;
    }

    /// The task with this number.
    pub fn task(&self, number: i32) -> Option<TaskId> {
        let id = TaskId(number);
        self.tasks.contains_key(&id).then_some(id)
    }

    /// execve(2) by the thread `by` of a process: an empty address space (not even a vdso), and the
    /// policy and CPU of that thread. The other threads are the caller's to end.
    pub fn exec(&mut self, process: TaskId, by: TaskId) {
        let mm = self.new_address_space();
        let (policy, rotor, cpu) = match self.tasks.get(&by) {
            Some(by) => (by.policy, by.rotor, by.cpu),
            None => return,
        };
        let Some(task) = self.tasks.get_mut(&process) else { return };
        (task.policy, task.rotor, task.cpu) = (policy, rotor, cpu);
        if let Some(old) = task.mm.replace(mm) {
            self.leave_address_space(old);
        }
    }

    /// fork(2) and execve(2) in one: a process with all that `parent` hands on, and an empty address
    /// space. `None`: no such task.
    pub fn spawn_like(&mut self, parent: TaskId) -> Option<TaskId> {
        if !self.tasks.contains_key(&parent) {
            return None;
        }
        let mm = self.new_address_space();
        let id = self.new_task_id();
        let task = self.copy_task(parent, id, mm);
        self.tasks.insert(id, task);
        Some(id)
    }

    /// Whether a first touch by either task would put a page of private memory on the same node.
    pub fn places_alike(&self, one: TaskId, other: TaskId) -> bool {
        let placing = |task| {
            let task = self.tasks.get(&task)?;
            Some((task.policy, self.nodes.of_cpu(task.cpu), task.mems_allowed))
        };
        placing(one).is_some_and(|placing_of_one| Some(placing_of_one) == placing(other))
    }

    /// The files of the vdso and of its data, for mirroring.
    pub const fn vdso_files(&self) -> (FileId, FileId) {
        (self.vdso, self.vvar)
    }

    /// Makes the mappings of a process equal to `wanted`, which is in order. What is alike already
    /// keeps its policy and its pages.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory, or `wanted` overlaps or is no whole pages.
    pub fn mirror(&mut self, task: TaskId, wanted: &[Mirrored]) {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        for (start, end) in self.surplus(mm, wanted) {
            // A boundary inside a hugetlb page or the vdso cannot be cut: such a mapping stays.
            let _ = self.unmap_range(mm, start, end);
        }
        for mapping in wanted {
            self.mirror_one(task, mm, mapping);
        }
    }

    /// Page ranges that are mapped here and not, or otherwise, in `wanted`.
    fn surplus(&self, mm: MmId, wanted: &[Mirrored]) -> Vec<(u64, u64)> {
        let mut gone = Vec::new();
        let mut at = 0;
        for vma in &self.mm(mm).vmas {
            let mut page = vma.start;
            while page < vma.end {
                while wanted.get(at).is_some_and(|next| next.end / PAGE_BYTES <= page) {
                    at += 1;
                }
                let next = wanted.get(at).filter(|next| next.start / PAGE_BYTES < vma.end);
                let Some(next) = next else {
                    gone.push((page, vma.end));
                    break;
                };
                let (start, end) = (next.start / PAGE_BYTES, next.end / PAGE_BYTES);
                if page < start {
                    gone.push((page, start));
                }
                let (from, upto) = (page.max(start), vma.end.min(end));
                if !same_backing(vma, next) {
                    gone.push((from, upto));
                }
                page = upto;
            }
        }
        gone
    }

    fn mirror_one(&mut self, task: TaskId, mm: MmId, wanted: &Mirrored) {
        let mut page = wanted.start / PAGE_BYTES;
        let end = wanted.end / PAGE_BYTES;
        while page < end {
            let vmas = &self.mm(mm).vmas;
            let at = self.mm(mm).find_from(page);
            let (upto, there) = match vmas.get(at) {
                Some(vma) if vma.start <= page => (vma.end.min(end), Some(vma.protection)),
                Some(vma) => (vma.start.min(end), None),
                None => (end, None),
            };
            let (address, pages) = (page * PAGE_BYTES, upto - page);
            // Neither fails but for hugetlb pools that are empty and boundaries inside their pages:
            // such memory stays unknown, and is reported as not present.
            match there {
                None => {
                    let kind = shifted(wanted, page);
                    let _ = self.mmap(task, address, pages, kind, wanted.protection);
                }
                Some(protection) if protection != wanted.protection => {
                    let _ = self.mprotect(task, address, pages * PAGE_BYTES, wanted.protection);
                }
                Some(_) => {}
            }
            page = upto;
        }
    }

    /// Gives a place to those pages of `[start, end)` (bytes) that have none yet: where a first
    /// touch by `task` would have put them.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`]: no node that the policy allows has room; pages before it are placed.
    /// [`Fault::Segv`]: there is no mapping. [`Fault::Bus`]: no hugetlb page is left.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn place(&mut self, task: TaskId, start: u64, end: u64, found: Found) -> Result<(), Fault> {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let (mut page, end) = page_range(start, end.saturating_sub(start));
        while page < end {
            let vma = self.mm(mm).vma(page).ok_or(Fault::Segv)?.clone();
            let upto = end.min(vma.end).min(((page >> PMD_ORDER) + 1) << PMD_ORDER);
            self.place_in_unit(task, mm, &vma, (page, upto), found)?;
            page = upto;
        }
        Ok(())
    }

    /// The same within one VMA and one 2 MiB unit.
    fn place_in_unit(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
        found: Found,
    ) -> Result<(), Fault> {
        let unit = page >> PMD_ORDER;
        let pmd = self.mm(mm).pmd(unit);
        let whole = upto - page == UNIT;
        if vma.has(vm::HUGETLB) {
            return self.hugetlb_fault(task, mm, vma, page, Access::Read);
        }
        if pmd.mapped().is_some() {
            return Ok(());
        }
        let anon = vma.backing == Backing::Anon;
        let empty = matches!(pmd.kind(), EntryKind::None | EntryKind::Zero);
        match found {
            Found::Huge if whole && anon && empty && self.new_thp(task, mm, vma, unit) => {
                return Ok(());
            }
            Found::HugeZero if whole && anon && pmd == Entry::NONE => {
                self.set_pmd(mm, unit, Entry::new(EntryKind::Zero, crate::Pfn(0), Entry::YOUNG));
                return Ok(());
            }
            Found::Zero | Found::HugeZero if pmd.kind() == EntryKind::Zero => return Ok(()),
            _ if pmd.kind() == EntryKind::Zero => self.split_pmd(mm, unit),
            _ => {}
        }
        match found {
            Found::Anon => self.place_anon(task, mm, vma, (page, upto)),
            Found::Huge if vma.file().is_none() => self.place_anon(task, mm, vma, (page, upto)),
            Found::Huge | Found::File => self.place_file(task, mm, vma, (page, upto)),
            Found::Zero | Found::HugeZero => {
                for page in page..upto {
                    if self.entry(mm, page).0 == Entry::NONE && !vma.is_shared() {
                        let zero = Entry::new(EntryKind::Zero, crate::Pfn(0), Entry::YOUNG);
                        self.set_pte(mm, page, zero);
                    }
                }
                Ok(())
            }
        }
    }

    /// Runs of pages in `[start, end)` that have no place yet (bytes).
    pub fn unplaced(&self, task: TaskId, start: u64, end: u64) -> Vec<(u64, u64)> {
        let Some(mm) = self.mm_of(task) else { return Vec::new() };
        let (mut page, end) = page_range(start, end.saturating_sub(start));
        let mut runs: Vec<(u64, u64)> = Vec::new();
        while page < end {
            let pmd = self.mm(mm).pmd(page >> PMD_ORDER);
            let by_table = pmd.kind() == EntryKind::Table;
            let unit_end = end.min(((page >> PMD_ORDER) + 1) << PMD_ORDER);
            let upto = if by_table { page + 1 } else { unit_end };
            if self.entry(mm, page).0 == Entry::NONE {
                match runs.last_mut() {
                    Some(run) if run.1 == page * PAGE_BYTES => run.1 = upto * PAGE_BYTES,
                    _ => runs.push((page * PAGE_BYTES, upto * PAGE_BYTES)),
                }
            }
            page = upto;
        }
        runs
    }

    /// Anonymous pages; a page of a file that stands there was copied since.
    fn place_anon(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
    ) -> Result<(), Fault> {
        let by = self.allocator(task);
        let mut placing = self.placing(task, vma, page, 0);
        let (family, cpu) = (self.mm(mm).family, self.tasks[&task].cpu);
        for page in page..upto {
            let old = self.entry(mm, page).0;
            if old.mapped().is_some_and(|pfn| {
                let owner = self.frames.owner(self.frames.head(pfn));
                owner.is_anon() || vma.is_shared()
            }) {
                continue;
            }
            placing.index = self.interleave_index(vma, page, 0);
            let pfn = self.allocate_by(&by, &placing, 0).ok_or(Fault::OutOfMemory)?;
            let index = page.wrapping_add_signed(-vma.moved);
            self.frames.set_owner(pfn, Owner::Anon { family, index });
            self.frames.set(pfn, flag::SWAP_BACKED | flag::EXCLUSIVE);
            self.lru_add(pfn, cpu);
            self.mm_mut(mm).note_anon(page);
            self.map_page(mm, vma, page, pfn, WRITTEN);
            if let Some(copied) = old.mapped() {
                self.unmap_page(copied, old);
            }
        }
        Ok(())
    }

    /// Pages of the file behind the mapping: found in its cache, or brought in.
    fn place_file(
        &mut self,
        task: TaskId,
        mm: MmId,
        vma: &Vma,
        (page, upto): (u64, u64),
    ) -> Result<(), Fault> {
        let Backing::File { file, .. } = vma.backing else { return Ok(()) };
        let placing = self.placing_in_file(task, vma, page, file);
        let kind = self.file(file).kind;
        let kernels = matches!(kind, FileKind::Vdso | FileKind::Vvar);
        for page in page..upto {
            if self.entry(mm, page).0 != Entry::NONE {
                continue;
            }
            let offset = vma.offset_of(page);
            let cached = self.file(file).pages.get(&offset).copied();
            if kernels && cached.is_none() {
                continue;
            }
            if vma.has(vm::PFNMAP) {
                let pfn = cached.ok_or(Fault::Bus)?;
                self.set_pte(mm, page, Entry::new(EntryKind::Special, pfn, Entry::YOUNG));
                continue;
            }
            let mut placing = placing;
            if kind.has_shared_policy() {
                placing = self.placing_in_file(task, vma, page, file);
            }
            let cached = self.cache_page(task, file, offset, &placing).ok_or(Fault::OutOfMemory)?;
            self.map_page(mm, vma, page, cached, Entry::YOUNG);
            self.note_mapper(mm, cached);
        }
        Ok(())
    }

    /// The pages of `[start, end)` (bytes) are gone.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn forget(&mut self, task: TaskId, start: u64, end: u64) {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let (start, end) = (start.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
        if start < end && self.has_entries(mm, start, end) {
            self.discard(mm, start, end);
            self.release_tables(mm, start, end);
        }
    }

    fn has_entries(&self, mm: MmId, start: u64, end: u64) -> bool {
        !self.mm(mm).units_in(start, end).is_empty()
    }

    /// mremap(2) as another kernel has done it: what is mapped in `length` bytes from `from` lies at
    /// `to` from now on, with its pages and policies, and what was there is gone. A hugetlb mapping
    /// that would have to be cut stays.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn relocate(&mut self, task: TaskId, from: u64, length: u64, to: u64) {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let (start, end) = page_range(from, length);
        let shift = (to / PAGE_BYTES).cast_signed() - start.cast_signed();
        let target = (start.wrapping_add_signed(shift), end.wrapping_add_signed(shift));
        let overlaps = target.0 < end && start < target.1;
        if overlaps || self.unmap_range(mm, target.0, target.1).is_err() {
            return;
        }
        if self.cut(mm, start, end).is_err() {
            return;
        }
        let by_pmd_too = shift.unsigned_abs().is_multiple_of(UNIT);
        if !by_pmd_too {
            self.mm(mm).units_in(start, end).into_iter().for_each(|(unit, _)| {
                self.split_pmd(mm, unit);
            });
        }
        let mut entries = Vec::new();
        for (unit, pmd) in self.mm(mm).units_in(start, end) {
            let first = unit << PMD_ORDER;
            if pmd.kind() != EntryKind::Table {
                entries.push((first, pmd, true));
                continue;
            }
            let pages = first.max(start)..(first + UNIT).min(end);
            let found = pages.map(|page| (page, self.entry(mm, page).0, false));
            entries.extend(found.filter(|(_, entry, _)| *entry != Entry::NONE));
        }
        self.clear_entries(mm, &entries);
        self.release_tables(mm, start, end);
        let space = self.mm_mut(mm);
        let (low, high) =
            (space.find_from(start), space.vmas.partition_point(|vma| vma.start < end));
        let moving: Vec<Vma> = space.vmas.drain(low..high).collect();
        space.has_moved = true;
        for vma in moving {
            let (start, end) = (vma.start, vma.end);
            space.insert(Vma {
                start: start.wrapping_add_signed(shift),
                end: end.wrapping_add_signed(shift),
                moved: vma.moved + shift,
                ..vma
            });
        }
        for (page, entry, by_pmd) in entries {
            let page = page.wrapping_add_signed(shift);
            if by_pmd {
                self.set_pmd(mm, page >> PMD_ORDER, entry);
            } else {
                self.set_pte(mm, page, entry);
            }
        }
    }

    /// Places of `wanted` where nothing is mapped here: `(start, end)` in bytes.
    pub fn unmirrored(&self, task: TaskId, wanted: &[Mirrored]) -> Vec<(u64, u64)> {
        let Some(mm) = self.mm_of(task) else { return Vec::new() };
        let mut free = Vec::new();
        for mapping in wanted {
            let (mut page, end) = (mapping.start / PAGE_BYTES, mapping.end / PAGE_BYTES);
            while page < end {
                let next = self.mm(mm).vmas.get(self.mm(mm).find_from(page));
                let next = next.filter(|vma| vma.start < end);
                let upto = next.map_or(end, |vma| vma.start.max(page));
                if page < upto {
                    free.push((page * PAGE_BYTES, upto * PAGE_BYTES));
                }
                page = next.map_or(end, |vma| vma.end);
            }
        }
        free
    }

    /// Whether anything is known of `[start, end)` (bytes) that unmapping it would take away: pages,
    /// or a policy of its own. Cheap where nothing is.
    pub fn knows(&self, task: TaskId, start: u64, end: u64) -> bool {
        let Some(mm) = self.mm_of(task) else { return false };
        let (start, end) = page_range(start, end.saturating_sub(start));
        let mm_ref = self.mm(mm);
        let from = mm_ref.find_from(start);
        mm_ref.vmas[from..].iter().take_while(|vma| vma.start < end).any(|vma| {
            vma.policy.is_some() || self.has_entries(mm, vma.start.max(start), vma.end.min(end))
        })
    }

    /// Runs of anonymous pages that are shared with a relative by fork, or were (bytes): a store to
    /// one of them makes a copy, or will find that none is needed.
    pub fn copy_on_write_runs(&self, task: TaskId) -> Vec<(u64, u64)> {
        let Some(mm) = self.mm_of(task) else { return Vec::new() };
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let shared = |entry: Entry| {
            entry.mapped().is_some_and(|pfn| {
                let head = self.frames.head(pfn);
                !self.frames.has(pfn, flag::EXCLUSIVE)
                    && !self.frames.has(head, flag::EXCLUSIVE)
                    && self.frames.owner(head).is_anon()
            })
        };
        for (unit, pmd) in self.mm(mm).units() {
            let first = unit << PMD_ORDER;
            for page in first..first + UNIT {
                if !shared(self.entry(mm, page).0) {
                    if pmd.kind() != EntryKind::Table {
                        break;
                    }
                    continue;
                }
                match runs.last_mut() {
                    Some(run) if run.1 == page * PAGE_BYTES => run.1 += PAGE_BYTES,
                    _ => runs.push((page * PAGE_BYTES, (page + 1) * PAGE_BYTES)),
                }
            }
        }
        runs
    }

    /// A page that was shared after fork is `task`'s alone now, as after a store by it.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`]: there is no room for its copy.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn unshare(&mut self, task: TaskId, address: u64) -> Result<(), Fault> {
        match self.access(task, address, Access::Write) {
            Err(Fault::OutOfMemory) => Err(Fault::OutOfMemory),
            // A mapping that may not be written any more: the copy was made before.
            _ => Ok(()),
        }
    }

    /// Drops the cached pages of files on disks that nobody maps, as reclaim would. Pages.
    pub fn drop_caches(&mut self) -> u64 {
        let mut dropped = 0;
        for at in 0..self.files.len() {
            let file = &mut self.files[at];
            if file.kind != FileKind::Disk || !file.mappers.is_empty() {
                continue;
            }
            for page in std::mem::take(&mut file.pages).into_values() {
                self.frames.set_owner(page, Owner::None);
                self.free_if_unused(page);
                dropped += 1;
            }
        }
        dropped
    }
}

/// The kind of the part of a mapping that begins at `page`.
fn shifted(wanted: &Mirrored, page: u64) -> MapKind {
    let by = page - wanted.start / PAGE_BYTES;
    match wanted.kind {
        MapKind::Anon => MapKind::Anon,
        MapKind::Shared(file, offset) => MapKind::Shared(file, offset + by),
        MapKind::Private(file, offset) => MapKind::Private(file, offset + by),
    }
}

fn same_backing(vma: &Vma, wanted: &Mirrored) -> bool {
    let start = wanted.start / PAGE_BYTES;
    match (vma.backing, wanted.kind) {
        (Backing::Anon, MapKind::Anon) => true,
        (Backing::File { file, shared: true }, MapKind::Shared(theirs, offset))
        | (Backing::File { file, shared: false }, MapKind::Private(theirs, offset)) => {
            file == theirs && vma.pgoff.wrapping_sub(vma.start) == offset.wrapping_sub(start)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, KernelVersion, Options};
    use machine::{CpuId, Topology};

    const BASE: u64 = 0x7000_0000_0000;
    const MIB: u64 = 1 << 20;

    fn machine() -> Machine {
        let topology: Topology = machine::load("two-socket").unwrap();
        Machine::boot(topology, KernelVersion::V6_12, Options::default())
    }

    /// A process with an empty address space, on this CPU.
    fn adopted(machine: &mut Machine, number: i32, cpu: u32) -> TaskId {
        machine.set_last_task(number - 1);
        let task = machine.spawn(Credentials::ROOT, CpuId::new(cpu).unwrap());
        machine.exec(task, task);
        task
    }

    fn anon(start: u64, end: u64) -> Mirrored {
        Mirrored { start, end, kind: MapKind::Anon, protection: Protection::READ_WRITE }
    }

    fn nodes(machine: &Machine, task: TaskId, start: u64, pages: u64) -> Vec<Option<u16>> {
        let node = |page| machine.node_of(task, start + page * PAGE_BYTES).map(|node| node.get());
        (0..pages).map(node).collect()
    }

    #[test]
    fn an_adopted_task_has_the_number_that_was_asked_for() {
        let mut machine = machine();
        let task = adopted(&mut machine, 4711, 0);
        assert_eq!((task.get(), machine.task(4711)), (4711, Some(task)));
        assert_eq!(machine.fork(task).unwrap().get(), 4712);
        machine.check().unwrap();
    }

    #[test]
    fn pages_are_placed_where_a_first_touch_would_put_them_and_placed_ones_stay() {
        let mut machine = machine();
        let task = adopted(&mut machine, 9, 0);
        machine.mirror(task, &[anon(BASE, BASE + MIB)]);
        machine.place(task, BASE, BASE + 2 * PAGE_BYTES, Found::Anon).unwrap();
        machine.set_cpu(task, CpuId::new(2).unwrap()).unwrap();
        machine.place(task, BASE, BASE + 4 * PAGE_BYTES, Found::Anon).unwrap();
        let placed = [Some(0), Some(0), Some(1), Some(1), None];
        assert_eq!(nodes(&machine, task, BASE, 5), placed);
        machine.check().unwrap();
    }

    #[test]
    fn threads_place_alike_as_long_as_policy_and_node_are_the_same() {
        let mut machine = machine();
        let one = adopted(&mut machine, 9, 0);
        let other = machine.clone_thread(one).unwrap();
        machine.set_cpu(other, CpuId::new(1).unwrap()).unwrap();
        assert!(machine.places_alike(one, other));
        machine.set_cpu(other, CpuId::new(2).unwrap()).unwrap();
        assert!(!machine.places_alike(one, other));
    }

    #[test]
    fn mirroring_keeps_what_is_alike_and_drops_what_is_gone() {
        let mut machine = machine();
        let task = adopted(&mut machine, 9, 0);
        machine.mirror(task, &[anon(BASE, BASE + MIB)]);
        machine.place(task, BASE, BASE + MIB, Found::Anon).unwrap();
        let free = machine.free_pages(machine::NodeId::new(0).unwrap());
        let hole = [anon(BASE, BASE + MIB / 4), anon(BASE + MIB / 2, BASE + 2 * MIB)];
        machine.mirror(task, &hole);
        let freed = machine.free_pages(machine::NodeId::new(0).unwrap()) - free;
        assert_eq!(freed, MIB / 4 / PAGE_BYTES);
        assert_eq!(
            machine.unplaced(task, BASE + MIB / 2, BASE + 2 * MIB),
            [(BASE + MIB, BASE + 2 * MIB)]
        );
        assert!(machine.unmirrored(task, &hole).is_empty());
        machine.check().unwrap();
    }

    #[test]
    fn a_huge_page_is_placed_whole_and_a_part_of_it_can_be_forgotten() {
        let mut machine = machine();
        let task = adopted(&mut machine, 9, 0);
        machine.mirror(task, &[anon(BASE, BASE + 4 * MIB)]);
        machine.place(task, BASE, BASE + 4 * MIB, Found::Huge).unwrap();
        assert_eq!(machine.huge_units(task, BASE, 4 * MIB), (2, 2));
        machine.forget(task, BASE, BASE + PAGE_BYTES);
        assert_eq!(nodes(&machine, task, BASE, 2), [None, Some(0)]);
        machine.check().unwrap();
    }

    #[test]
    fn shared_pages_have_one_place_for_all_who_map_them() {
        let mut machine = machine();
        let file = machine.create_file(FileKind::Memfd, "/memfd:x");
        let kind = MapKind::Shared(file, 0);
        let mapping = Mirrored { kind, ..anon(BASE, BASE + MIB) };
        let (one, two) = (adopted(&mut machine, 9, 2), adopted(&mut machine, 11, 0));
        for task in [one, two] {
            machine.mirror(task, &[mapping]);
            machine.place(task, BASE, BASE + PAGE_BYTES, Found::File).unwrap();
        }
        assert_eq!(nodes(&machine, two, BASE, 1), [Some(1)]);
        machine.check().unwrap();
    }

    #[test]
    fn pages_shared_after_fork_are_known_as_such_until_one_side_writes() {
        let mut machine = machine();
        let parent = adopted(&mut machine, 9, 0);
        machine.mirror(parent, &[anon(BASE, BASE + MIB)]);
        machine.place(parent, BASE, BASE + 2 * PAGE_BYTES, Found::Anon).unwrap();
        assert!(machine.copy_on_write_runs(parent).is_empty());
        let child = machine.fork(parent).unwrap();
        machine.set_cpu(child, CpuId::new(2).unwrap()).unwrap();
        assert_eq!(machine.copy_on_write_runs(child), [(BASE, BASE + 2 * PAGE_BYTES)]);
        machine.unshare(child, BASE).unwrap();
        assert_eq!(nodes(&machine, child, BASE, 2), [Some(1), Some(0)]);
        assert_eq!(nodes(&machine, parent, BASE, 2), [Some(0), Some(0)]);
        machine.check().unwrap();
    }

    #[test]
    fn relocated_pages_keep_their_place_also_where_huge_pages_must_be_cut() {
        for shift in [2 * MIB, 2 * MIB + 4 * PAGE_BYTES] {
            let mut machine = machine();
            let task = adopted(&mut machine, 9, 2);
            machine.mirror(task, &[anon(BASE, BASE + 2 * MIB)]);
            machine.place(task, BASE, BASE + 2 * MIB, Found::Huge).unwrap();
            machine.set_cpu(task, CpuId::new(0).unwrap()).unwrap();
            let to = BASE + 2 * MIB + shift;
            machine.relocate(task, BASE, 2 * MIB, to);
            machine.mirror(task, &[anon(to, to + 4 * MIB)]);
            assert_eq!(nodes(&machine, task, BASE, 1), [None]);
            assert_eq!(nodes(&machine, task, to, 512), vec![Some(1); 512]);
            machine.check().unwrap();
        }
    }

    #[test]
    fn a_machine_without_room_says_so_and_keeps_its_promises() {
        let mut machine = machine();
        let task = adopted(&mut machine, 9, 0);
        let end = BASE + (4 << 30);
        machine.mirror(task, &[anon(BASE, end)]);
        assert_eq!(machine.place(task, BASE, end, Found::Anon), Err(Fault::OutOfMemory));
        machine.check().unwrap();
        machine.exec(task, task);
        machine.check().unwrap();
    }
}
