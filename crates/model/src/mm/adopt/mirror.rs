//! Mappings: made equal to those that another kernel has, and moved as its mremap(2) moved them.

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES};
use crate::mm::address_space::MmId;
use crate::mm::mapping::{MapKind, PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Protection, Vma};

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

impl Machine {
    /// Makes the mappings of a process equal to `wanted`, which is in order. What is alike already
    /// keeps its policy and its pages.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory, or `wanted` overlaps or is no whole pages.
    pub fn mirror(&mut self, task: TaskId, wanted: &[Mirrored]) {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        self.mm_mut(mm).is_mirror = true;
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

    /// mremap(2) as another kernel has done it: what is mapped in `length` bytes from `from` lies at
    /// `to` from now on, with its pages and policies, and what was there is gone. With `leaves_mapping`
    /// (`MREMAP_DONTUNMAP`) the mapping stays where it was too, with its policy and without pages. A hugetlb
    /// mapping that would have to be cut stays.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn relocate(
        &mut self,
        task: TaskId,
        from: u64,
        length: u64,
        to: u64,
        leaves_mapping: bool,
    ) {
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
        let moving: Vec<Vma> = match leaves_mapping {
            true => space.vmas[low..high].to_vec(),
            false => space.vmas.drain(low..high).collect(),
        };
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

    /// mremap(2) as another kernel has done it: the private anonymous mapping that ended at `end` goes up to
    /// `new_end` (bytes) from now on, with one policy. Nothing happens where something else is mapped.
    pub fn grow(&mut self, task: TaskId, end: u64, new_end: u64) {
        let Some(mm) = self.mm_of(task) else { return };
        let (end, new_end) = (end / PAGE_BYTES, new_end / PAGE_BYTES);
        let space = self.mm_mut(mm);
        let Some(at) = end.checked_sub(1).and_then(|last| space.find(last)) else { return };
        let vma = &space.vmas[at];
        let is_free = space.vmas.get(at + 1).is_none_or(|next| next.start >= new_end);
        if end < new_end && vma.end == end && vma.backing == Backing::Anon && is_free {
            let added = Vma { start: end, end: new_end, pgoff: vma.offset_of(end), ..vma.clone() };
            space.insert(added);
            space.merge(end, new_end);
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
