//! machine.toml: a machine as a file, read and written.
//!
//! ```toml
//! name = "two-socket"
//!
//! [[node]]
//! id = 0                    # left out: the place in the file, counted from 0
//! cpus = "0-1"              # left out: a memory-only node
//! memory = "1GiB"
//! tier = 0                  # optional, as the next two
//! latency_ns = 80
//! bandwidth = "100GiB/s"
//!
//! [[node]]
//! cpus = "2-3"
//! memory = "1GiB"
//!
//! [distance]                # left out: 10 on the diagonal, 20 off it
//! rows = [[10, 21], [21, 10]]
//! ```
//!
//! A key that is not known is an error: a misspelt `cpus` must not make a memory-only node.
//! The files that must be refused, with what is said about them, are in `tests/bad-input`.

mod form;

use std::fs::File;
use std::io::{self, Read as _};

use toml::de::{DeTable, DeValue};

use self::form::{DistanceTable, MachineFile, all_node_ids};
use crate::builtin::{builtin_names, builtin_text};
use crate::{Bytes, Node, NodeId, Topology, TopologyError};

/// The largest file that is read. A machine of 1024 nodes, with all distances, is 5 MB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why there is no machine of that name, or none in that file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineFileError {
    /// Neither a built-in name nor a file.
    #[error(
        "no machine `{name}`: it is not a file, and not one of the built-in machines {}",
        builtin_names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file is there, and cannot be read.
    #[error("cannot read machine file `{file}`: {reason}")]
    Read {
        /// The file as it was named.
        file: String,
        /// What the kernel said, or that the file is no text.
        reason: io::Error,
    },
    /// The file is far larger than any machine.
    #[error(
        "machine file `{file}` is larger than {}: is it the right file?",
        Bytes::new(FILE_BYTES_MAX)
    )]
    TooLarge {
        /// The file as it was named.
        file: String,
    },
    /// Not TOML, an unknown or missing key, or a value that means nothing.
    #[error("{file}:{line}: {}{message}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Content {
        /// The file as it was named.
        file: String,
        /// Line of the file, from 1.
        line: usize,
        /// The key, such as `node[1].memory` (entries count from 0), where one is to blame.
        key: Option<String>,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// Every value can be read, and together they are no machine.
    #[error("{file}:{line}: {error}")]
    Topology {
        /// The file as it was named.
        file: String,
        /// Line of the entry that is to blame, from 1.
        line: usize,
        /// What is wrong.
        error: TopologyError,
    },
}

/// The built-in machine of this name, else the machine in the file of this path.
///
/// # Errors
///
/// [`MachineFileError`], in one line that names the file.
pub fn load(name_or_path: &str) -> Result<Topology, MachineFileError> {
    match builtin_text(name_or_path) {
        Some(text) => Topology::from_toml(text, name_or_path),
        None => Topology::from_toml(&read(name_or_path)?, name_or_path),
    }
}

fn read(path: &str) -> Result<String, MachineFileError> {
    let file = || path.to_owned();
    let unreadable = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => MachineFileError::Unknown { name: file() },
        _ => MachineFileError::Read { file: file(), reason },
    };
    let mut text = String::new();
    let opened = File::open(path).map_err(unreadable)?;
    let bytes = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(MachineFileError::TooLarge { file: file() });
    }
    Ok(text)
}

impl Topology {
    /// Reads the text of a machine.toml. `file` is the name that errors give it.
    ///
    /// # Errors
    ///
    /// [`MachineFileError::Content`] or [`MachineFileError::Topology`].
    pub fn from_toml(text: &str, file: &str) -> Result<Self, MachineFileError> {
        let content = |key: Option<String>, error: &toml::de::Error| MachineFileError::Content {
            file: file.to_owned(),
            line: line_at(text, error.span().map_or(0, |span| span.start)),
            key,
            message: plain(error.message()),
        };
        let toml = toml::Deserializer::parse(text).map_err(|error| content(None, &error))?;
        let machine: MachineFile = serde_path_to_error::deserialize(toml).map_err(|error| {
            let key = error.path().to_string();
            content(Some(key).filter(|key| key != "."), error.inner())
        })?;
        let nodes: Vec<Node> =
            all_node_ids().zip(machine.node).map(|(place, entry)| entry.node(place)).collect();
        let numbers: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let distances = machine.distance.map(DistanceTable::values);
        Self::new(machine.name, nodes, distances).map_err(|error| MachineFileError::Topology {
            file: file.to_owned(),
            line: line_to_blame(text, &numbers, &error),
            error,
        })
    }

    /// The machine as a machine.toml, which [`Topology::from_toml`] reads back as the same machine if
    /// it keeps the rules of one ([`Topology::check_description`]).
    ///
    /// Free memory is left out: a file says what a machine is, not how it fares.
    #[expect(clippy::missing_panics_doc, reason = "it cannot panic: see the expect")]
    pub fn to_toml(&self) -> String {
        toml::to_string(&MachineFile::from(self))
            .expect("tables, arrays, text and small numbers are all that TOML can hold")
    }
}

/// The line, from 1, of a byte of the text.
fn line_at(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|&byte| byte == b'\n').count()
}

