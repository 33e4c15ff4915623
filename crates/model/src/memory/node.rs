//! Nodes: their zones, their watermarks, and the order in which they stand in for each other.

use machine::{CpuId, Node, NodeId, NodeSet, Topology};

use crate::memory::frames::{PMD_ORDER, PMD_PAGES, Pfn};
use crate::memory::zone::{Watermarks, Zone, ZoneKind};
use crate::version::Behaviour;

/// A node by its position in the machine: numbers of nodes may have gaps, positions have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u8);

impl Slot {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Nodes that a machine may have: an access reads the node of a page from five bits.
pub const MAX_NODES: usize = 32;

/// First frame behind 4 GiB.
const DMA32_END: u32 = 1 << 20;

/// Allocation statistics of a node, in allocation calls (spec 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NumaStats {
    /// The page came from the node that was wanted.
    pub hit: u64,
    /// The page came from here though another node was wanted.
    pub miss: u64,
    /// This node was wanted and another gave the page.
    pub foreign: u64,
    /// An interleaved page came from the node of its turn.
    pub interleave: u64,
    /// The page's node is the node of the CPU.
    pub local: u64,
    /// It is not.
    pub other: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemoryNode {
    pub(crate) id: NodeId,
    /// Zones from low to high; none for a memoryless node.
    pub(crate) zones: Vec<Zone>,
    /// Nodes to take memory from, nearest first (spec 6.3).
    pub(crate) fallback: Vec<Slot>,
    pub(crate) has_cpus: bool,
    /// 0 is the fastest.
    pub(crate) tier: u8,
    pub(crate) stats: NumaStats,
    /// Weight of weighted interleave.
    pub(crate) weight: u8,
}

impl MemoryNode {
    pub(crate) fn has_memory(&self) -> bool {
        !self.zones.is_empty()
    }

    pub(crate) fn free(&self) -> u64 {
        self.zones.iter().map(|zone| zone.free).sum()
    }

    pub(crate) fn pages(&self) -> u64 {
        self.zones.iter().map(|zone| u64::from(zone.pages)).sum()
    }
}

/// All nodes of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nodes {
    pub(crate) list: Vec<MemoryNode>,
    /// Slot of each 2 MiB block of frames.
    block_slot: Vec<u8>,
    /// Node of each CPU, by CPU number.
    cpu_slot: Vec<u8>,
    /// Nodes with memory.
    pub(crate) with_memory: NodeSet,
}

impl Nodes {
    /// Lays the nodes out one after the other; `movable_pages` of each node are ZONE_MOVABLE.
    pub(crate) fn new(topology: &Topology, movable_pages: u32, behaviour: &Behaviour) -> Self {
        let tiered = behaviour.boot_nodes_have_tiers;
        let mut next = 0;
        let mut block_slot = Vec::new();
        let mut list = Vec::new();
        for (slot, node) in (0u8..).zip(topology.nodes()) {
            let pages = u32::try_from(usable_pages(node)).expect("a machine fits");
            block_slot.resize((next + pages) as usize / PMD_PAGES as usize, slot);
            list.push(MemoryNode {
                id: node.id,
                zones: zones(next, pages, movable_pages),
                fallback: Vec::new(),
                has_cpus: !node.cpus.is_empty(),
                tier: node.tier.filter(|_| tiered).unwrap_or(0),
                stats: NumaStats::default(),
                weight: 1,
            });
            next += pages;
        }
        let mut nodes = Self {
            list,
            block_slot,
            cpu_slot: cpu_slots(topology),
            with_memory: topology.memory_nodes(),
        };
        nodes.set_watermarks();
        nodes.build_fallback(topology);
        nodes
    }

    /// Frames of the whole machine.
    pub(crate) fn frames(&self) -> usize {
        self.block_slot.len() * PMD_PAGES as usize
    }

    #[inline]
    pub(crate) fn slot_of(&self, pfn: Pfn) -> Slot {
        Slot(self.block_slot[pfn.index() >> PMD_ORDER])
    }

    #[inline]
    pub(crate) fn id_of(&self, pfn: Pfn) -> NodeId {
        self[self.slot_of(pfn)].id
    }

    pub(crate) fn slot(&self, id: NodeId) -> Option<Slot> {
        let at = self.list.binary_search_by_key(&id, |node| node.id).ok()?;
        u8::try_from(at).ok().map(Slot)
    }

    /// The node of the kernel image, which lies in the first memory, as does the zero page in it.
    pub(crate) fn of_kernel_image(&self) -> Slot {
        self.slots().find(|&slot| self[slot].has_memory()).unwrap_or(Slot(0))
    }

