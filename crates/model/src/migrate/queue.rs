//! Which pages of a process are taken: the page-table walk of migrate_pages(2), cpusets and
//! mbind(2), and the order of node pairs (spec 2.2, 2.3, 4.3.1).

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::errno::Errno;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_PAGES, Pfn, flag};
use crate::memory::node::Slot;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::address_space::MmId;
use crate::mm::mapping::{PAGE_BYTES, USER_LIMIT};
use crate::mm::vma::{Vma, vm};
use crate::observe::call_path::Caller;
use crate::policy::placement::Allocator;
use crate::version::CountUnisolated;

/// Which folios a walk wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wants<'a> {
    /// Those on this node.
    On(NodeId),
    /// Those on no node of this set.
    NotOn(&'a NodeSet),
}

impl Wants<'_> {
    fn includes(&self, node: NodeId) -> bool {
        match self {
            Self::On(wanted) => *wanted == node,
            Self::NotOn(nodes) => !nodes.contains(node),
        }
    }
}

/// The state of a walk.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    pub(crate) wants: Wants<'a>,
    /// Shared folios too.
    pub(crate) move_all: bool,
    /// Nothing is moved: the first folio that is wanted ends the walk (`MPOL_MF_STRICT` alone).
    pub(crate) only_look: bool,
    /// Folios that are isolated now.
    pub(crate) folios: Vec<Pfn>,
    /// What could not be isolated, as the kernel counts it.
    pub(crate) failed: u64,
    /// The walk was ended by a folio that may not be where it is.
    pub(crate) found_misplaced: bool,
    /// The last large folio that was met by an entry; base pages that were copied on write may lie
    /// between its own.
    last_large: Option<Pfn>,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(wants: Wants<'a>, move_all: bool, only_look: bool) -> Self {
        Self {
            wants,
            move_all,
            only_look,
            folios: Vec::new(),
            failed: 0,
            found_misplaced: false,
            last_large: None,
        }
    }
}

/// Whether pages of a VMA can be migrated at all (spec 1.3).
pub(crate) const fn is_migratable(vma: &Vma) -> bool {
    !vma.has(vm::PFNMAP)
}

impl Machine {
    /// Walks the present entries of `[start, end)` in a VMA and queues what is wanted.
    pub(crate) fn queue_range(
        &mut self,
        mm: MmId,
        vma: &Vma,
        range: (u64, u64),
        queue: &mut Queue<'_>,
    ) {
        let (mut page, end) = (range.0.max(vma.start), range.1.min(vma.end));
        while page < end && !queue.found_misplaced {
            let (entry, by_pmd) = self.entry(mm, page);
            let next = if by_pmd {
                let unit = self.unit_pages(vma).max(u64::from(PMD_PAGES));
                (page / unit + 1) * unit
            } else if self.mm(mm).table(page / Self::UNIT_PAGES).is_none() {
                self.mm(mm).next_with_entry(page).unwrap_or(end)
            } else {
                page + 1
            };
            if let Some(pfn) = entry.mapped() {
                self.queue_page(pfn, by_pmd, queue);
            }
            page = next;
        }
    }

    fn queue_page(&mut self, pfn: Pfn, by_pmd: bool, queue: &mut Queue<'_>) {
        if self.frames.has(pfn, flag::RESERVED) || !queue.wants.includes(self.nodes.id_of(pfn)) {
            return;
        }
        let head = self.frames.head(pfn);
        if queue.only_look {
            queue.found_misplaced = true;
            return;
        }
        if !by_pmd && self.frames.order(head) > 0 {
            let again = queue.last_large.replace(head) == Some(head);
            match self.behaviour.count_unisolated {
                // The second entry of a large folio cannot be isolated again; nobody looks at it.
                CountUnisolated::PerFolio if again => return,
                CountUnisolated::PerEntry if again && self.frames.has(head, flag::ISOLATED) => {
                    return;
                }
                CountUnisolated::Never | CountUnisolated::PerFolio | CountUnisolated::PerEntry => {}
            }
        }
        if !queue.move_all && self.is_shared_folio(head) {
            return;
        }
        if self.isolate(head) {
            queue.folios.push(head);
        } else {
            queue.failed += 1;
        }
    }

    /// Puts folios that stayed back on the LRU.
    pub(crate) fn put_back_all(&mut self, folios: Vec<Pfn>) {
        folios.into_iter().for_each(|head| self.put_back(head));
    }

