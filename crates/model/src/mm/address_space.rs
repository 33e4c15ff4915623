//! An address space: VMAs in order, and the PMD level of its page table.

use crate::Machine;
use crate::convert::{index, next_id};
use crate::memory::frames::{PMD_ORDER, PMD_PAGES};
use crate::memory::owner::FamilyId;
use crate::mm::mapping::{PAGE_BYTES, USER_LIMIT};
use crate::mm::page_table::{Entry, EntryKind, TableId, entry_index};
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};

/// An address space of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MmId(pub(crate) u32);

/// Neighbouring PMD entries. Runs are made where something is mapped (in a space that is a mirror: where
/// an entry is written), and never shrink.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    /// The first 2 MiB unit: page number divided by 512.
    first: u64,
    entries: Vec<Entry>,
    /// A byte for each page; see [`crate::mm::page_table`].
    hot: Vec<u8>,
}

/// Where the page-table entry of a page is kept, and its hot byte. It holds until something is
/// mapped or unmapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) table: TableId,
    run: u32,
    hot: usize,
}

impl Place {
    /// Position of the entry in its table.
    #[inline]
    pub(crate) const fn entry(self) -> usize {
        // Runs begin with a table.
        self.hot % PMD_PAGES as usize
    }
}

/// State of the balancing scanner (spec 10.2).
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct MmScan {
    pub(crate) next_scan_ms: u64,
    pub(crate) seq: u32,
    /// Page number.
    pub(crate) offset: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mm {
    pub(crate) vmas: Vec<Vma>,
    runs: Vec<Run>,
    pub(crate) family: FamilyId,
    /// Threads that use it.
    pub(crate) users: u32,
    pub(crate) dumpable: bool,
    /// Some VMA was moved by mremap(2).
    pub(crate) has_moved: bool,
    /// It follows that of another kernel, in which terabytes may be mapped that hold no page: reserves
    /// of databases and virtual machines, the shadow of a sanitizer.
    pub(crate) is_mirror: bool,
    pub(crate) scan: MmScan,
}

/// 2 MiB units of a run that is made where an entry is written.
const PART_UNITS: u64 = 32;

/// Why a VMA cannot be cut where it would have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CannotSplit;

impl Mm {
    pub(crate) fn new(family: FamilyId) -> Self {
        Self {
            vmas: Vec::new(),
            runs: Vec::new(),
            family,
            users: 1,
            dumpable: true,
            has_moved: false,
            is_mirror: false,
            scan: MmScan::default(),
        }
    }

    /// Index of the VMA that holds `page`.
    #[inline]
    pub(crate) fn find(&self, page: u64) -> Option<usize> {
        let at = self.find_from(page);
        self.vmas.get(at).filter(|vma| vma.start <= page).map(|_| at)
    }

    /// Index of the first VMA that ends behind `page`.
    #[inline]
    pub(crate) fn find_from(&self, page: u64) -> usize {
        self.vmas.partition_point(|vma| vma.end <= page)
    }

    /// The VMA that holds `page`; `hint` is the index of one that is likely, and becomes its index.
    #[inline]
    pub(crate) fn vma_near(&self, page: u64, hint: &mut usize) -> Option<&Vma> {
        let near = self.vmas.get(*hint).filter(|vma| vma.start <= page && page < vma.end);
        if near.is_some() {
            return near;
        }
        *hint = self.find(page)?;
        self.vmas.get(*hint)
    }

    #[inline]
    pub(crate) fn vma(&self, page: u64) -> Option<&Vma> {
        self.find(page).map(|at| &self.vmas[at])
    }

    /// Puts a VMA in its place; the place is empty.
    pub(crate) fn insert(&mut self, vma: Vma) {
        let at = self.find_from(vma.start);
        assert!(self.vmas.get(at).is_none_or(|next| next.start >= vma.end), "the place is empty");
        if !self.is_mirror {
            self.cover(vma.start, vma.end);
        }
        self.vmas.insert(at, vma);
    }

    /// Makes `page` a boundary between VMAs, if it is inside one.
    pub(crate) fn split_at(&mut self, page: u64, hugetlb_pages: u64) -> Result<(), CannotSplit> {
        let Some(at) = self.find(page) else { return Ok(()) };
        let vma = &mut self.vmas[at];
        if vma.start == page {
            return Ok(());
        }
        if vma.has(vm::DONT_SPLIT) || vma.has(vm::HUGETLB) && !page.is_multiple_of(hugetlb_pages) {
            return Err(CannotSplit);
        }
        let mut tail = vma.clone();
        tail.pgoff = vma.offset_of(page);
        tail.start = page;
        vma.end = page;
        self.vmas.insert(at + 1, tail);
        Ok(())
    }

    /// The mapping of a page gets a page of its own (`anon_vma_prepare`).
    pub(crate) fn note_anon(&mut self, page: u64) {
        let at = self.find_from(page);
        if let Some(vma) = self.vmas.get_mut(at).filter(|vma| vma.start <= page) {
            vma.flags |= vm::HAD_ANON;
        }
    }

    /// Joins neighbours that became alike, in and around `[start, end)`.
    pub(crate) fn merge(&mut self, start: u64, end: u64) {
        let mut at = self.find_from(start).saturating_sub(1);
        while at + 1 < self.vmas.len() && self.vmas[at].start <= end {
            if self.vmas[at].joins(&self.vmas[at + 1]) {
                self.vmas[at].end = self.vmas[at + 1].end;
                self.vmas[at].flags |= self.vmas[at + 1].flags & vm::HAD_ANON;
                self.vmas.remove(at + 1);
            } else {
                at += 1;
            }
        }
    }

    fn cover(&mut self, start: u64, end: u64) {
        let (first, last) = (start >> PMD_ORDER, (end - 1) >> PMD_ORDER);
        let within = self.run_of(first).zip(self.run_of(last));
        if within.is_some_and(|((one, _), (other, _))| one == other) {
            return;
        }
        let from = self.runs.partition_point(|run| run.first + (run.entries.len() as u64) < first);
        let upto = self.runs.partition_point(|run| run.first <= last + 1);
        let (mut low, mut high) = (first, last + 1);
        for run in &self.runs[from..upto] {
            low = low.min(run.first);
            high = high.max(run.first + run.entries.len() as u64);
        }
        let units = index(high - low);
        let mut joined =
            Run { first: low, entries: vec![Entry::NONE; units], hot: vec![0; units << PMD_ORDER] };
        for run in self.runs.drain(from..upto) {
            let at = index(run.first - low);
            joined.entries[at..at + run.entries.len()].copy_from_slice(&run.entries);
            let at = at << PMD_ORDER;
            joined.hot[at..at + run.hot.len()].copy_from_slice(&run.hot);
        }
        self.runs.insert(from, joined);
    }

    /// Makes a run around a unit that has none.
    fn cover_part(&mut self, unit: u64) {
        let part = unit / PART_UNITS * PART_UNITS;
        let at = self.runs.partition_point(|run| run.first <= unit);
        let behind = at.checked_sub(1).map(|before| &self.runs[before]);
        let behind = behind.map_or(0, |run| run.first + run.entries.len() as u64);
        let ahead = self.runs.get(at).map_or(u64::MAX, |run| run.first);
        let (first, end) = (part.max(behind), (part + PART_UNITS).min(ahead));
        let units = index(end - first);
        let run =
            Run { first, entries: vec![Entry::NONE; units], hot: vec![0; units << PMD_ORDER] };
        self.runs.insert(at, run);
    }

    #[inline(always)]
    fn run_of(&self, unit: u64) -> Option<(usize, usize)> {
        let run = self.runs.partition_point(|run| run.first <= unit).checked_sub(1)?;
        let at = index(unit - self.runs[run].first);
        (at < self.runs[run].entries.len()).then_some((run, at))
    }

    /// The PMD entry of a 2 MiB unit (page number divided by 512).
    #[inline]
    pub(crate) fn pmd(&self, unit: u64) -> Entry {
        self.run_of(unit).map_or(Entry::NONE, |(run, at)| self.runs[run].entries[at])
    }

    /// Writes a PMD entry; `hot` is the hot byte of each of its pages.
    pub(crate) fn set_pmd(&mut self, unit: u64, entry: Entry, hot: u8) {
        if self.is_mirror && self.run_of(unit).is_none() {
            self.cover_part(unit);
        }
        let (run, at) = self.run_of(unit).expect("a mapped unit is covered by a run");
        self.runs[run].entries[at] = entry;
        self.runs[run].hot[at << PMD_ORDER..(at + 1) << PMD_ORDER].fill(hot);
    }

    #[inline]
    pub(crate) fn set_hot(&mut self, page: u64, hot: u8) {
        let (run, at) = self.run_of(page >> PMD_ORDER).expect("a mapped page is covered by a run");
        self.runs[run].hot[(at << PMD_ORDER) + entry_index(page)] = hot;
    }

    /// The place of a page's entry, if there is a table for it.
    #[inline]
    pub(crate) fn place(&self, page: u64) -> Option<Place> {
        let (run, at) = self.run_of(page >> PMD_ORDER)?;
        let pmd = self.runs[run].entries[at];
        (pmd.kind() == EntryKind::Table).then(|| Place {
            table: pmd.table_id(),
            run: next_id(run),
            hot: (at << PMD_ORDER) + entry_index(page),
        })
    }

    /// Writes the hot byte of a page and returns what it was.
    #[inline(always)]
    pub(crate) fn replace_hot(&mut self, place: Place, hot: u8) -> u8 {
        std::mem::replace(&mut self.runs[place.run as usize].hot[place.hot], hot)
    }

    /// The hot bytes from `page` on, as far as they lie together.
    #[inline]
    pub(crate) fn hot_from(&self, page: u64) -> &[u8] {
        self.run_of(page >> PMD_ORDER)
            .map_or(&[], |(run, at)| &self.runs[run].hot[(at << PMD_ORDER) + entry_index(page)..])
    }

    #[inline]
    pub(crate) fn table(&self, unit: u64) -> Option<TableId> {
        let pmd = self.pmd(unit);
        (pmd.kind() == EntryKind::Table).then(|| pmd.table_id())
    }

    /// The 2 MiB units with an entry that hold pages of `[start, end)`.
    pub(crate) fn units_in(&self, start: u64, end: u64) -> Vec<(u64, Entry)> {
        if start >= end {
            return Vec::new();
        }
        let (first, last) = (start >> PMD_ORDER, (end - 1) >> PMD_ORDER);
        let mut units = Vec::new();
        for run in self.runs.iter().filter(|run| run.first <= last) {
            let skip = index(first.saturating_sub(run.first)).min(run.entries.len());
            let from = run.first + skip as u64;
            let numbered = (from..=last).zip(&run.entries[skip..]);
            units.extend(
                numbered.filter(|(_, entry)| **entry != Entry::NONE).map(|(unit, &e)| (unit, e)),
            );
        }
        units
    }

    /// The first page from `page` on in a 2 MiB unit that has an entry.
    pub(crate) fn next_with_entry(&self, page: u64) -> Option<u64> {
        let unit = page >> PMD_ORDER;
        let from = self.runs.partition_point(|run| run.first + run.entries.len() as u64 <= unit);
        self.runs[from..].iter().find_map(|run| {
            let skip = index(unit.saturating_sub(run.first));
            let at = run.entries[skip..].iter().position(|&entry| entry != Entry::NONE)?;
            Some(page.max((run.first + (skip + at) as u64) << PMD_ORDER))
        })
    }

    /// All 2 MiB units with an entry.
    pub(crate) fn units(&self) -> impl Iterator<Item = (u64, Entry)> + '_ {
        self.runs
            .iter()
            .flat_map(|run| {
                (run.first..).zip(&run.entries).filter(|(_, entry)| **entry != Entry::NONE)
            })
            .map(|(unit, &entry)| (unit, entry))
    }
}

