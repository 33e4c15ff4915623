//! What the model knows of pages: those without a place, those that relatives by fork share.

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, flag};
use crate::mm::address_space::MmId;
use crate::mm::adopt::Found;
use crate::mm::mapping::{PAGE_BYTES, page_range};
use crate::mm::page_table::{Entry, EntryKind};
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};

const UNIT: u64 = PMD_PAGES as u64;

impl Machine {
    /// Runs of pages in `[start, end)` (bytes) that have no place yet, given what they are: an anonymous
    /// page has none that was the zero page, or one of a file, when it was found last.
    pub fn unplaced(&self, task: TaskId, start: u64, end: u64, found: Found) -> Vec<(u64, u64)> {
        let Some(mm) = self.mm_of(task) else { return Vec::new() };
        let (mut page, end) = page_range(start, end.saturating_sub(start));
        let mut runs = Vec::new();
        while page < end {
            let pmd = self.mm(mm).pmd(page >> PMD_ORDER);
            let by_table = pmd.kind() == EntryKind::Table;
            let unit_end = end.min(((page >> PMD_ORDER) + 1) << PMD_ORDER);
            let upto = if by_table { page + 1 } else { unit_end };
            if !self.has_place(mm, page, found) {
                push(&mut runs, (page, upto));
            }
            page = upto;
        }
        runs
    }

    fn has_place(&self, mm: MmId, page: u64, found: Found) -> bool {
        let entry = self.entry(mm, page).0;
        match (found, entry.mapped()) {
            (Found::Anon | Found::Huge, None) => false,
            (Found::Anon, Some(pfn)) => {
                let is_shared = self.mm(mm).vma(page).is_some_and(Vma::is_shared);
                is_shared || self.frames.owner(self.frames.head(pfn)).is_anon()
            }
            _ => entry != Entry::NONE,
        }
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

    /// Whether anything is mapped in `[start, end)` (bytes).
    pub fn is_mapped(&self, task: TaskId, start: u64, end: u64) -> bool {
        let Some(mm) = self.mm_of(task) else { return false };
        let (start, end) = page_range(start, end.saturating_sub(start));
        let mm = self.mm(mm);
        mm.vmas.get(mm.find_from(start)).is_some_and(|vma| vma.start < end)
    }

    /// Whether a task has pages of mappings that others may share.
    pub fn maps_shared_pages(&self, task: TaskId) -> bool {
        let Some(mm) = self.mm_of(task) else { return false };
        let mut shared =
            self.mm(mm).vmas.iter().filter(|vma| vma.is_shared() && !vma.has(vm::PFNMAP));
        shared.any(|vma| {
            self.mm(mm).units_in(vma.start, vma.end).into_iter().any(|(unit, _)| {
                let first = unit << PMD_ORDER;
                let pages = first.max(vma.start)..(first + UNIT).min(vma.end);
                pages.into_iter().any(|page| self.entry(mm, page).0 != Entry::NONE)
            })
        })
    }

    /// Runs of anonymous pages that are shared with a relative by fork, or were (bytes): a store to
    /// one of them makes a copy, or will find that none is needed.
    pub fn copy_on_write_runs(&self, task: TaskId) -> Vec<(u64, u64)> {
        let Some(mm) = self.mm_of(task) else { return Vec::new() };
        let mut runs = Vec::new();
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
                push(&mut runs, (page, page + 1));
            }
        }
        runs
    }

    pub(super) fn has_entries(&self, mm: MmId, start: u64, end: u64) -> bool {
        !self.mm(mm).units_in(start, end).is_empty()
    }
}

/// Adds pages to the runs of bytes, which are in order.
fn push(runs: &mut Vec<(u64, u64)>, (page, upto): (u64, u64)) {
    let (start, end) = (page * PAGE_BYTES, upto * PAGE_BYTES);
    match runs.last_mut() {
        Some(run) if run.1 == start => run.1 = end,
        _ => runs.push((start, end)),
    }
}