    /// Moves the pages of an address space pair by pair (`do_migrate_pages`). Returns the folios
    /// that stayed.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: a pair ran out of memory; what was moved before stays moved.
    pub(crate) fn do_migrate_pages(
        &mut self,
        mm: MmId,
        from: &NodeSet,
        to: &NodeSet,
        move_all: bool,
        caller: Caller,
        by: &Allocator,
    ) -> Result<u64, Errno> {
        self.lru_drain_all();
        let mut stayed = 0;
        let mut pairs = node_pairs(from, to);
        if self.planted(PlantedFault::PairsAscending) {
            pairs.sort();
        }
        for (source, target) in pairs {
            stayed += self.migrate_to_node(mm, source, target, move_all, caller, by)?;
        }
        Ok(stayed)
    }

    fn migrate_to_node(
        &mut self,
        mm: MmId,
        source: NodeId,
        target: NodeId,
        move_all: bool,
        caller: Caller,
        by: &Allocator,
    ) -> Result<u64, Errno> {
        let mut queue = Queue::new(Wants::On(source), move_all, false);
        let everything = (0, USER_LIMIT / PAGE_BYTES);
        for position in 0..self.mm(mm).vmas.len() {
            let vma = self.mm(mm).vmas[position].clone();
            if is_migratable(&vma) {
                self.queue_range(mm, &vma, everything, &mut queue);
            }
        }
        let counted = match self.behaviour.count_unisolated {
            CountUnisolated::Never => 0,
            CountUnisolated::PerFolio | CountUnisolated::PerEntry => queue.failed,
        };
        if queue.folios.is_empty() {
            return Ok(counted);
        }
        let slot: Slot = self.nodes.slot(target).expect("a target node is a memory node");
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::Syscall,
            target: Target::Exactly { slot, by: *by },
            caller,
        };
        let outcome = self.migrate(queue.folios, &request);
        self.put_back_all(outcome.left);
        Ok(outcome.result? + counted)
    }
}

/// Pairs of nodes in the order in which the kernel empties them: a target is emptied before it is
/// filled, where that can be told (spec 2.2).
pub(crate) fn node_pairs(from: &NodeSet, to: &NodeSet) -> Vec<(NodeId, NodeId)> {
    let members: Vec<NodeId> = to.iter().collect();
    let Some(modulus) = std::num::NonZeroUsize::new(members.len()) else { return Vec::new() };
    let sources: Vec<NodeId> = from.iter().collect();
    let unequal = sources.len() != members.len();
    let target = |at: usize| members[at % modulus];
    let mut left: Vec<(usize, NodeId)> = sources.iter().copied().enumerate().collect();
    let mut pairs = Vec::new();
    loop {
        let mut last = None;
        for &(at, source) in &left {
            let goes_to = target(at);
            if unequal && to.contains(source) || goes_to == source {
                continue;
            }
            last = Some((source, goes_to));
            if !left.iter().any(|&(_, other)| other == goes_to) {
                break;
            }
        }
        let Some((source, goes_to)) = last else { return pairs };
        left.retain(|&(_, other)| other != source);
        pairs.push((source, goes_to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(from: &str, to: &str) -> Vec<(u16, u16)> {
        let set = |text: &str| text.parse::<NodeSet>().unwrap();
        node_pairs(&set(from), &set(to)).iter().map(|&(s, d)| (s.get(), d.get())).collect()
    }

    #[test]
    fn the_worked_examples_of_the_specification_come_out() {
        assert_eq!(pairs("0-1", "1-2"), [(1, 2), (0, 1)]);
        assert_eq!(pairs("0-1", "0-1"), []);
        assert_eq!(pairs("1-2", "0,2"), [(1, 0)]);
        assert_eq!(pairs("0-2", "1"), [(2, 1), (0, 1)]);
        assert_eq!(pairs("0-2", "1-2"), [(0, 1)]);
        assert_eq!(pairs("0", "1-2"), [(0, 1)]);
        assert_eq!(pairs("0-1", "2"), [(0, 2), (1, 2)]);
        assert_eq!(pairs("0-7", "3-5"), [(7, 4), (6, 3), (2, 5), (1, 4), (0, 3)]);
        assert_eq!(pairs("0-2", "1-3"), [(2, 3), (1, 2), (0, 1)]);
        assert_eq!(pairs("0,9", "0-1"), [(9, 1)]);
    }
}
