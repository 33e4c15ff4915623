//! Where a new page goes: the effective policy of an address, and the allocation by it (spec 6).

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::convert;
use crate::faults::PlantedFault;
use crate::memory::alloc::Wanted;
use crate::memory::frames::{Order, PMD_ORDER, Pfn};
use crate::memory::node::Slot;
use crate::mm::task::TaskId;
use crate::mm::vma::Vma;
use crate::policy::mempolicy::{MemPolicy, PolicyMode};

/// Who allocates: the CPU it runs on, and the cpuset that confines it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocator {
    pub(crate) cpu: Slot,
    /// `None`: a kernel worker, which no cpuset confines.
    pub(crate) mems: Option<NodeSet>,
}

/// A policy with the interleave index of one page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placing {
    /// `None`: the built-in default, the CPU's node.
    pub(crate) policy: Option<MemPolicy>,
    pub(crate) index: u64,
}

impl Machine {
    pub(crate) fn allocator(&self, task: TaskId) -> Allocator {
        let task = &self.tasks[&task];
        let mems = if self.cpusets.are_used() { Some(task.mems_allowed) } else { None };
        Allocator { cpu: self.nodes.of_cpu(task.cpu), mems }
    }

    /// The policy of a VMA or of the file range behind it; not the thread's (spec 4.7).
    pub(crate) fn vma_policy(&self, vma: &Vma, page: u64) -> Option<MemPolicy> {
        match vma.file().map(|file| self.file(file)) {
            Some(file) if file.kind.has_shared_policy() => file.policy_at(vma.offset_of(page)),
            _ => vma.policy.as_deref().copied(),
        }
    }

    /// VMA or file policy, else the thread's, with the interleave index of the page.
    pub(crate) fn placing(&self, task: TaskId, vma: &Vma, page: u64, order: Order) -> Placing {
        let policy = self.vma_policy(vma, page).or_else(|| self.tasks[&task].policy);
        Placing { policy, index: self.interleave_index(vma, page, order) }
    }

    /// Spec 6.2. Shared memory adds the number of its inode.
    pub(crate) fn interleave_index(&self, vma: &Vma, page: u64, order: Order) -> u64 {
        let index = match vma.file().map(|file| self.file(file)) {
            Some(file) if file.kind.has_shared_policy() => {
                file.inode + (vma.offset_of(page) >> order)
            }
            _ => (vma.pgoff >> order) + ((page - vma.start) >> order),
        };
        let index = index + u64::from(self.planted(PlantedFault::InterleaveLate));
        if self.behaviour.interleave_index_32_bit { index & u64::from(u32::MAX) } else { index }
    }

    /// Allocates by a policy (`alloc_pages_mpol`).
    pub(crate) fn allocate_by(
        &mut self,
        by: &Allocator,
        placing: &Placing,
        order: Order,
    ) -> Option<Pfn> {
        let policy = placing.policy;
        let mode = policy.map_or(PolicyMode::Default, |policy| policy.mode);
        let nodes = policy.map_or(NodeSet::EMPTY, |policy| policy.nodes);
        let wanted = Wanted {
            order,
            start: self.start_slot(by, placing),
            this_node: false,
            nodes: None,
            mems: by.mems.as_ref(),
            cpu: by.cpu,
            movable: true,
        };
        match mode {
            PolicyMode::Interleave | PolicyMode::WeightedInterleave => {
                let page = self.allocate(&wanted)?;
                let counted =
                    mode == PolicyMode::Interleave || self.behaviour.weighted_counts_interleave;
                if counted && self.nodes.slot_of(page) == wanted.start {
                    self.nodes[wanted.start].stats.interleave += 1;
                }
                Some(page)
            }
            PolicyMode::Bind => {
                let fits = by.mems.is_none_or(|mems| !mems.intersection(&nodes).is_empty());
                let wanted = Wanted { nodes: fits.then_some(&nodes), ..wanted };
                self.allocate_pmd_first(&wanted)
            }
            PolicyMode::PreferredMany => {
                let within = Wanted { nodes: Some(&nodes), ..wanted };
                self.allocate_pmd_first(&within).or_else(|| self.allocate(&wanted))
            }
            _ => self.allocate_pmd_first(&wanted),
        }
    }

    /// A folio of PMD order is first sought on the starting node alone.
    fn allocate_pmd_first(&mut self, wanted: &Wanted<'_>) -> Option<Pfn> {
        let start = self.nodes[wanted.start].id;
        if wanted.order == PMD_ORDER && wanted.nodes.is_none_or(|nodes| nodes.contains(start)) {
            let here = Wanted { this_node: true, ..*wanted };
            if let Some(page) = self.allocate(&here) {
                return Some(page);
            }
        }
        self.allocate(wanted)
    }

    /// Whose zonelist an allocation by this policy walks (spec 6.1).
    pub(crate) fn start_slot(&self, by: &Allocator, placing: &Placing) -> Slot {
        let Some(policy) = placing.policy else { return by.cpu };
        let node = match policy.mode {
            PolicyMode::Preferred => policy.nodes.first(),
            PolicyMode::Bind | PolicyMode::PreferredMany => policy.home,
            PolicyMode::Interleave => interleaved(&policy.nodes, placing.index),
            PolicyMode::WeightedInterleave => self.weighted(&policy.nodes, placing.index),
            PolicyMode::Default | PolicyMode::Local => None,
        };
        node.and_then(|node| self.nodes.slot(node)).unwrap_or(by.cpu)
    }

    /// Spec 4.6: walk the nodes, each as often as its weight.
    fn weighted(&self, nodes: &NodeSet, index: u64) -> Option<NodeId> {
        let sum: u64 = nodes.iter().map(|node| self.weight_of(node)).sum();
        let mut left = index.checked_rem(sum)?;
        for node in nodes.iter() {
            let weight = self.weight_of(node);
            if left < weight {
                return Some(node);
            }
            left -= weight;
        }
        None
    }

    pub(crate) fn weight_of(&self, node: NodeId) -> u64 {
        self.nodes.slot(node).map_or(1, |slot| u64::from(self.nodes[slot].weight))
    }
}

fn interleaved(nodes: &NodeSet, index: u64) -> Option<NodeId> {
    let at = index.checked_rem(nodes.len() as u64)?;
    nodes.iter().nth(convert::index(at))
}
