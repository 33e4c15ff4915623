//! How a free folio is found: zonelists, watermarks, cpusets, and the statistics of each call.
//!
//! Called by page faults and by the migration engine's callers. Never reclaims by itself: what a
//! shortage means is the caller's decision (spec 1.6).

use machine::NodeSet;

use crate::Machine;
use crate::memory::frames::{Order, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::zone::ZoneKind;

/// What is wanted, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) order: Order,
    /// Whose zonelist is walked.
    pub(crate) start: Slot,
    /// Only `start` itself (`__GFP_THISNODE`).
    pub(crate) this_node: bool,
    /// The nodes of a policy.
    pub(crate) nodes: Option<&'a NodeSet>,
    /// The nodes of the caller's cpuset; `None` outside any.
    pub(crate) mems: Option<&'a NodeSet>,
    /// The node of the CPU, for the statistics.
    pub(crate) cpu: Slot,
    /// ZONE_MOVABLE may be used.
    pub(crate) movable: bool,
}

/// How far an allocation may go down.
#[derive(Clone, Copy, PartialEq)]
enum Floor {
    Low,
    Min,
}

impl Machine {
    /// Allocates a folio: nobody's, filled with zeroes. `None`: no node that is allowed has it.
    pub(crate) fn allocate(&mut self, wanted: &Wanted<'_>) -> Option<Pfn> {
        let pfn = match self.take(wanted, Floor::Low) {
            Some(pfn) => pfn,
            None => self.take_more(wanted)?,
        };
        self.frames.allocate(pfn, wanted.order);
        self.count_allocation(wanted, self.nodes.slot_of(pfn));
        Some(pfn)
    }

    /// Below the low watermark.
    #[cold]
    fn take_more(&mut self, wanted: &Wanted<'_>) -> Option<Pfn> {
        self.wake_kswapd(wanted.start);
        self.take(wanted, Floor::Min)
    }

    #[inline]
    fn is_allowed(&self, wanted: &Wanted<'_>, slot: Slot) -> bool {
        let id = self.nodes[slot].id;
        wanted.nodes.is_none_or(|nodes| nodes.contains(id))
            && wanted.mems.is_none_or(|mems| mems.contains(id))
    }

    #[inline(always)]
    fn take(&mut self, wanted: &Wanted<'_>, floor: Floor) -> Option<Pfn> {
        if wanted.this_node {
            if !self.is_allowed(wanted, wanted.start) {
                return None;
            }
            return self.take_from(wanted.start, wanted, floor);
        }
        self.take_from_any(wanted, floor)
    }

    fn take_from_any(&mut self, wanted: &Wanted<'_>, floor: Floor) -> Option<Pfn> {
        for position in 0..self.nodes[wanted.start].fallback.len() {
            let slot = self.nodes[wanted.start].fallback[position];
            if !self.is_allowed(wanted, slot) {
                continue;
            }
            if let Some(pfn) = self.take_from(slot, wanted, floor) {
                return Some(pfn);
            }
        }
        None
    }

    #[inline(always)]
    fn take_from(&mut self, slot: Slot, wanted: &Wanted<'_>, floor: Floor) -> Option<Pfn> {
        let pages = 1 << wanted.order;
        for zone in self.nodes[slot].zones.iter_mut().rev() {
            let keep = match floor {
                Floor::Low => zone.watermarks.low,
                Floor::Min => zone.watermarks.min,
            };
            let usable = wanted.movable || zone.kind != ZoneKind::Movable;
            if usable
                && zone.free > keep + pages
                && let Some(pfn) = zone.take(wanted.order)
            {
                return Some(pfn);
            }
        }
        None
    }

    fn count_allocation(&mut self, wanted: &Wanted<'_>, got: Slot) {
        let first = if wanted.this_node {
            wanted.start
        } else {
            let fallback = &self.nodes[wanted.start].fallback;
            fallback.iter().copied().find(|&slot| self.is_allowed(wanted, slot)).unwrap_or(got)
        };
        if first == got {
            self.nodes[got].stats.hit += 1;
        } else {
            self.nodes[got].stats.miss += 1;
            self.nodes[first].stats.foreign += 1;
        }
        if got == wanted.cpu {
            self.nodes[got].stats.local += 1;
        } else {
            self.nodes[got].stats.other += 1;
        }
    }

    /// Gives a folio that nobody maps or refers to back to its zone.
    pub(crate) fn free(&mut self, head: Pfn) {
        debug_assert_eq!(self.frames.total_mapcount(head), 0, "a mapped folio is not freed");
        let order = self.frames.order(head);
        if self.frames.has(head, flag::IN_LRU_BATCH) {
            self.leave_lru_batches(head);
        }
        self.mappers.remove(&head);
        self.frames.free(head);
        self.nodes.zone_of(head).give(head, order);
    }
}
