//! Routes: where pages of each node are to go.
//!
//! A user names one of four routes. Each becomes passes that the mover makes one after another;
//! within a pass no node is both emptied and filled, so that a page which two mappings share is
//! never moved twice.

use std::fmt;
use std::str::FromStr;

use machine::{NodeId, NodeSet, Topology};
use serde::{Deserialize, Serialize};

use crate::placement::Run;

/// Nodes with weights, in ascending order: `0=3,1=1` puts three pages on node 0 for each on node 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Weights {
    weights: Vec<(NodeId, u32)>,
    total: u64,
}

/// Why a text names no weighted nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` does not name nodes to interleave over: write 0,1 or 0-3, or with weights 0=3,1=1"
)]
pub struct ParseWeightsError {
    text: String,
}

impl Weights {
    /// Every node with the same weight. `None` when `nodes` is empty.
    pub fn equal(nodes: &NodeSet) -> Option<Self> {
        Self::new(nodes.iter().map(|node| (node, 1)).collect())
    }

    fn new(mut weights: Vec<(NodeId, u32)>) -> Option<Self> {
        weights.sort_unstable();
        let distinct = weights.windows(2).all(|pair| pair[0].0 != pair[1].0);
        let positive = weights.iter().all(|&(_, weight)| weight > 0);
        let total = weights.iter().map(|&(_, weight)| u64::from(weight)).sum();
        (distinct && positive && total > 0).then_some(Self { weights, total })
    }

    /// The nodes.
    pub fn nodes(&self) -> NodeSet {
        self.weights.iter().map(|&(node, _)| node).collect()
    }

    /// The node of the page with this index, as the kernel's weighted interleave picks it: the index
    /// modulo the sum of weights, walked through the nodes in ascending order (behaviour spec 4.6).
    pub fn node_of(&self, index: u64) -> NodeId {
        let mut rest = index % self.total;
        for &(node, weight) in &self.weights {
            match rest.checked_sub(u64::from(weight)) {
                Some(left) => rest = left,
                None => return node,
            }
        }
        self.weights[0].0
    }
}

impl FromStr for Weights {
    type Err = ParseWeightsError;

    /// Reads `0,1`, `0-3`, `0=3,1=1`, `0-1=2,2=1`. A node without a weight has weight 1.
    fn from_str(text: &str) -> Result<Self, ParseWeightsError> {
        let malformed = || ParseWeightsError { text: text.to_owned() };
        let mut weights = Vec::new();
        for item in text.split(',') {
            let (nodes, weight) = item.split_once('=').unwrap_or((item, "1"));
            let weight: u32 = weight.trim().parse().map_err(|_| malformed())?;
            let nodes: NodeSet = nodes.parse().map_err(|_| malformed())?;
            weights.extend(nodes.iter().map(|node| (node, weight)));
        }
        Self::new(weights).ok_or_else(malformed)
    }
}

impl TryFrom<String> for Weights {
    type Error = ParseWeightsError;

    fn try_from(text: String) -> Result<Self, ParseWeightsError> {
        text.parse()
    }
}

impl From<Weights> for String {
    fn from(weights: Weights) -> Self {
        weights.to_string()
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, weight)) in self.weights.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{node}={weight}")?;
        }
        Ok(())
    }
}

/// Where a pass puts the pages that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// On this node.
    Node(NodeId),
    /// On these nodes in turn, by page number.
    Interleave(Weights),
}

impl Destination {
    /// The node for the page at `address` of a run.
    pub fn node_for(&self, address: u64, run: &Run) -> NodeId {
        match self {
            Self::Node(node) => *node,
            Self::Interleave(weights) => {
                weights.node_of(address / machine::BASE_PAGE_BYTES / run.size.base_pages())
            }
        }
    }

    /// The nodes that may receive pages.
    pub fn nodes(&self) -> NodeSet {
        match self {
            Self::Node(node) => NodeSet::only(*node),
            Self::Interleave(weights) => weights.nodes(),
        }
    }
}

/// One sweep over memory: pages on `from` go to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Pages on these nodes are taken.
    pub from: NodeSet,
    /// Where they go.
    pub to: Destination,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `--to NODE`: everything to one node.
    To(NodeId),
    /// `--from NODES --to NODES`: keeps relative position, as migrate_pages(2).
    FromTo {
        /// Source nodes.
        from: NodeSet,
        /// Target nodes.
        to: NodeSet,
    },
    /// `--interleave NODES`: spread by page number.
    Interleave(Weights),
    /// `--near-cpus`: to the nearest of these nodes, where the threads may run.
    Near(NodeSet),
    /// `--undo`: back to where the pages were; the record of the move knows where that is.
    Back,
}

impl Route {
    /// The passes that carry it out on `machine`, in order.
    pub fn passes(&self, machine: &Topology) -> Vec<Pass> {
        let all = machine.memory_nodes();
        match self {
            Self::To(node) => {
                let from = all.difference(&NodeSet::only(*node));
                vec![Pass { from, to: Destination::Node(*node) }]
            }
            Self::FromTo { from, to } => {
                pairs_in_kernel_order(from, to).into_iter().map(Pass::pair).collect()
            }
            Self::Interleave(weights) => {
                vec![Pass { from: all, to: Destination::Interleave(weights.clone()) }]
            }
            Self::Near(near) => all
                .difference(near)
                .iter()
                .filter_map(|from| Some((from, nearest(machine, from, near)?)))
                .map(Pass::pair)
                .collect(),
            Self::Back => Vec::new(),
        }
    }

