//! Compaction: moves base pages within a zone, so that free memory becomes whole blocks.
//!
//! The migration scanner takes pages from the low end of the zone, the free scanner gives frames
//! from its high end; where they meet, the zone is done.
//!
//! Source: behaviour spec 9.2; mm/compaction.c, `compact_zone`.

use machine::NodeId;

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::observe::call_path::Caller;
use crate::observe::vmstat::Counter;

/// Pages of one call of the engine (`COMPACT_CLUSTER_MAX`).
const CLUSTER: usize = 32;

impl Machine {
    /// Compacts the zones of a node, as a write to `/sys/devices/system/node/nodeN/compact` does;
    /// how many pages were moved.
    pub fn compact_node(&mut self, node: NodeId) -> u64 {
        let Some(slot) = self.nodes.slot(node) else { return 0 };
        self.lru_drain_all();
        let zones = self.nodes[slot].zones.iter();
        let ranges: Vec<(Pfn, Pfn)> =
            zones.map(|zone| (zone.start, Pfn(zone.start.0 + zone.pages))).collect();
        ranges.into_iter().map(|(start, end)| self.compact_zone(start, end)).sum()
    }

    fn compact_zone(&mut self, start: Pfn, end: Pfn) -> u64 {
        let mut cursor = start;
        let mut moved = 0;
        loop {
            let list = self.isolate_for_compaction(&mut cursor, end);
            if list.is_empty() {
                return moved;
            }
            self.counters.add(Counter::CompactIsolated, 2 * list.len() as u64);
            let request = Request {
                mode: MigrateMode::Sync,
                reason: MigrateReason::Compaction,
                target: Target::SameZone,
                caller: Caller::CompactMemory,
            };
            let outcome = self.migrate(list, &request);
            moved += outcome.succeeded;
            self.put_back_all(outcome.left);
            if outcome.result.is_err() {
                return moved;
            }
        }
    }

    /// Base pages on the LRU with no more references than mappings, up to a cluster of them.
    fn isolate_for_compaction(&mut self, cursor: &mut Pfn, end: Pfn) -> Vec<Pfn> {
        let mut list = Vec::new();
        while list.len() < CLUSTER && *cursor < end {
            let page = *cursor;
            let allocated = self.frames.has(page, flag::ALLOCATED);
            let step = if allocated { self.frames.pages(page) } else { 1 };
            *cursor = page.plus(step);
            let base = allocated && self.frames.order(page) == 0;
            if base && self.frames.extra_references(page) == 0 && self.isolate(page) {
                list.push(page);
            }
        }
        list
    }
}
