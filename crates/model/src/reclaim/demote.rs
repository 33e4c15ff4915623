//! Demotion: reclaim moves cold pages to a slower tier instead of dropping them.
//!
//! The order is a clock over the frames of the node, not the kernel's lists: a page that was used
//! since the hand passed is spared once. There is no swap, so a page that cannot be demoted stays.
//!
//! Source: behaviour spec 10.7; mm/vmscan.c, `demote_folio_list`, `shrink_folio_list`.

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::balance::BALANCE_TIERING;
use crate::memory::frames::{Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::page_table::Entry;
use crate::observe::call_path::Caller;
use crate::observe::vmstat::Counter;
use crate::policy::placement::Allocator;

/// Base pages of a list that reclaim hands to the engine (`SWAP_CLUSTER_MAX`).
const LIST_PAGES: u64 = 32;

/// Who reclaims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaimer {
    /// The node's own thread, when memory runs low.
    Kswapd,
    /// An allocation.
    Direct,
    /// `memory.reclaim`, before anything runs low.
    Proactive,
}

impl Machine {
    /// Writes `/sys/kernel/mm/numa/demotion_enabled`.
    pub fn set_demotion(&mut self, enabled: bool) {
        self.reclaim.demotion_enabled = enabled;
    }

    /// The nodes that a node demotes to: the nearest of the next slower tier, and every node of all
    /// slower tiers to fall back on. Empty for the slowest tier.
    pub fn demotion_targets(&self, node: NodeId) -> (NodeSet, NodeSet) {
        let Some(slot) = self.nodes.slot(node) else { return (NodeSet::EMPTY, NodeSet::EMPTY) };
        let slower: Vec<Slot> = self.slower_slots(slot);
        let Some(next) = slower.iter().map(|&other| self.nodes[other].tier).min() else {
            return (NodeSet::EMPTY, NodeSet::EMPTY);
        };
        let distance = |other: Slot| self.topology.distance(node, self.nodes[other].id);
        let in_next = || slower.iter().copied().filter(|&other| self.nodes[other].tier == next);
        let nearest = in_next().map(distance).min().flatten();
        let preferred = in_next().filter(|&other| distance(other) == nearest);
        let ids = |slots: Vec<Slot>| slots.into_iter().map(|slot| self.nodes[slot].id).collect();
        (ids(preferred.collect()), ids(slower.clone()))
    }

    /// Nodes with memory of slower tiers, nearest first.
    fn slower_slots(&self, slot: Slot) -> Vec<Slot> {
        let tier = self.nodes[slot].tier;
        let fallback = self.nodes[slot].fallback.iter().copied();
        fallback.filter(|&other| self.nodes[other].tier > tier).collect()
    }

    /// Reclaims up to `pages` base pages of a node by demotion; how many moved. `mems`: the cpuset
    /// of the memory cgroup that reclaims, which 7.3 keeps to.
    pub fn demote(
        &mut self,
        node: NodeId,
        pages: u64,
        reclaimer: Reclaimer,
        mems: Option<&NodeSet>,
    ) -> u64 {
        let Some(slot) = self.nodes.slot(node).filter(|_| self.reclaim.demotion_enabled) else {
            return 0;
        };
        let (preferred, fallback) = self.demotion_targets(node);
        let within = |targets: NodeSet| match mems {
            Some(mems) if self.behaviour.demotion_follows_cpuset => targets.intersection(mems),
            _ => targets,
        };
        let (preferred, fallback) = (within(preferred), within(fallback));
        if fallback.is_empty() {
            return 0;
        }
        self.lru_drain_all();
        let mut moved = 0;
        // Two turns of the clock: the first may only take the marks of use away.
        let mut frames_left = 2 * self.nodes[slot].pages();
        while moved < pages && frames_left > 0 {
            let list = self.cold_folios(slot, LIST_PAGES.min(pages - moved), &mut frames_left);
            if list.is_empty() {
                break;
            }
            let list_pages: u64 = list.iter().map(|&p| u64::from(self.frames.pages(p))).sum();
            let got = self.demote_list(list, &preferred, &fallback);
            moved += got;
            if got < list_pages {
                break;
            }
        }
        let counter = match reclaimer {
            Reclaimer::Kswapd => Counter::PgdemoteKswapd,
            Reclaimer::Proactive if self.behaviour.demotion_follows_cpuset => {
                Counter::PgdemoteProactive
            }
            Reclaimer::Direct | Reclaimer::Proactive => Counter::PgdemoteDirect,
        };
        self.counters.add(counter, moved);
        moved
    }

