//! What the memory of a node holds: the numbers of `/sys/devices/system/node/nodeN/meminfo`,
//! `vmstat` and `/proc/zoneinfo` that follow from frames.
//!
//! Source: kernel, drivers/base/node.c, `node_read_meminfo`; mm/vmstat.c, `zoneinfo_show_print`.

use std::collections::BTreeMap;

use machine::NodeId;

use crate::Machine;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::owner::Owner;
use crate::memory::zone::{Watermarks, ZoneKind};
use crate::mm::page_table::EntryKind;
use crate::mm::task::TaskId;

/// Frames of a node, in base pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// All.
    pub total: u64,
    /// Not in use.
    pub free: u64,
    /// Anonymous memory.
    pub anon: u64,
    /// Of it, in THPs.
    pub anon_huge: u64,
    /// Pages of files, and of shared memory.
    pub file: u64,
    /// Anonymous pages on the active list.
    pub active_anon: u64,
    /// Pages of files on the active list.
    pub active_file: u64,
    /// Pages that reclaim leaves alone.
    pub unevictable: u64,
}

/// A zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneUsage {
    /// Which it is.
    pub kind: ZoneKind,
    /// Its first frame.
    pub start: Pfn,
    /// Its frames.
    pub pages: u64,
    /// Of them, not in use.
    pub free: u64,
    /// Where allocation stops.
    pub watermarks: Watermarks,
}

impl Machine {
    /// The zones of a node that have memory, from low to high.
    pub fn zones(&self, node: NodeId) -> Vec<ZoneUsage> {
        let zones = self.nodes.slot(node).map(|slot| &self.nodes[slot].zones);
        let usage = |zone: &crate::memory::zone::Zone| ZoneUsage {
            kind: zone.kind,
            start: zone.start,
            pages: u64::from(zone.pages),
            free: zone.free,
            watermarks: zone.watermarks,
        };
        zones.into_iter().flatten().map(usage).collect()
    }

    /// What the memory of a node holds. Looks at every frame in use.
    pub fn usage(&self, node: NodeId) -> Usage {
        let mut usage = Usage::default();
        for zone in self.zones(node) {
            usage.total += zone.pages;
            usage.free += zone.free;
            if zone.free < zone.pages {
                let end = u64::from(zone.start.0) + zone.pages;
                self.count_frames(zone.start, end, &mut usage);
            }
        }
        usage
    }

    /// The pages that a process has mapped, by node, in base pages. Looks at its page tables.
    pub fn mapped_pages(&self, task: TaskId) -> BTreeMap<NodeId, u64> {
        let mut nodes = BTreeMap::new();
        let mut count = |pfn, pages| {
            if !self.frames.has(pfn, flag::RESERVED) {
                *nodes.entry(self.nodes.id_of(pfn)).or_default() += pages;
            }
        };
        let mm = self.mm_of(task).map(|mm| self.mm(mm));
        for (_, pmd) in mm.into_iter().flat_map(|mm| mm.units()) {
            if pmd.kind() == EntryKind::Table {
                let entries = self.tables.entries(pmd.table_id());
                entries.iter().filter_map(|entry| entry.mapped()).for_each(|pfn| count(pfn, 1));
            } else if let Some(pfn) = pmd.mapped() {
                count(pfn, u64::from(PMD_PAGES));
            }
        }
        nodes
    }

    /// Tasks that exist: threads, and `init`.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    fn count_frames(&self, start: Pfn, end: u64, usage: &mut Usage) {
        let mut pfn = start;
        while u64::from(pfn.0) < end {
            let step = if self.frames.has(pfn, flag::HEAD) { self.frames.pages(pfn) } else { 1 };
            if self.frames.has(pfn, flag::ALLOCATED) {
                self.count_folio(pfn, u64::from(step), usage);
            }
            pfn = pfn.plus(step);
        }
    }

    fn count_folio(&self, head: Pfn, pages: u64, usage: &mut Usage) {
        let is_active = self.frames.has(head, flag::ACTIVE);
        if self.frames.has(head, flag::UNEVICTABLE) {
            usage.unevictable += pages;
        }
        match self.frames.owner(head) {
            Owner::None => {}
            Owner::File { .. } => {
                usage.file += pages;
                usage.active_file += if is_active { pages } else { 0 };
            }
            Owner::Anon { .. } | Owner::Ksm { .. } if self.frames.has(head, flag::HUGETLB) => {}
            Owner::Anon { .. } | Owner::Ksm { .. } => {
                usage.anon += pages;
                usage.active_anon += if is_active { pages } else { 0 };
                if self.frames.order(head) == PMD_ORDER {
                    usage.anon_huge += pages;
                }
            }
        }
    }
}
