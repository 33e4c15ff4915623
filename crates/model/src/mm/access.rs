//! The fast path: accesses to pages that are mapped, one at a time or a block at a time.
//!
//! An access in a block reads the hot byte of its page and adds to a counter. The loads of a block
//! do not depend on each other, so the processor keeps many of them in flight: what bounds the
//! speed is how many cache and TLB misses it can overlap, not how long one takes.

use machine::NodeId;

use crate::Machine;
use crate::memory::node::MAX_NODES;
use crate::mm::address_space::MmId;
use crate::mm::fault::{Access, Fault};
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::page_table::hot;
use crate::mm::task::TaskId;

/// Accesses whose hot bytes are read before the first of them is looked at. Below 256, so that a
/// byte counts those that found one node.
const BLOCK: usize = 128;
/// Up to so many nodes, counting node by node is faster than a table.
const FEW_NODES: usize = 8;

/// How a block of accesses went.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AccessCounts {
    by_slot: [u64; MAX_NODES],
    /// Accesses that took a fault first; they are counted by node too.
    pub faults: u64,
}

impl AccessCounts {
    /// Counts accesses that all found their page, by the node in the hot byte.
    #[inline]
    fn add_block(&mut self, bytes: &[u8], nodes: usize) {
        if nodes > FEW_NODES {
            bytes.iter().for_each(|byte| self.by_slot[usize::from(byte & hot::SLOT)] += 1);
            return;
        }
        for (slot, count) in (0u8..).zip(&mut self.by_slot[..nodes]) {
            let here = bytes.iter().map(|byte| u8::from(byte & hot::SLOT == slot));
            *count += u64::from(here.fold(0u8, u8::wrapping_add));
        }
    }
}

impl Machine {
    pub(crate) fn is_fast(&self, mm: MmId, page: u64, access: Access) -> bool {
        let wanted = wanted(access);
        self.mm(mm).hot_from(page).first().is_some_and(|byte| byte & wanted == wanted)
    }

    /// Accesses to the pages `start + 4096 * page` for each of `pages`, in order; adds to `counts`
    /// on which node each was found.
    ///
    /// # Errors
    ///
    /// The first access that cannot be made; those before it are counted.
    ///
    /// # Panics
    ///
    /// When `task` does not exist or has no memory.
    pub fn access_pages(
        &mut self,
        task: TaskId,
        start: u64,
        pages: &[u32],
        access: Access,
        counts: &mut AccessCounts,
    ) -> Result<(), Fault> {
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let base = start / PAGE_BYTES;
        let (wanted, nodes) = (wanted(access), self.nodes.list.len());
        let mut blocks = pages.chunks(BLOCK);
        let mut current = blocks.next().map(|block| (block, self.load_block(mm, base, block)));
        while let Some((block, bytes)) = current {
            // The loads of the next block are under way while this one is counted.
            let next = blocks.next();
            let mut ahead = next.map(|block| self.load_block(mm, base, block));
            let bytes = &bytes[..block.len()];
            if bytes.iter().fold(wanted, |all, byte| all & byte) == wanted {
                counts.add_block(bytes, nodes);
            } else {
                self.slow_block(task, mm, base, block, access, counts)?;
                ahead = next.map(|block| self.load_block(mm, base, block));
            }
            current = next.zip(ahead);
        }
        Ok(())
    }

    /// The hot bytes of a block. Pages outside what is mapped together with the first one have 0,
    /// and fault.
    #[inline]
    fn load_block(&self, mm: MmId, base: u64, block: &[u32]) -> [u8; BLOCK] {
        let hot = self.mm(mm).hot_from(base);
        let mut bytes = [0u8; BLOCK];
        for (byte, &page) in bytes.iter_mut().zip(block) {
            *byte = hot.get(page as usize).copied().unwrap_or(0);
        }
        bytes
    }

    #[cold]
    fn slow_block(
        &mut self,
        task: TaskId,
        mm: MmId,
        base: u64,
        block: &[u32],
        access: Access,
        counts: &mut AccessCounts,
    ) -> Result<(), Fault> {
        for &page in block {
            let page = base + u64::from(page);
            if !self.is_fast(mm, page, access) {
                counts.faults += 1;
                self.access(task, page * PAGE_BYTES, access)?;
            }
            let slot = self.entry(mm, page).0.mapped().map_or(0, |pfn| self.nodes.slot_of(pfn).0);
            counts.by_slot[usize::from(slot)] += 1;
        }
        Ok(())
    }

    /// Accesses that found their page on `node`.
    pub fn accesses_on(&self, counts: &AccessCounts, node: NodeId) -> u64 {
        self.nodes.slot(node).map_or(0, |slot| counts.by_slot[slot.index()])
    }
}

const fn wanted(access: Access) -> u8 {
    match access {
        Access::Read => hot::MAPPED,
        Access::Write => hot::MAPPED | hot::WRITE,
    }
}