    /// The node of a CPU; CPUs that the machine lacks are on the first node.
    pub(crate) fn of_cpu(&self, cpu: CpuId) -> Slot {
        Slot(self.cpu_slot.get(cpu.get() as usize).copied().unwrap_or(0))
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0u8..).take(self.list.len()).map(Slot)
    }

    #[inline]
    pub(crate) fn zone_of(&mut self, pfn: Pfn) -> &mut Zone {
        let slot = self.slot_of(pfn);
        let zones = &mut self.list[slot.index()].zones;
        zones.iter_mut().find(|zone| zone.contains(pfn)).expect("every frame is in a zone")
    }

    pub(crate) fn zone_kind(&self, pfn: Pfn) -> ZoneKind {
        let zones = &self[self.slot_of(pfn)].zones;
        zones.iter().find(|zone| zone.contains(pfn)).expect("every frame is in a zone").kind
    }

    /// Whether `slot` is in the fastest tier that has CPUs, or a faster one (spec 10.7).
    pub(crate) fn is_top_tier(&self, slot: Slot) -> bool {
        let slowest = self.list.iter().filter(|node| node.has_cpus).map(|node| node.tier).max();
        self[slot].tier <= slowest.unwrap_or(u8::MAX)
    }

    /// Spec 10.7, "Watermarks": `min_free_kbytes` as the kernel computes it, raised for THP.
    fn set_watermarks(&mut self) {
        let zones = || self.list.iter().flat_map(|node| &node.zones);
        let lowmem: u64 =
            zones().filter(|z| z.kind != ZoneKind::Movable).map(|z| u64::from(z.pages)).sum();
        let count = zones().filter(|zone| zone.kind != ZoneKind::Movable).count() as u64;
        let base_kib = (lowmem * 4 * 16).isqrt().clamp(128, 262_144);
        // What khugepaged asks for: room for two huge pages a zone, and for nine more so that page
        // types do not mix; never above 5 %.
        let huge_kib = (u64::from(PMD_PAGES) * count * 11).min(lowmem / 20) * 4;
        let total = base_kib.max(huge_kib) / 4;
        for zone in self.list.iter_mut().flat_map(|node| &mut node.zones) {
            let managed = u64::from(zone.pages);
            let min = total * managed / lowmem.max(1);
            let gap = (min / 4).max(managed * 10 / 10_000);
            zone.watermarks =
                Watermarks { min, low: min + gap, high: min + 2 * gap, promo: min + 3 * gap };
        }
    }

    /// Spec 6.3: nearest first; ties go to the node that stands in for fewer others.
    fn build_fallback(&mut self, topology: &Topology) {
        let mut load = vec![0u32; self.list.len()];
        for node in self.slots() {
            let distance = |other: Slot| {
                let (from, to) = (self[node].id, self[other].id);
                u32::from(topology.distance(from, to).unwrap_or(u8::MAX))
            };
            let mut left: Vec<Slot> =
                self.slots().filter(|&other| self[other].has_memory() && other != node).collect();
            let mut order = Vec::new();
            if self[node].has_memory() {
                order.push(node);
            }
            let mut last = None;
            while let Some(&best) = left.iter().min_by_key(|&&other| {
                ((distance(other) + u32::from(other < node)) * 1024 + load[other.index()], other)
            }) {
                if last != Some(distance(best)) {
                    load[best.index()] += 1;
                }
                last = Some(distance(best));
                left.retain(|&other| other != best);
                order.push(best);
            }
            self.list[node.index()].fallback = order;
        }
    }
}

impl std::ops::Index<Slot> for Nodes {
    type Output = MemoryNode;

    fn index(&self, slot: Slot) -> &MemoryNode {
        &self.list[slot.index()]
    }
}

impl std::ops::IndexMut<Slot> for Nodes {
    fn index_mut(&mut self, slot: Slot) -> &mut MemoryNode {
        &mut self.list[slot.index()]
    }
}

/// Pages of a node that the model can use: whole blocks.
pub(crate) fn usable_pages(node: &Node) -> u64 {
    let block = u64::from(PMD_PAGES);
    node.memory.pages() / block * block
}

fn zones(start: u32, pages: u32, movable_pages: u32) -> Vec<Zone> {
    let movable = movable_pages.min(pages) / PMD_PAGES * PMD_PAGES;
    let end = start + pages;
    let dma32_end = DMA32_END.clamp(start, end - movable);
    [
        (ZoneKind::Dma32, start, dma32_end),
        (ZoneKind::Normal, dma32_end, end - movable),
        (ZoneKind::Movable, end - movable, end),
    ]
    .into_iter()
    .filter(|&(_, from, upto)| from < upto)
    .map(|(kind, from, upto)| Zone::new(kind, Pfn(from), upto - from))
    .collect()
}

fn cpu_slots(topology: &Topology) -> Vec<u8> {
    let mut slots = Vec::new();
    for (slot, node) in (0u8..).zip(topology.nodes()) {
        for cpu in node.cpus.iter() {
            let at = cpu.get() as usize;
            slots.resize(slots.len().max(at + 1), 0);
            slots[at] = slot;
        }
    }
    slots
}
