//! Pools of hugetlb pages: per node and size, with the pages that mappings reserved (spec 8.5).

use std::collections::BTreeMap;

use machine::NodeId;

use crate::Machine;
use crate::errno::Errno;
use crate::memory::alloc::Wanted;
use crate::memory::frames::{Order, PMD_ORDER, PUD_ORDER, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;

/// x86-64 has hugetlb pages of 2 MiB and of 1 GiB.
pub(crate) const fn is_hugetlb_order(order: Order) -> bool {
    order == PMD_ORDER || order == PUD_ORDER
}

#[derive(Clone, Debug, PartialEq, Default)]
struct NodePool {
    total: u64,
    free: Vec<Pfn>,
}

/// The pools of one size, and what is promised from them.
#[derive(Clone, Debug, PartialEq, Default)]
struct Pool {
    nodes: BTreeMap<Slot, NodePool>,
    reserved: u64,
}

impl Pool {
    fn free(&self) -> u64 {
        self.nodes.values().map(|node| node.free.len() as u64).sum()
    }
}

/// All pools, by order.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Hugetlb {
    pools: BTreeMap<Order, Pool>,
}

impl Hugetlb {
    /// Whether there may be hugetlb pages at all.
    pub(crate) fn is_used(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Promises pages to a mapping; `false`: there are not enough.
    pub(crate) fn reserve(&mut self, order: Order, pages: u64) -> bool {
        let pool = self.pools.entry(order).or_default();
        let enough = pool.free() >= pool.reserved + pages;
        if enough {
            pool.reserved += pages;
        }
        enough
    }

    pub(crate) fn unreserve(&mut self, order: Order, pages: u64) {
        self.pools.entry(order).or_default().reserved -= pages;
    }

    /// Free pages that nobody was promised.
    pub(crate) fn unreserved(&self, order: Order) -> u64 {
        self.pools.get(&order).map_or(0, |pool| pool.free().saturating_sub(pool.reserved))
    }

    pub(crate) fn take(&mut self, order: Order, slot: Slot) -> Option<Pfn> {
        self.pools.get_mut(&order)?.nodes.get_mut(&slot)?.free.pop()
    }

    /// Takes one particular free page out of its pool.
    pub(crate) fn forget(&mut self, page: Pfn, slot: Slot, order: Order) {
        let pool = self.pools.get_mut(&order).and_then(|pool| pool.nodes.get_mut(&slot));
        pool.into_iter().for_each(|node| node.free.retain(|&free| free != page));
    }

    /// Every free page of every pool, for the invariant checker.
    pub(crate) fn free_pages(&self) -> impl Iterator<Item = (Order, Pfn)> + '_ {
        self.pools.iter().flat_map(|(&order, pool)| {
            pool.nodes.values().flat_map(move |node| node.free.iter().map(move |&p| (order, p)))
        })
    }
}

impl Machine {
    /// Total and free hugetlb pages of a node, for pages of `2^order` base pages.
    pub fn hugetlb_pool(&self, node: NodeId, order: Order) -> (u64, u64) {
        let pool = self
            .nodes
            .slot(node)
            .and_then(|slot| self.hugetlb.pools.get(&order).and_then(|pool| pool.nodes.get(&slot)));
        pool.map_or((0, 0), |pool| (pool.total, pool.free.len() as u64))
    }

    /// Sets the number of hugetlb pages of a node; it ends lower when memory is missing, and
    /// higher when pages are in use. Returns what it is then.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such node. `EINVAL`: neither 2 MiB nor 1 GiB.
    pub fn set_hugetlb_pool(
        &mut self,
        node: NodeId,
        order: Order,
        pages: u64,
    ) -> Result<u64, Errno> {
        let slot = self.nodes.slot(node).ok_or(Errno::ENODEV)?;
        if !is_hugetlb_order(order) {
            return Err(Errno::EINVAL);
        }
        while self.hugetlb_pool(node, order).0 < pages {
            let Some(page) = self.fresh_hugetlb_page(order, slot) else { break };
            self.hugetlb_node(order, slot).free.push(page);
        }
        while self.hugetlb_pool(node, order).0 > pages {
            let Some(page) = self.hugetlb.take(order, slot) else { break };
            self.dissolve(page);
        }
        Ok(self.hugetlb_pool(node, order).0)
    }

    fn hugetlb_node(&mut self, order: Order, slot: Slot) -> &mut NodePool {
        self.hugetlb.pools.entry(order).or_default().nodes.entry(slot).or_default()
    }

    /// A huge page from the buddy allocator: the pool of the node grows by one.
    pub(crate) fn fresh_hugetlb_page(&mut self, order: Order, slot: Slot) -> Option<Pfn> {
        let wanted = Wanted {
            order,
            start: slot,
            this_node: true,
            nodes: None,
            mems: None,
            cpu: slot,
            movable: true,
        };
        let page = self.allocate(&wanted)?;
        self.frames.set(page, flag::HUGETLB);
        self.hugetlb_node(order, slot).total += 1;
        Some(page)
    }

    /// Returns a free huge page to the buddy allocator: the pool of its node shrinks by one.
    pub(crate) fn dissolve(&mut self, page: Pfn) {
        let (order, slot) = (self.frames.order(page), self.nodes.slot_of(page));
        self.hugetlb_node(order, slot).total -= 1;
        self.free(page);
    }

    /// Returns a huge page that nobody uses to its pool.
    pub(crate) fn give_hugetlb_page(&mut self, page: Pfn) {
        let (order, slot) = (self.frames.order(page), self.nodes.slot_of(page));
        self.frames.allocate(page, order);
        self.frames.set(page, flag::HUGETLB);
        self.frames.set_owner(page, Owner::None);
        self.hugetlb_node(order, slot).free.push(page);
    }
}
