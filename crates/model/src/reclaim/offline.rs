//! Memory that is withdrawn: blocks that go offline, and single pages that go bad.
//!
//! Source: behaviour spec 9.3 and 9.4; mm/memory_hotplug.c, `offline_pages`; mm/memory-failure.c,
//! `soft_offline_page`.

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::errno::Errno;
use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn, flag};
use crate::memory::zone::Zone;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::observe::call_path::Caller;
use crate::policy::placement::Allocator;

/// Frames of a memory block: 128 MiB.
pub const BLOCK_PAGES: u32 = 1 << 15;
/// Engine runs before the model gives up; the kernel goes on until a signal.
const ROUNDS: u32 = 3;

impl Machine {
    /// Takes the frames `[first, first + pages)` offline: everything in them moves to other nodes,
    /// whatever policies and cpusets say. `writer` is the task that asks.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the range is not made of whole 2 MiB blocks of one node. `EBUSY`: something in it
    /// cannot be moved; what has moved stays away.
    pub fn offline(&mut self, writer: TaskId, first: Pfn, pages: u32) -> Result<(), Errno> {
        let whole = first.0.is_multiple_of(PMD_PAGES) && pages.is_multiple_of(PMD_PAGES);
        let end = first.0.checked_add(pages).filter(|&end| end as usize <= self.frames.len());
        let end = Pfn(end.filter(|_| whole && pages > 0).ok_or(Errno::EINVAL)?);
        let slot = self.nodes.slot_of(first);
        if self.nodes.slot_of(Pfn(end.0 - 1)) != slot {
            return Err(Errno::EINVAL);
        }
        let mut targets = self.nodes.with_memory;
        if targets.len() > 1 {
            targets.remove(self.nodes[slot].id);
        }
        let mems = self.allocator(writer).mems;
        let mems = if self.behaviour.offline_ignores_cpuset { None } else { mems };
        let by = Allocator { cpu: slot, mems };
        self.lru_drain_all();
        for _ in 0..ROUNDS {
            self.empty_range(first, end, &targets, &by);
            if !self.has_pages(first, end) {
                break;
            }
        }
        self.withdraw_range(first, end)
    }

