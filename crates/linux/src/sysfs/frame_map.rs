//! Which node a page frame belongs to: the survey's way to a page's node without asking the
//! kernel for each page.
//!
//! `/proc/zoneinfo` has the frames that each node spans, but spans have holes, and another node
//! may lie in one. Where the kernel knows memory blocks (`nodeN/memoryM` in sysfs), a frame
//! belongs to a node only if one of the node's blocks has it too. What is then still claimed by
//! two nodes, or by none, has no answer here: ask the kernel for that page.
//!
//! Memory that is plugged in later is missing until the map is read again; it never gives a wrong
//! node, because frames do not change theirs.

use std::collections::BTreeMap;
use std::ops::Range;

use machine::{BASE_PAGE_BYTES, NodeId, NodeSet};

use super::node;
use crate::proc::zoneinfo::{self, Zone};
use crate::{Malformed, ReadError, Root};

/// Runs of frames, each of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameMap {
    /// In ascending order; they do not overlap.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    end: u64,
    node: NodeId,
}

/// Which blocks of memory lie on which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBlocks {
    /// Frames in each block.
    pub frames: u64,
    /// Nodes of each block, by its number. The first frame of block `b` is `b * frames`.
    pub nodes: BTreeMap<u64, Vec<NodeId>>,
}

impl FrameMap {
    /// Puts the map together.
    ///
    /// Linear in zones times blocks, once: a few milliseconds for a TiB.
    #[must_use]
    pub fn new(zones: &[Zone], blocks: Option<&MemoryBlocks>) -> Self {
        let spans: Vec<(Range<u64>, NodeId)> =
            zones.iter().filter_map(|zone| Some((zone.frames()?, zone.node))).collect();
        let mut edges: Vec<u64> =
            spans.iter().flat_map(|(span, _)| [span.start, span.end]).collect();
        if let Some(blocks) = blocks {
            let edge = |number: u64| number.saturating_mul(blocks.frames);
            edges.extend(
                blocks.nodes.keys().flat_map(|&block| [edge(block), edge(block.saturating_add(1))]),
            );
        }
        edges.sort_unstable();
        edges.dedup();
        let mut map = Self::default();
        for pair in edges.windows(2) {
            if let Some(node) = only_owner(pair[0], &spans, blocks) {
                map.push(Run { first: pair[0], end: pair[1], node });
            }
        }
        map
    }

    /// Adds a run behind the last, or makes the last longer.
    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.first && last.node == run.node => last.end = run.end,
            _ => self.runs.push(run),
        }
    }

    /// The node of a frame; `None` when only the kernel can tell.
    #[must_use]
    pub fn node_of(&self, frame: u64) -> Option<NodeId> {
        self.lookup().node_of(frame)
    }

    /// Nodes that have frames.
    #[must_use]
    pub fn nodes(&self) -> NodeSet {
        self.runs.iter().map(|run| run.node).collect()
    }

    /// For many frames, neighbours mostly: it remembers the last run that it found.
    #[must_use]
    pub fn lookup(&self) -> FrameLookup<'_> {
        FrameLookup { map: self, first: 0, frames: 0, node: None }
    }
}

/// Looks frames up in a [`FrameMap`]; a few nanoseconds each.
#[derive(Clone, Debug)]
pub struct FrameLookup<'a> {
    map: &'a FrameMap,
    /// The run found last.
    first: u64,
    frames: u64,
    node: Option<NodeId>,
}

impl FrameLookup<'_> {
    /// The node of a frame; `None` when only the kernel can tell.
    #[inline]
    pub fn node_of(&mut self, frame: u64) -> Option<NodeId> {
        if !self.is_near(frame) {
            let run = self.search(frame)?;
            (self.first, self.frames, self.node) = (run.first, run.end - run.first, Some(run.node));
        }
        self.node
    }

    /// Whether a frame lies so near to the one found last that it must be on the same node.
    #[inline]
    #[must_use]
    pub const fn is_near(&self, frame: u64) -> bool {
        // One comparison: a frame before the run wraps around to a large number.
        frame.wrapping_sub(self.first) < self.frames
    }

    #[cold]
    fn search(&self, frame: u64) -> Option<Run> {
        let runs = &self.map.runs;
        let behind = runs.partition_point(|run| run.first <= frame);
        runs[..behind].last().copied().filter(|run| frame < run.end)
    }
}

/// The node of a frame if exactly one has it in its span and, where blocks are known, in a block.
fn only_owner(
    frame: u64,
    spans: &[(Range<u64>, NodeId)],
    blocks: Option<&MemoryBlocks>,
) -> Option<NodeId> {
    let block_nodes = match blocks {
        Some(blocks) => Some(blocks.nodes.get(&frame.checked_div(blocks.frames)?)?),
        None => None,
    };
    let mut owners = spans
        .iter()
        .filter(|(span, node)| {
            span.contains(&frame) && block_nodes.is_none_or(|nodes| nodes.contains(node))
        })
        .map(|(_, node)| *node);
    let owner = owners.next()?;
    owners.all(|other| other == owner).then_some(owner)
}