/// What serde says of Rust, said of TOML.
const PLAIN_WORDS: [(&str, &str); 8] = [
    ("unknown field ", "unknown key "),
    ("missing field ", "missing key "),
    ("invalid type: map,", "invalid type: table,"),
    ("expected a sequence", "expected a list"),
    ("expected a string", "expected a text in quotes"),
    ("expected u8", "expected a number from 0 to 255"),
    ("expected u16", "expected a number from 0 to 1023"),
    ("expected u32", "expected a number from 0 to 4294967295"),
];

/// The message in one line, and in words for someone who writes machine files.
fn plain(message: &str) -> String {
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    PLAIN_WORDS.into_iter().fold(line, |line, (rust, toml)| line.replace(rust, toml))
}

/// The line of the entry that `error` speaks of, in a text that is known to be well formed;
/// `numbers` are those of its nodes, in the order of the file.
fn line_to_blame(text: &str, numbers: &[NodeId], error: &TopologyError) -> usize {
    let Ok(document) = DeTable::parse(text) else { return 1 };
    let entry = |key| document.get_ref().get(key);
    let place = |node: &NodeId| numbers.iter().rposition(|number| number == node);
    let node = match error {
        TopologyError::DuplicateNode { node } | TopologyError::PartialPage { node, .. } => {
            place(node)
        }
        TopologyError::DuplicateCpu { second, .. } => place(second),
        TopologyError::DistanceRows { .. }
        | TopologyError::DistanceEntries { .. }
        | TopologyError::DistanceValue { .. } => {
            return entry("distance").map_or(1, |table| line_at(text, table.span().start));
        }
        _ => None,
    };
    let at = node.and_then(|place| match entry("node")?.get_ref() {
        DeValue::Array(nodes) => nodes.get(place),
        _ => None,
    });
    at.map_or(1, |node| line_at(text, node.span().start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{CpuId, CpuSet};

    fn any_node() -> impl Strategy<Value = Node> {
        let optional = (
            proptest::option::of(any::<u8>()),
            proptest::option::of(any::<u32>()),
            proptest::option::of((0..=1u64 << 50).prop_map(Bytes::new)),
        );
        (0..NodeId::LIMIT, 0..1u64 << 30, optional).prop_map(
            |(id, pages, (tier, latency_ns, bandwidth_per_s))| Node {
                id: NodeId::new(id).unwrap(),
                cpus: CpuSet::default(),
                memory: Bytes::from_pages(pages),
                free: None,
                tier,
                latency_ns,
                bandwidth_per_s,
            },
        )
    }

    /// Machines with gaps in their numbers, CPUs dealt out in turn, and any distances.
    fn any_topology() -> impl Strategy<Value = Topology> {
        let nodes = prop::collection::vec(any_node(), 1..6);
        let distances = prop::collection::vec(prop::collection::vec(11..=255u8, 6), 6);
        (".*", nodes, 1..40u32, distances).prop_filter_map(
            "numbers must differ, and one node must have memory",
            |(name, mut nodes, cpus, distances)| {
                let count = nodes.len();
                for cpu in 0..cpus {
                    nodes[cpu as usize % count].cpus.insert(CpuId::new(cpu).unwrap());
                }
                let distance = |i: usize, j: usize| if i == j { 10 } else { distances[i][j] };
                let rows = (0..count).map(|i| (0..count).map(|j| distance(i, j)).collect());
                Topology::new(name, nodes, Some(rows.collect())).ok()
            },
        )
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let text = r#"
            name = "small"
            [[node]]
            cpus = "0"
            memory = "64MiB"
            [[node]]
            memory = "64MiB"
        "#;
        let machine = Topology::from_toml(text, "small.toml").unwrap();
        assert_eq!(machine.node_set().to_string(), "0-1");
        assert_eq!(machine.distances(), [[10, 20], [20, 10]]);
        assert!(machine.nodes()[1].is_memory_only());
        assert_eq!(machine.nodes()[1].tier, None);
    }

    #[test]
    fn a_name_that_is_neither_built_in_nor_a_file_lists_the_built_in_ones() {
        assert_eq!(
            load("tow-socket").unwrap_err().to_string(),
            "no machine `tow-socket`: it is not a file, and not one of the built-in machines \
             two-socket, four-socket, snc-4, dram-cxl"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let error = load(env!("CARGO_MANIFEST_DIR")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read machine file `"), "{error}");
        assert!(error.contains("Is a directory"), "{error}");
    }

    #[test]
    fn a_file_without_an_end_is_given_up() {
        let error = load("/dev/zero").unwrap_err();
        assert!(matches!(error, MachineFileError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same_machine(machine in any_topology()) {
            let text = machine.to_toml();
            prop_assert_eq!(Topology::from_toml(&text, "written.toml").unwrap(), machine);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = Topology::from_toml(&text, "any.toml");
        }

        #[test]
        fn no_damage_to_a_good_file_makes_the_reader_panic_or_say_more_than_a_line(
            at in 0..400usize,
            damage in ".{0,3}",
        ) {
            let good = builtin_text("dram-cxl").unwrap();
            let at = (0..=at.min(good.len())).rev().find(|&at| good.is_char_boundary(at)).unwrap();
            let text = format!("{}{damage}{}", &good[..at], &good[at..]);
            if let Err(error) = Topology::from_toml(&text, "damaged.toml") {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