    fn empty_range(&mut self, first: Pfn, end: Pfn, targets: &NodeSet, by: &Allocator) {
        let mut list = Vec::new();
        let mut page = first;
        while page < end {
            let allocated = self.frames.has(page, flag::ALLOCATED);
            let step = if allocated { self.frames.pages(page) } else { 1 };
            if allocated && self.isolate(page) {
                list.push(page);
            }
            page = page.plus(step);
        }
        if list.is_empty() {
            return;
        }
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::MemoryHotplug,
            target: Target::Among { nodes: targets, by: *by, movable: true },
            caller: Caller::BlockOffline,
        };
        let outcome = self.migrate(list, &request);
        self.put_back_all(outcome.left);
    }

    /// Free huge pages of a pool do not keep a block online.
    fn has_pages(&self, first: Pfn, end: Pfn) -> bool {
        (first.0..end.0).map(Pfn).any(|page| self.frames.has(page, flag::ALLOCATED))
    }

    fn withdraw_range(&mut self, first: Pfn, end: Pfn) -> Result<(), Errno> {
        let free = self.hugetlb.free_pages();
        let pooled: Vec<Pfn> =
            free.map(|(_, page)| page).filter(|&page| first <= page && page < end).collect();
        for page in pooled {
            self.hugetlb.forget(page, self.nodes.slot_of(page), self.frames.order(page));
            self.dissolve(page);
        }
        if self.has_pages(first, end) {
            return Err(Errno::EBUSY);
        }
        for block in (first.0..end.0).step_by(PMD_PAGES as usize).map(Pfn) {
            self.withdraw(block, PMD_PAGES);
        }
        Ok(())
    }

    /// Makes free frames nobody's.
    fn withdraw(&mut self, first: Pfn, pages: u32) {
        for page in (first.0..first.0 + pages).map(Pfn) {
            self.nodes.zone_of(page).take_exactly(page);
            self.frames.allocate(page, 0);
            self.frames.set(page, flag::RESERVED);
            self.reclaim.withdrawn.insert(page);
        }
    }

    /// Brings frames back that were taken offline.
    pub fn online(&mut self, first: Pfn, pages: u32) {
        for page in (first.0..first.0.saturating_add(pages)).map(Pfn) {
            let bad =
                self.reclaim.withdrawn.contains(&page) && self.frames.has(page, flag::POISONED);
            if !bad && self.reclaim.withdrawn.remove(&page) {
                self.frames.free(page);
                self.nodes.zone_of(page).give(page, 0);
            }
        }
    }

    /// Soft-offlines the page at an address of `task` (MADV_SOFT_OFFLINE): its content moves, on
    /// the same node if there is room, and the frame is never used again. A THP is split first.
    ///
    /// # Errors
    ///
    /// `EFAULT`: nothing is mapped there. `EBUSY`: something holds the page. `ENOMEM`: no page to
    /// move to.
    pub fn soft_offline(&mut self, task: TaskId, address: u64) -> Result<(), Errno> {
        let mm = self.mm_of(task).ok_or(Errno::ESRCH)?;
        let pfn = self.entry(mm, address / PAGE_BYTES).0.mapped().ok_or(Errno::EFAULT)?;
        self.lru_drain_all();
        let head = self.frames.head(pfn);
        let is_thp = self.frames.order(head) > 0 && !self.frames.has(head, flag::HUGETLB);
        if is_thp {
            let parts = self.split_folio(head).ok_or(Errno::EBUSY)?;
            parts.into_iter().for_each(|part| self.free_if_unused(part));
        }
        // A split may have put the zero page in its place.
        let still = self.entry(mm, address / PAGE_BYTES).0.mapped() == Some(pfn);
        let head = self.frames.head(pfn);
        if still && !self.isolate(head) {
            return Err(Errno::EBUSY);
        }
        if still {
            self.move_off_bad_page(head)?;
        }
        if self.frames.order(pfn) >= PMD_ORDER || self.frames.has(pfn, flag::ALLOCATED) {
            return Ok(()); // A huge page went back to its pool, and is dissolved by its owner.
        }
        self.withdraw(pfn, 1);
        self.frames.set(pfn, flag::POISONED);
        Ok(())
    }

    fn move_off_bad_page(&mut self, head: Pfn) -> Result<(), Errno> {
        let nodes = self.nodes.with_memory;
        let by = Allocator { cpu: self.nodes.slot_of(head), mems: None };
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::MemoryFailure,
            target: Target::Among { nodes: &nodes, by, movable: true },
            caller: Caller::SoftOffline,
        };
        let outcome = self.migrate(vec![head], &request);
        self.put_back_all(outcome.left);
        match outcome.result? {
            0 => Ok(()),
            _ => Err(Errno::EBUSY),
        }
    }

    /// Frames that are offline or bad.
    pub fn withdrawn_frames(&self) -> usize {
        self.reclaim.withdrawn.len()
    }

    /// The 2 MiB block behind the one that starts at `first`.
    pub fn first_block_behind(&self, first: Pfn) -> Pfn {
        first.plus(PMD_PAGES)
    }

    /// Whole free 2 MiB blocks of a node: what a THP can be allocated from.
    pub fn free_blocks(&self, node: NodeId) -> usize {
        let zones = self.nodes.slot(node).map(|slot| &self.nodes[slot].zones);
        zones.into_iter().flatten().map(Zone::whole_blocks).sum()
    }

    /// First frame of a node and how many it has, offline ones included.
    pub fn frames_of(&self, node: NodeId) -> Option<(Pfn, u32)> {
        let zones = &self.nodes[self.nodes.slot(node)?].zones;
        let first = zones.first()?.start;
        Some((first, zones.iter().map(|zone| zone.pages).sum()))
    }
}
