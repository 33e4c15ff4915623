//! Where the copy of a folio is allocated: it depends on who asks (spec 1.6).

use machine::NodeSet;

use crate::Machine;
use crate::memory::alloc::Wanted;
use crate::memory::frames::{PMD_ORDER, Pfn, flag};
use crate::memory::node::Slot;
use crate::memory::owner::Owner;
use crate::mm::task::TaskId;
use crate::policy::mempolicy::{MemPolicy, PolicyMode};
use crate::policy::placement::{Allocator, Placing};

/// The caller's choice of destination.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// This node and no other.
    Exactly { slot: Slot, by: Allocator },
    /// A policy; the interleave index of a folio is `base` plus its own index (mbind since 6.12).
    Policy { policy: Option<MemPolicy>, base: u64, by: Allocator },
    /// The policy of the caller's VMA that maps the folio (mbind on 6.1).
    VmaPolicy { task: TaskId, from: u64, by: Allocator },
    /// Any of these nodes, nearest to the source first; never the source itself unless it is
    /// among them. `movable`: ZONE_MOVABLE will do.
    Among { nodes: &'a NodeSet, by: Allocator, movable: bool },
    /// The same zone, its far end (compaction).
    SameZone,
}

impl Machine {
    /// A destination for `source`, or `None`: ENOMEM.
    pub(crate) fn allocate_target(&mut self, source: Pfn, target: &Target<'_>) -> Option<Pfn> {
        if self.frames.has(source, flag::HUGETLB) {
            return self.hugetlb_target(source, target);
        }
        let order = self.frames.order(source);
        match *target {
            Target::Exactly { slot, ref by } => {
                let wanted = Wanted {
                    order,
                    start: slot,
                    this_node: true,
                    nodes: None,
                    mems: by.mems.as_ref(),
                    cpu: by.cpu,
                    movable: true,
                };
                self.allocate(&wanted)
            }
            Target::Policy { .. } | Target::VmaPolicy { .. } => self.policy_target(source, target),
            Target::Among { nodes, ref by, movable } => {
                let wanted = Wanted {
                    order,
                    start: self.nodes.slot_of(source),
                    this_node: false,
                    nodes: Some(nodes),
                    mems: by.mems.as_ref(),
                    cpu: by.cpu,
                    movable,
                };
                self.allocate(&wanted)
            }
            Target::SameZone => {
                let page = self.nodes.zone_of(source).take_last_behind(source)?;
                self.frames.allocate(page, order);
                Some(page)
            }
        }
    }

    #[inline(never)]
    fn policy_target(&mut self, source: Pfn, target: &Target<'_>) -> Option<Pfn> {
        let (placing, by) = self.target_placing(source, target)?;
        self.allocate_by(&by, &placing, self.frames.order(source))
    }

    fn target_placing(&self, source: Pfn, target: &Target<'_>) -> Option<(Placing, Allocator)> {
        match *target {
            Target::Policy { policy, base, by } => {
                let order = self.frames.order(source);
                let index = base.wrapping_add(self.folio_index(source) >> order);
                Some((Placing { policy, index }, by))
            }
            Target::VmaPolicy { task, from, by } => {
                let order = self.frames.order(source);
                let mut mappings = Vec::new();
                self.mappings(source, &mut mappings);
                let mm = self.mm_of(task);
                // `new_page` (6.1) looks from the first VMA of the call's range on.
                let placing =
                    mappings.iter().filter(|mapping| Some(mapping.mm) == mm).find_map(|mapping| {
                        let vma = self.mm(mapping.mm).vma(mapping.page)?;
                        (vma.end > from).then(|| self.placing(task, vma, mapping.page, order))
                    });
                let thread = Placing { policy: self.tasks[&task].policy, index: 0 };
                Some((placing.unwrap_or(thread), by))
            }
            _ => None,
        }
    }

    /// The kernel's `folio->index`; for hugetlb in huge pages.
    pub(crate) fn folio_index(&self, head: Pfn) -> u64 {
        match self.frames.owner(head) {
            Owner::Anon { index, .. } | Owner::File { index, .. } => index,
            Owner::None | Owner::Ksm { .. } => 0,
        }
    }

    /// A free page of a pool that nobody was promised, else a fresh one; 1 GiB pages only from the
    /// pool (spec 8.5).
    #[inline(never)]
    fn hugetlb_target(&mut self, source: Pfn, target: &Target<'_>) -> Option<Pfn> {
        let order = self.frames.order(source);
        let slots = self.hugetlb_target_slots(source, target);
        if self.hugetlb.unreserved(order) > 0
            && let Some(page) = slots.iter().find_map(|&slot| self.hugetlb.take(order, slot))
        {
            return Some(page);
        }
        if order > PMD_ORDER {
            return None;
        }
        let page = slots.iter().find_map(|&slot| self.fresh_hugetlb_page(order, slot))?;
        self.fresh_hugetlb.insert(page);
        Some(page)
    }

    fn hugetlb_target_slots(&self, source: Pfn, target: &Target<'_>) -> Vec<Slot> {
        let allowed = |by: &Allocator, slot: Slot| {
            by.mems.is_none_or(|mems| mems.contains(self.nodes[slot].id))
        };
        match *target {
            Target::Exactly { slot, ref by } => {
                if allowed(by, slot) {
                    vec![slot]
                } else {
                    Vec::new()
                }
            }
            Target::Policy { .. } | Target::VmaPolicy { .. } => {
                let Some((placing, by)) = self.target_placing(source, target) else {
                    return Vec::new();
                };
                let strict = placing.policy.filter(|policy| policy.mode == PolicyMode::Bind);
                let start = self.start_slot(&by, &placing);
                let fits = |slot: Slot| {
                    strict.is_none_or(|policy| policy.nodes.contains(self.nodes[slot].id))
                };
                let slots = self.nodes[start].fallback.iter().copied();
                slots.filter(|&slot| allowed(&by, slot) && fits(slot)).collect()
            }
            Target::Among { nodes, ref by, .. } => {
                let slots = self.nodes[self.nodes.slot_of(source)].fallback.iter().copied();
                let fits = |slot: Slot| nodes.contains(self.nodes[slot].id);
                slots.filter(|&slot| allowed(by, slot) && fits(slot)).collect()
            }
            Target::SameZone => Vec::new(),
        }
    }

    /// Gives back a destination that was not used.
    pub(crate) fn free_target(&mut self, page: Pfn) {
        if !self.frames.has(page, flag::HUGETLB) {
            self.free(page);
        } else if self.fresh_hugetlb.remove(&page) {
            self.dissolve(page);
        } else {
            self.give_hugetlb_page(page);
        }
    }
}