/// The memory blocks of all online nodes; `None` when this kernel has none.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_blocks(root: &Root) -> Result<Option<MemoryBlocks>, ReadError> {
    let bytes = match root.parse("sys/devices/system/memory/block_size_bytes", parse_block_size) {
        Err(ReadError::NotFound { .. }) => return Ok(None),
        result => result?,
    };
    let mut nodes: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
    for node in node::nodes(root)?.online.iter() {
        for block in node::memory_blocks(root, node)? {
            nodes.entry(block).or_default().push(node);
        }
    }
    Ok(if nodes.is_empty() {
        None
    } else {
        Some(MemoryBlocks { frames: bytes / BASE_PAGE_BYTES, nodes })
    })
}

/// Bytes of a block, written in hexadecimal.
fn parse_block_size(text: &str) -> Result<u64, Malformed> {
    u64::from_str_radix(text.trim(), 16)
        .ok()
        .filter(|bytes| *bytes >= BASE_PAGE_BYTES)
        .ok_or_else(|| Malformed::new(1, "not the size of a memory block"))
}

/// The map of this machine's memory.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<FrameMap, ReadError> {
    let blocks = read_blocks(root)?;
    Ok(FrameMap::new(&zoneinfo::read(root)?, blocks.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn zone(number: u16, frames: Range<u64>) -> Zone {
        Zone {
            node: node(number),
            name: "Normal".to_owned(),
            free: 0,
            min: 0,
            low: 0,
            high: 0,
            spanned: frames.end - frames.start,
            present: 0,
            managed: 0,
            first_frame: Some(frames.start),
        }
    }

    fn blocks(frames: u64, owners: &[(u64, &[u16])]) -> MemoryBlocks {
        let nodes =
            owners.iter().map(|(block, nodes)| (*block, nodes.iter().copied().map(node).collect()));
        MemoryBlocks { frames, nodes: nodes.collect() }
    }

    #[test]
    fn a_frame_is_on_the_node_whose_zone_spans_it() {
        let map = FrameMap::new(&[zone(0, 1..100), zone(1, 100..200), zone(1, 200..300)], None);
        assert_eq!(map.runs.len(), 2, "neighbours of one node are one run");
        assert_eq!(map.node_of(99), Some(node(0)));
        assert_eq!(map.node_of(100), Some(node(1)));
        assert_eq!(map.node_of(0), None);
        assert_eq!(map.node_of(300), None);
    }

    #[test]
    fn without_blocks_a_frame_that_two_nodes_span_is_left_to_the_kernel() {
        let map = FrameMap::new(&[zone(0, 0..300), zone(1, 100..200)], None);
        assert_eq!(map.node_of(150), None);
        assert_eq!(map.node_of(250), Some(node(0)));
    }

    #[test]
    fn blocks_settle_which_of_two_spans_is_a_hole() {
        let blocks = blocks(100, &[(0, &[0]), (1, &[1]), (2, &[0, 1])]);
        let map = FrameMap::new(&[zone(0, 0..300), zone(1, 100..280)], Some(&blocks));
        assert_eq!(map.node_of(150), Some(node(1)));
        assert_eq!(map.node_of(250), None, "a block of both nodes stays open");
        assert_eq!(map.node_of(290), Some(node(0)), "but only where both span it");
    }

    #[test]
    fn device_memory_in_a_hole_of_a_node_is_not_given_to_that_node() {
        let blocks = blocks(100, &[(0, &[0]), (2, &[0])]);
        let map = FrameMap::new(&[zone(0, 0..300)], Some(&blocks));
        assert_eq!(map.node_of(150), None);
    }

    #[test]
    fn the_size_of_a_block_is_hexadecimal_and_not_zero() {
        assert_eq!(parse_block_size("8000000\n"), Ok(128 << 20));
        assert!(parse_block_size("0").is_err() && parse_block_size("x").is_err());
    }

    #[test]
    fn this_machine_puts_each_frame_on_an_online_node() {
        let root = Root::default();
        let Ok(nodes) = node::nodes(&root) else { return };
        let map = read(&root).unwrap();
        assert!(!map.runs.is_empty());
        assert!(map.runs.iter().all(|run| nodes.online.contains(run.node)));
    }

    proptest! {
        #[test]
        fn a_lookup_that_remembers_finds_what_a_fresh_one_finds(
            zones in prop::collection::vec((0_u16..3, 0_u64..200, 0_u64..50), 0..6),
            frames in prop::collection::vec(0_u64..260, 0..50),
        ) {
            let zones: Vec<_> = zones
                .into_iter()
                .map(|(node, first, count)| zone(node, first..first + count))
                .collect();
            let map = FrameMap::new(&zones, None);
            let mut lookup = map.lookup();
            for frame in frames {
                let owners: Vec<_> = zones
                    .iter()
                    .filter(|zone| zone.frames().is_some_and(|span| span.contains(&frame)))
                    .map(|zone| zone.node)
                    .collect();
                let agree = owners.iter().all(|owner| *owner == owners[0]);
                let only = owners.first().copied().filter(|_| agree);
                prop_assert_eq!(lookup.node_of(frame), only);
                prop_assert_eq!(map.node_of(frame), only);
            }
        }
    }
}