    /// The nodes that may receive pages.
    pub fn destinations(&self) -> NodeSet {
        match self {
            Self::To(node) => NodeSet::only(*node),
            Self::FromTo { to, .. } => *to,
            Self::Interleave(weights) => weights.nodes(),
            Self::Near(near) => *near,
            Self::Back => NodeSet::EMPTY,
        }
    }
}

impl Pass {
    fn pair((from, to): (NodeId, NodeId)) -> Self {
        Self { from: NodeSet::only(from), to: Destination::Node(to) }
    }
}

fn nearest(machine: &Topology, from: NodeId, near: &NodeSet) -> Option<NodeId> {
    near.intersection(&machine.memory_nodes())
        .iter()
        .min_by_key(|&node| (machine.distance(from, node), node))
}

/// The node pairs of migrate_pages(2), in the order in which the kernel takes them.
///
/// A node keeps its position: the n-th of `from` goes to the n-th of `to`, counted round. Where the
/// sets differ in size, a node in both stays. A pair whose target is no longer a source goes first,
/// so that pages are not carried along twice.
///
/// Source: behaviour spec 2.2; kernel, mm/mempolicy.c, `do_migrate_pages`.
pub fn pairs_in_kernel_order(from: &NodeSet, to: &NodeSet) -> Vec<(NodeId, NodeId)> {
    let targets: Vec<NodeId> = to.iter().collect();
    if targets.is_empty() {
        return Vec::new();
    }
    let mut pending: Vec<(NodeId, NodeId)> = from
        .iter()
        .enumerate()
        .filter(|(_, source)| from.len() == to.len() || !to.contains(*source))
        .map(|(position, source)| (source, targets[position % targets.len()]))
        .filter(|(source, target)| source != target)
        .collect();
    // A source that stays where it is still counts as a source when a free target is looked for.
    let mut sources = *from;
    let mut ordered = Vec::with_capacity(pending.len());
    while !pending.is_empty() {
        let free = pending.iter().position(|(_, target)| !sources.contains(*target));
        let (source, target) = pending.remove(free.unwrap_or(pending.len() - 1));
        sources.remove(source);
        ordered.push((source, target));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(from: &str, to: &str) -> Vec<(u16, u16)> {
        pairs_in_kernel_order(&from.parse().unwrap(), &to.parse().unwrap())
            .into_iter()
            .map(|(source, target)| (source.get(), target.get()))
            .collect()
    }

    #[test]
    fn pairs_follow_the_worked_examples_of_the_behaviour_spec() {
        assert_eq!(pairs("0,1", "1,2"), [(1, 2), (0, 1)]);
        assert_eq!(pairs("0,1", "0,1"), []);
        assert_eq!(pairs("1,2", "0,2"), [(1, 0)]);
        assert_eq!(pairs("0-2", "1"), [(2, 1), (0, 1)]);
        assert_eq!(pairs("0-2", "1,2"), [(0, 1)]);
        assert_eq!(pairs("0", "1,2"), [(0, 1)]);
        assert_eq!(pairs("0,1", "2"), [(0, 2), (1, 2)]);
        assert_eq!(pairs("0-7", "3-5"), [(7, 4), (6, 3), (2, 5), (1, 4), (0, 3)]);
        assert_eq!(pairs("0-2", "1-3"), [(2, 3), (1, 2), (0, 1)]);
        assert_eq!(pairs("0,9", "0,1"), [(9, 1)]);
    }

    #[test]
    fn weights_repeat_as_the_kernel_interleaves() {
        let weights: Weights = "0=3,1=1".parse().unwrap();
        let nodes: Vec<u16> = (0..8).map(|index| weights.node_of(index).get()).collect();
        assert_eq!(nodes, [0, 0, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn weights_that_name_no_node_or_a_node_twice_are_refused() {
        for text in ["", "x", "0=0", "0=", "0,0", "0=-1", "=2"] {
            assert!(text.parse::<Weights>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_weights_print_they_read_back(raw in prop::collection::btree_map(0u16..64, 1u32..9, 1..6)) {
            let listed: Vec<String> = raw.iter().map(|(node, weight)| format!("{node}={weight}")).collect();
            let weights: Weights = listed.join(",").parse().unwrap();
            prop_assert_eq!(weights.to_string().parse(), Ok(weights));
        }

        #[test]
        fn no_text_makes_the_weights_parser_panic(text in ".*") {
            let _ = text.parse::<Weights>();
        }

        #[test]
        fn no_pair_starts_and_ends_on_one_node(from in 0u64..256, to in 0u64..256) {
            let set = |bits: u64| (0..8u16).filter(|n| bits >> n & 1 == 1).filter_map(NodeId::new).collect::<NodeSet>();
            for (source, target) in pairs_in_kernel_order(&set(from), &set(to)) {
                prop_assert!(source != target);
            }
        }
    }
}
