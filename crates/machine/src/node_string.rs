//! Node strings as numactl's tools take them: `0-2,5`, `all`, `!0`, `+0-1`, `netdev:eth0`.
//!
//! Read exactly as libnuma reads them, with its oddities, so that a command line that works there
//! works here and one that fails there fails here, for the same reason:
//!
//! ```text
//! nodes := "" | ["!"] ["+"] item ("," item)*
//! item  := N | N "-" N | "all" | netdev:DEV | ip:HOST | file:PATH | block:DEV | pci:ADDRESS
//! ```
//!
//! - `all` and the device forms reach to the end of the string: `0,all` is good, `all,0` is not.
//! - `2-0` means 2 alone. Both ends of a range must be allowed; holes between them are skipped.
//! - `+N` counts among the allowed nodes, in every item of the list.
//! - `!` inverts the numbers below the *count* of nodes with memory, whatever their numbers are.
//! - Numbers are [`strtoul`]'s, cut to 32 bits: 4294967296 is node 0.
//!
//! The machine is given in a [`NodeStringContext`]; nodes of devices are asked of the caller, as
//! this crate looks at no device. The plain list of the kernel's files is [`NodeSet`]'s own.
//!
//! Source: numa(3), numactl(8); behaviour of libnuma 2.0.16, `numa_parse_nodestring`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::node::NodeId;
use crate::node_set::NodeSet;
use crate::strtoul::strtoul;

/// What a node string is read against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStringContext {
    /// Nodes that a string may name: `Mems_allowed` of the caller.
    pub allowed: NodeSet,
    /// How many nodes have memory; `!` inverts the numbers below it.
    pub memory_nodes: u16,
    /// Bits of the kernel's node mask (1024 on Debian amd64).
    pub mask_bits: u16,
}

