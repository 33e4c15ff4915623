//! The words that every part of pagetide shares: nodes, CPUs, sets of them, sizes, topologies.
//!
//! One file describes a machine, and every pillar reads the same one (`machine.toml`).
//! The crate does no I/O but reading that one file, and knows neither the kernel nor the model.

#![forbid(unsafe_code)]

mod addr_range;
mod builtin;
mod bytes;
mod cpu_set;
mod file;
mod id_list;
mod node;
mod node_set;
mod node_string;
mod printable;
mod strtoul;
mod topology;

pub use addr_range::{AddrRange, ParseAddrRangeError};
pub use builtin::{builtin_names, builtin_text};
pub use bytes::{Bytes, ParseBytesError};
pub use cpu_set::CpuSet;
pub use file::{MachineFileError, load};
pub use id_list::ParseListError;
pub use node::{CpuId, NodeId};
pub use node_set::NodeSet;
pub use node_string::{Device, NodeStringContext, NodeStringError, parse_node_string};
pub use printable::printable;
pub use strtoul::strtoul;
pub use topology::{Distance, Node, Topology, TopologyError};

/// Bytes of a base page on the machines that pagetide serves (x86-64).
pub const BASE_PAGE_BYTES: u64 = 4096;