impl Machine {
    #[inline]
    pub(crate) fn mm(&self, id: MmId) -> &Mm {
        self.mms[id.0 as usize].as_ref().expect("an address space lives as long as it is named")
    }

    #[inline(always)]
    pub(crate) fn mm_mut(&mut self, id: MmId) -> &mut Mm {
        self.mms[id.0 as usize].as_mut().expect("an address space lives as long as it is named")
    }

    /// Whether a task is there and has not exited.
    pub fn runs(&self, task: TaskId) -> bool {
        self.mm_of(task).is_some()
    }

    pub(crate) fn mm_of(&self, task: TaskId) -> Option<MmId> {
        self.tasks.get(&task)?.mm
    }

    pub(crate) fn new_address_space(&mut self) -> MmId {
        let family = self.free_families.pop().unwrap_or_else(|| {
            self.families.push(Vec::new());
            FamilyId(next_id(self.families.len() - 1))
        });
        self.add_address_space(Mm::new(family))
    }

    pub(crate) fn add_address_space(&mut self, mm: Mm) -> MmId {
        let id = self.free_mms.pop().unwrap_or_else(|| {
            self.mms.push(None);
            MmId(next_id(self.mms.len() - 1))
        });
        self.families[mm.family.0 as usize].push(id);
        self.mms[id.0 as usize] = Some(mm);
        id
    }

