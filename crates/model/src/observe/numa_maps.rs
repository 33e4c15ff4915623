//! `/proc/PID/numa_maps` as the kernel prints it.
//!
//! Source: behaviour spec 11.2; fs/proc/task_mmu.c, `show_numa_map`.

use std::collections::BTreeMap;
use std::ops::Range;

use machine::NodeId;

use crate::Machine;
use crate::memory::frames::{PMD_PAGES, flag};
use crate::memory::owner::Owner;
use crate::mm::address_space::MmId;
use crate::mm::file::FileKind;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::page_table::Entry;
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};

/// What is counted for one VMA, in pages of its size.
#[derive(Default)]
struct Counts {
    pages: u64,
    anon: u64,
    dirty: u64,
    active: u64,
    writeback: u64,
    mapcount_max: u32,
    nodes: BTreeMap<NodeId, u64>,
}

impl Machine {
    /// The text of `/proc/PID/numa_maps`; empty for a task without memory.
    pub fn numa_maps(&self, task: TaskId) -> String {
        let Some(mm) = self.mm_of(task) else { return String::new() };
        let line = |vma: &Vma| self.numa_maps_line(task, mm, vma, vma.start..vma.end) + "\n";
        self.mm(mm).vmas.iter().map(line).collect()
    }

    /// The same, with a line for each part of a VMA between two `cuts` (byte addresses, in order): for
    /// an address space whose VMAs a kernel keeps apart for a reason that the model does not know.
    pub fn numa_maps_cut_at(&self, task: TaskId, cuts: &[u64]) -> String {
        let Some(mm) = self.mm_of(task) else { return String::new() };
        let mut text = String::new();
        for vma in &self.mm(mm).vmas {
            let first = cuts.partition_point(|cut| cut / PAGE_BYTES <= vma.start);
            let inner = cuts[first..].iter().map(|cut| cut / PAGE_BYTES);
            let mut start = vma.start;
            for end in inner.take_while(|&cut| cut < vma.end).chain([vma.end]) {
                text.push_str(&self.numa_maps_line(task, mm, vma, start..end));
                text.push('\n');
                start = end;
            }
        }
        text
    }

    /// The line of the VMA that starts at byte address `address`.
    pub fn numa_maps_line_at(&self, task: TaskId, address: u64) -> Option<String> {
        let mm = self.mm_of(task)?;
        let vma = self.mm(mm).vma(address / PAGE_BYTES)?;
        (vma.start == address / PAGE_BYTES)
            .then(|| self.numa_maps_line(task, mm, vma, vma.start..vma.end))
    }

    fn numa_maps_line(&self, task: TaskId, mm: MmId, vma: &Vma, pages: Range<u64>) -> String {
        let policy = self.vma_policy(vma, pages.start).or_else(|| self.tasks[&task].policy);
        let policy = policy.map_or_else(|| "default".to_owned(), |policy| policy.text());
        let mut line = format!("{:08x} {policy}", pages.start * PAGE_BYTES);
        let file = vma.file().map(|file| self.file(file));
        let plain = file.filter(|file| !matches!(file.kind, FileKind::Vdso | FileKind::Vvar));
        if let Some(file) = plain {
            line.push_str(" file=");
            line.push_str(&escape_path(&file.name));
        }
        if vma.has(vm::HUGETLB) {
            line.push_str(" huge");
        }
        let counts = self.count_vma(mm, vma, pages);
        if counts.pages > 0 {
            line.push_str(&self.counts_text(vma, &counts));
        }
        line
    }

    fn counts_text(&self, vma: &Vma, counts: &Counts) -> String {
        let mut text = String::new();
        let mut field = |name: &str, value: u64, shown: bool| {
            if shown {
                text.push_str(&format!(" {name}={value}"));
            }
        };
        let Counts { pages, anon, dirty, active, .. } = *counts;
        field("anon", anon, anon > 0);
        field("dirty", dirty, dirty > 0);
        field("mapped", pages, pages != anon && pages != dirty);
        field("mapmax", u64::from(counts.mapcount_max), counts.mapcount_max > 1);
        field("active", active, active < pages && !vma.has(vm::HUGETLB));
        field("writeback", counts.writeback, counts.writeback > 0);
        for (node, &pages) in &counts.nodes {
            field(&format!("N{node}"), pages, true);
        }
        let unit = self.unit_pages(vma) * PAGE_BYTES / 1024;
        field("kernelpagesize_kB", unit, true);
        text
    }

    fn count_vma(&self, mm: MmId, vma: &Vma, pages: Range<u64>) -> Counts {
        let mut counts = Counts::default();
        let unit = self.unit_pages(vma);
        let mut page = pages.start;
        while let Some(next) = self.mm(mm).next_with_entry(page).filter(|&it| it < pages.end) {
            page = next;
            let (entry, by_pmd) = self.entry(mm, page);
            let whole = by_pmd && !vma.has(vm::HUGETLB);
            let step = if whole { u64::from(PMD_PAGES) - page % Self::UNIT_PAGES } else { unit };
            if entry.mapped().is_some_and(|pfn| !self.frames.has(pfn, flag::RESERVED)) {
                let pages = if whole { step } else { 1 };
                self.count_entry(entry, pages, &mut counts);
            }
            page += step;
        }
        counts
    }

    fn count_entry(&self, entry: Entry, pages: u64, counts: &mut Counts) {
        let pfn = entry.pfn();
        let head = self.frames.head(pfn);
        let has = |flag| u64::from(self.frames.has(head, flag)) * pages;
        counts.pages += pages;
        if entry.has(Entry::DIRTY) || self.frames.has(head, flag::DIRTY) {
            counts.dirty += pages;
        }
        if !matches!(self.frames.owner(head), Owner::File { .. }) {
            counts.anon += pages;
        }
        let active = self.frames.has(head, flag::ACTIVE | flag::UNEVICTABLE);
        counts.active += u64::from(active) * pages;
        counts.writeback += has(flag::WRITEBACK);
        counts.mapcount_max = counts.mapcount_max.max(self.frames.page_mapcount(pfn));
        *counts.nodes.entry(self.nodes.id_of(pfn)).or_default() += pages;
    }
}

/// A path as numa_maps has it: newline, tab, space and `=` are written in octal.
pub fn escape_path(path: &str) -> String {
    path.chars()
        .map(|letter| match letter {
            '\n' => r"\012".to_owned(),
            '\t' => r"\011".to_owned(),
            ' ' => r"\040".to_owned(),
            '=' => r"\075".to_owned(),
            other => other.to_string(),
        })
        .collect()
}
