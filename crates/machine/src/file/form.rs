//! The tables and keys of a machine.toml, as serde sees them.
//!
//! Values that are more than a number or a text have a type here that reads them and says, when it
//! cannot, what would be right. Only [`super`] uses them.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::{Bytes, CpuSet, Distance, Node, NodeId, ParseBytesError, Topology};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineFile {
    pub(super) name: String,
    #[serde(default, deserialize_with = "at_most_every_node")]
    pub(super) node: Vec<NodeEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) distance: Option<DistanceTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<NodeId>,
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    cpus: CpuSet,
    memory: SizeText,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<RateText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DistanceTable {
    rows: Vec<Vec<DistanceNumber>>,
}

/// A size as text, `1GiB`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct SizeText(Bytes);

/// Bytes a second as text, `20GiB/s`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct RateText(Bytes);

/// An entry of the table of distances. [`Topology::new`] knows which values may stand where.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
struct DistanceNumber(Distance);

impl NodeEntry {
    /// The node, with its place in the file for a number where it has none of its own.
    pub(super) fn node(self, place: NodeId) -> Node {
        Node {
            id: self.id.unwrap_or(place),
            cpus: self.cpus,
            memory: self.memory.0,
            free: None,
            tier: self.tier,
            latency_ns: self.latency_ns,
            bandwidth_per_s: self.bandwidth.map(|rate| rate.0),
        }
    }
}

impl DistanceTable {
    pub(super) fn values(self) -> Vec<Vec<Distance>> {
        self.rows.into_iter().map(|row| row.into_iter().map(|number| number.0).collect()).collect()
    }
}

impl From<&Topology> for MachineFile {
    fn from(machine: &Topology) -> Self {
        let entry = |(place, node): (NodeId, &Node)| NodeEntry {
            id: Some(node.id).filter(|&id| id != place),
            cpus: node.cpus.clone(),
            memory: SizeText(node.memory),
            tier: node.tier,
            latency_ns: node.latency_ns,
            bandwidth: node.bandwidth_per_s.map(RateText),
        };
        let row = |row: &Vec<Distance>| row.iter().copied().map(DistanceNumber).collect();
        Self {
            name: machine.name.clone(),
            node: all_node_ids().zip(machine.nodes()).map(entry).collect(),
            distance: Some(DistanceTable { rows: machine.distances().iter().map(row).collect() }),
        }
    }
}

impl TryFrom<String> for SizeText {
    type Error = ParseBytesError;

    fn try_from(text: String) -> Result<Self, ParseBytesError> {
        text.parse().map(Self)
    }
}

impl From<SizeText> for String {
    fn from(size: SizeText) -> Self {
        size.0.exact()
    }
}

impl TryFrom<String> for RateText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let size = text.strip_suffix("/s").and_then(|size| size.parse().ok());
        size.map(Self).ok_or_else(|| {
            format!("`{text}` is not a bandwidth: write a size a second, such as 20GiB/s")
        })
    }
}

impl From<RateText> for String {
    fn from(rate: RateText) -> Self {
        format!("{}/s", rate.0.exact())
    }
}

impl TryFrom<i64> for DistanceNumber {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        Distance::try_from(number).map(Self).map_err(|_| {
            format!("{number} is not a distance: 10 for a node to itself, 11 to 255 between two")
        })
    }
}

impl From<DistanceNumber> for i64 {
    fn from(number: DistanceNumber) -> Self {
        number.0.into()
    }
}

/// Every node number there can be, in order.
pub(super) fn all_node_ids() -> impl Iterator<Item = NodeId> {
    (0..NodeId::LIMIT).filter_map(NodeId::new)
}

fn at_most_every_node<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NodeEntry>, D::Error> {
    let nodes = Vec::deserialize(from)?;
    if nodes.len() > usize::from(NodeId::LIMIT) {
        let (nodes, limit) = (nodes.len(), NodeId::LIMIT);
        return Err(D::Error::custom(format!("{nodes} nodes: a machine has at most {limit}")));
    }
    Ok(nodes)
}