    /// A thread stops using an address space; the last one unmaps everything.
    pub(crate) fn leave_address_space(&mut self, id: MmId) {
        let mm = self.mm_mut(id);
        mm.users -= 1;
        if mm.users > 0 {
            return;
        }
        self.unmap_range(id, 0, USER_LIMIT / PAGE_BYTES).expect("no boundary is inside a VMA");
        let family = self.mm(id).family;
        // Nothing names the two any more, so that a machine on which programs come and go does not grow.
        // (An extra reference may keep a page of the family, which no entry maps.)
        self.mms[id.0 as usize] = None;
        self.free_mms.push(id);
        let members = &mut self.families[family.0 as usize];
        members.retain(|&member| member != id);
        if members.is_empty() {
            self.free_families.push(family);
        }
    }
}

#[cfg(test)]
mod tests {
    use machine::CpuId;

    use super::*;
    use crate::mm::vma::{Backing, Protection, VmaScan};
    use crate::{Credentials, KernelVersion, Options};

    fn mapped(start: u64, end: u64) -> Vma {
        Vma {
            start,
            end,
            pgoff: start,
            moved: 0,
            backing: Backing::Anon,
            protection: Protection::READ_WRITE,
            flags: 0,
            policy: None,
            scan: VmaScan::default(),
        }
    }