    fn demote_list(&mut self, list: Vec<Pfn>, preferred: &NodeSet, fallback: &NodeSet) -> u64 {
        let by = Allocator { cpu: self.nodes.slot_of(list[0]), mems: None };
        let first = if preferred.is_empty() { fallback } else { preferred };
        let mut request = Request {
            mode: MigrateMode::Async,
            reason: MigrateReason::Demotion,
            target: Target::Among { nodes: first, by, movable: true },
            caller: Caller::Demotion,
        };
        let mut outcome = self.migrate(list, &request);
        let mut moved = outcome.succeeded;
        if !outcome.left.is_empty() && fallback != first {
            request.target = Target::Among { nodes: fallback, by, movable: true };
            outcome = self.migrate(outcome.left, &request);
            moved += outcome.succeeded;
        }
        self.put_back_all(outcome.left);
        moved
    }

    /// Isolates folios that nobody used since the clock passed them last.
    fn cold_folios(&mut self, slot: Slot, pages: u64, frames_left: &mut u64) -> Vec<Pfn> {
        let (mut list, mut taken) = (Vec::new(), 0);
        while taken < pages && *frames_left > 0 {
            let head = self.advance_hand(slot, frames_left);
            let wanted = flag::ALLOCATED | flag::LRU;
            let unwanted = flag::UNEVICTABLE | flag::HUGETLB | flag::TAIL;
            let flags = self.frames.flags(head);
            if flags & wanted != wanted || flags & unwanted != 0 || self.was_used(head) {
                continue;
            }
            if self.isolate(head) {
                taken += u64::from(self.frames.pages(head));
                list.push(head);
            }
        }
        list
    }

    /// The next frame of a node's clock.
    fn advance_hand(&mut self, slot: Slot, frames_left: &mut u64) -> Pfn {
        let zones = &self.nodes[slot].zones;
        let (first, last) = match (zones.first(), zones.last()) {
            (Some(first), Some(last)) => (first.start, Pfn(last.start.0 + last.pages)),
            _ => return Pfn(0),
        };
        let hand = self.reclaim.hands.entry(slot).or_insert(first);
        let head = *hand;
        let step = if self.frames.has(head, flag::HEAD) { self.frames.pages(head) } else { 1 };
        *hand = head.plus(step);
        if *hand >= last {
            *hand = first;
        }
        *frames_left = frames_left.saturating_sub(u64::from(step));
        head
    }

    /// Whether a folio was used since the last look; the marks are taken away.
    fn was_used(&mut self, head: Pfn) -> bool {
        let mut mappings = Vec::new();
        self.mappings(head, &mut mappings);
        let mut used = self.frames.has(head, flag::REFERENCED | flag::ACTIVE);
        for mapping in mappings {
            let (entry, by_pmd) = self.entry(mapping.mm, mapping.page);
            if !entry.has(Entry::YOUNG) {
                continue;
            }
            used = true;
            if by_pmd {
                let pmd = self.mm(mapping.mm).pmd(mapping.page / Self::UNIT_PAGES);
                self.set_pmd(
                    mapping.mm,
                    mapping.page / Self::UNIT_PAGES,
                    pmd.without(Entry::YOUNG),
                );
            } else {
                self.set_pte(mapping.mm, mapping.page, entry.without(Entry::YOUNG));
            }
        }
        self.frames.clear(head, flag::REFERENCED | flag::ACTIVE);
        used || matches!(self.frames.owner(head), Owner::None)
    }

    pub(crate) fn wake_kswapd(&mut self, slot: Slot) {
        self.reclaim.woken.insert(slot);
    }

    /// Background reclaim of the nodes that were woken: up to the high watermark, in tiering mode
    /// up to the promotion watermark.
    pub(crate) fn run_kswapd(&mut self) {
        for slot in std::mem::take(&mut self.reclaim.woken) {
            let tiering = self.balancing.has(BALANCE_TIERING);
            let missing = self.nodes[slot].zones.iter().map(|zone| {
                let goal = if tiering { zone.watermarks.promo } else { zone.watermarks.high };
                goal.saturating_sub(zone.free)
            });
            let missing = missing.min().unwrap_or(0);
            let id = self.nodes[slot].id;
            if missing > 0 {
                self.demote(id, missing, Reclaimer::Kswapd, None);
            }
        }
    }
}