/// An item that names a device; it stands for the node that the device is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device<'a> {
    /// `netdev:eth0`: a network interface.
    Net(&'a OsStr),
    /// `ip:192.0.2.1`: the interface of the route to a host.
    Ip(&'a OsStr),
    /// `file:/var/lib/db`: the block device that holds a file, or the device that it is.
    File(&'a OsStr),
    /// `block:sda`: a block device.
    Block(&'a OsStr),
    /// `pci:0000:00:1f.2`: a PCI device; segment and function may be left out.
    Pci(&'a OsStr),
}

/// Why a text is not a node string here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeStringError {
    /// An item that begins neither with a number nor with a known word.
    #[error("`{}` is not a node: write numbers and ranges such as 0-2,5, or all", rest.display())]
    Unparseable {
        /// The string from the item on.
        rest: OsString,
    },
    /// A node that is not allowed.
    #[error("node {written} is not among the nodes that may be used here: {allowed}")]
    NotAllowed {
        /// The number as written, with the `+` of a relative one.
        written: String,
        /// The number that libnuma makes of it, of which it prints the low 32 bits.
        number: u64,
        /// Whether it is the end of a range.
        is_range_end: bool,
        /// The nodes that are allowed.
        allowed: Box<NodeSet>,
    },
    /// A range without an end.
    #[error("`{}` is not the end of a range: write two numbers, such as 0-2", rest.display())]
    NoRangeEnd {
        /// What stands where the end should.
        rest: OsString,
    },
    /// Something other than a comma after an item.
    #[error("`{}` follows a node: put a comma between nodes, and nothing after the last", rest.display())]
    Trailing {
        /// The string from there on.
        rest: OsString,
    },
    /// A device whose node is not known.
    #[error("{}", reason.display())]
    Device {
        /// Why, as the caller said.
        reason: OsString,
    },
}

/// Reads a node string. `node_of` answers for the device forms; an error of its ends up in
/// [`NodeStringError::Device`].
///
/// # Errors
///
/// [`NodeStringError`], for the first item that cannot be read.
pub fn parse_node_string(
    text: &OsStr,
    context: &NodeStringContext,
    node_of: impl FnOnce(Device<'_>) -> Result<NodeSet, OsString>,
) -> Result<NodeSet, NodeStringError> {
    let text = text.as_bytes();
    if text.is_empty() {
        return Ok(NodeSet::EMPTY);
    }
    let (is_inverted, text) = take_prefix(text, b'!');
    let (is_relative, mut rest) = take_prefix(text, b'+');
    let numbers = Numbers { context, is_relative };
    let mut nodes = NodeSet::EMPTY;
    loop {
        if rest == b"all" {
            nodes = context.allowed;
            break;
        }
        if let Some(device) = Device::parse(rest) {
            let of_device = node_of(device).map_err(|reason| NodeStringError::Device { reason })?;
            nodes = nodes.union(&of_device);
            break;
        }
        let (item, after) = numbers.item(rest)?;
        nodes = nodes.union(&item);
        match after {
            [] => break,
            [b',', next @ ..] => rest = next,
            _ => return Err(NodeStringError::Trailing { rest: owned(after) }),
        }
    }
    Ok(if is_inverted { invert(&nodes, context.memory_nodes) } else { nodes })
}

/// How the numbers of one string are read.
struct Numbers<'a> {
    context: &'a NodeStringContext,
    is_relative: bool,
}

impl Numbers<'_> {
    /// The nodes of `N` or `N-N`, and what follows.
    fn item<'t>(&self, text: &'t [u8]) -> Result<(NodeSet, &'t [u8]), NodeStringError> {
        let Some((first, after)) = self.number(text) else {
            return Err(NodeStringError::Unparseable { rest: owned(text) });
        };
        let first_node = self.allowed(first, text, after, false)?;
        let mut nodes = NodeSet::only(first_node);
        let [b'-', end @ ..] = after else {
            return Ok((nodes, after));
        };
        let Some((last, after)) = self.number(end) else {
            return Err(NodeStringError::NoRangeEnd { rest: owned(end) });
        };
        self.allowed(last, end, after, true)?;
        let within = |node: &NodeId| {
            // The first number from `first` on whose low 32 bits are the node.
            let ahead = (u64::from(node.get()).wrapping_sub(first)) & LOW_32;
            first <= last && ahead <= last - first
        };
        nodes = nodes.union(&self.context.allowed.iter().filter(within).collect());
        Ok((nodes, after))
    }

    fn number<'t>(&self, text: &'t [u8]) -> Option<(u64, &'t [u8])> {
        let (number, after) = strtoul(text)?;
        Some((if self.is_relative { self.nth_allowed(number) } else { number }, after))
    }

    /// The number of the `count`th allowed node. As libnuma has it, a count past the last is one
    /// past the mask, and a negative one is -1.
    fn nth_allowed(&self, count: u64) -> u64 {
        let Ok(count) = i64::try_from(count) else { return u64::MAX };
        let nth = usize::try_from(count).ok().and_then(|nth| self.context.allowed.iter().nth(nth));
        nth.map_or(self.context.mask_bits.into(), |node| node.get().into())
    }

    /// The node of this number when it is allowed; it was written between `text` and `after`.
    fn allowed(
        &self,
        number: u64,
        text: &[u8],
        after: &[u8],
        is_range_end: bool,
    ) -> Result<NodeId, NodeStringError> {
        let node = u16::try_from(number & LOW_32).ok().and_then(NodeId::new);
        node.filter(|&node| self.context.allowed.contains(node)).ok_or_else(|| {
            let written = String::from_utf8_lossy(&text[..text.len() - after.len()]);
            NodeStringError::NotAllowed {
                written: format!("{}{}", if self.is_relative { "+" } else { "" }, written.trim()),
                number,
                is_range_end,
                allowed: Box::new(self.context.allowed),
            }
        })
    }
}

/// libnuma keeps a node in a C `unsigned int`.
const LOW_32: u64 = u32::MAX as u64;

impl<'a> Device<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let colon = text.iter().position(|&byte| byte == b':')?;
        let name = OsStr::from_bytes(&text[colon + 1..]);
        match &text[..colon] {
            b"netdev" => Some(Self::Net(name)),
            b"ip" => Some(Self::Ip(name)),
            b"file" => Some(Self::File(name)),
            b"block" => Some(Self::Block(name)),
            b"pci" => Some(Self::Pci(name)),
            _ => None,
        }
    }
}

fn take_prefix(text: &[u8], prefix: u8) -> (bool, &[u8]) {
    match text.split_first() {
        Some((&first, rest)) if first == prefix => (true, rest),
        _ => (false, text),
    }
}

fn invert(nodes: &NodeSet, below: u16) -> NodeSet {
    let all: NodeSet = (0..below).filter_map(NodeId::new).collect();
    nodes.difference(&all).union(&all.difference(nodes))
}

fn owned(text: &[u8]) -> OsString {
    OsStr::from_bytes(text).to_owned()
}

#[cfg(test)]
mod tests;