    #[test]
    fn a_mirror_of_terabytes_holds_runs_only_where_entries_are_written_and_finds_them() {
        let mut mm = Mm { is_mirror: true, ..Mm::new(FamilyId(0)) };
        let reserve = (1 << 30, 9 << 30);
        mm.insert(mapped(reserve.0, reserve.1));
        assert!(mm.runs.is_empty());
        let first = reserve.0 >> PMD_ORDER;
        // Beside each other, and far apart, in no order.
        let units = [70, 3, 69, 0, 1 << 20, 31, 32, 1 << 23].map(|unit| first + unit);
        for unit in units {
            mm.set_pmd(unit, Entry::new(EntryKind::Zero, crate::Pfn(0), 0), 1);
            assert_eq!(mm.hot_from(unit << PMD_ORDER)[..512], [1; 512]);
        }
        let covered: usize = mm.runs.iter().map(|run| run.entries.len()).sum();
        assert_eq!(covered as u64, 5 * PART_UNITS);
        assert!(mm.runs.iter().all(|run| run.hot.len() == run.entries.len() << PMD_ORDER));
        let mut ordered = units;
        ordered.sort_unstable();
        let all = mm.units().map(|(unit, _)| unit);
        assert_eq!(all.collect::<Vec<_>>(), ordered);
        let (mut found, mut page) = (Vec::new(), reserve.0);
        while let Some(next) = mm.next_with_entry(page) {
            found.push(next >> PMD_ORDER);
            page = next + u64::from(PMD_PAGES);
        }
        assert_eq!(found, ordered);
        let inside = (ordered[0] << PMD_ORDER) + 5;
        assert_eq!(mm.next_with_entry(inside), Some(inside));
    }

    #[test]
    fn a_thousand_programs_that_each_start_the_next_before_they_end_need_the_room_of_two() {
        let topology = machine::load("two-socket").unwrap();
        let mut machine = Machine::boot(topology, KernelVersion::V6_12, Options::default());
        let cpu = CpuId::new(0).unwrap();
        let mut last: Option<TaskId> = None;
        for _ in 0..1000 {
            let next = machine.spawn(Credentials::ROOT, cpu);
            let child = machine.fork(next).unwrap();
            last.replace(child).into_iter().for_each(|last| machine.reap(last));
            // The child is alone in its family when it becomes another program.
            machine.reap(next);
            machine.exec(child, child);
        }
        machine.check().unwrap();
        assert!(machine.mms.len() <= 4, "{}", machine.mms.len());
        assert!(machine.families.len() <= 4, "{}", machine.families.len());
    }
}
