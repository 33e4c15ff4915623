//! The memory policy calls: `mbind(2)`, `set_mempolicy(2)`, `get_mempolicy(2)` and
//! `set_mempolicy_home_node(2)`. All of them are about the caller: no process can change the
//! memory policy of another.
//!
//! A `mode` is `MPOL_*` with its mode flags in the same word, as the kernel has it.

use std::{io, ptr};

use machine::{NodeId, NodeSet};

use super::{MAXNODE, count_or_errno};

// The libc crate has none of these. Source: kernel, include/uapi/linux/mempolicy.h.
const MPOL_F_NODE: libc::c_ulong = 1 << 0;
const MPOL_F_ADDR: libc::c_ulong = 1 << 1;
const MPOL_F_MEMS_ALLOWED: libc::c_ulong = 1 << 2;

/// What `mbind` does about pages that already exist (`MPOL_MF_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindFlags(libc::c_uint);

impl BindFlags {
    /// Leave them where they are.
    pub const NONE: Self = Self(0);
    /// Fail with `EIO` if one is in the wrong place (`MPOL_MF_STRICT`).
    pub const STRICT: Self = Self(1 << 0);
    /// Move those that nobody else maps (`MPOL_MF_MOVE`).
    pub const MOVE: Self = Self(1 << 1);
    /// Move shared ones as well (`MPOL_MF_MOVE_ALL`). Needs `CAP_SYS_NICE`.
    pub const MOVE_ALL: Self = Self(1 << 2);

    /// Both sets of flags.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `mbind(start, length, mode, mask, maxnode, flags)`: set the policy of a range of our memory.
///
/// Without [`BindFlags::STRICT`] a page that could not be moved is not reported.
///
/// # Errors
///
/// - `EINVAL`: an unaligned `start`, an unknown mode or flag, a mode and mask that do not go
///   together, or no node of the mask has memory and is in our cpuset.
/// - `EPERM`: `MOVE_ALL` without `CAP_SYS_NICE`.
/// - `EFAULT`: a hole in the range.
/// - `EIO`: with `STRICT`, a page is in the wrong place. If a move was asked for too, the policy
///   has been set nevertheless.
/// - `ENOMEM`: no memory for the policy itself; the beginning of the range may be changed.
///
/// Source: mbind(2); behaviour spec 4.3.
pub fn mbind(
    start: u64,
    length: u64,
    mode: u32,
    nodes: &NodeSet,
    flags: BindFlags,
) -> io::Result<()> {
    // SAFETY: the kernel reads `MAXNODE - 1` bits, which is what the words of a `NodeSet` have, and
    // `nodes` outlives the call. A policy, and a migration, change where pages lie, never
    // what they hold or whether they are mapped, so any range of our own memory may be named.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            length,
            libc::c_ulong::from(mode),
            nodes.words().as_ptr(),
            MAXNODE,
            flags.0,
        )
    };
    count_or_errno(result).map(|_| ())
}

/// `set_mempolicy(mode, mask, maxnode)`: the policy of the calling thread. Moves nothing.
///
/// # Errors
///
/// - `EINVAL`: an unknown mode, a mode and mask that do not go together, or no node of the mask
///   has memory and is in our cpuset.
///
/// Source: set_mempolicy(2); behaviour spec 4.2.
#[doc(alias = "set_mempolicy")]
pub fn set_thread_policy(mode: u32, nodes: &NodeSet) -> io::Result<()> {
    // SAFETY: the kernel reads `MAXNODE - 1` bits, which is what the words of a `NodeSet` have, and
    // `nodes` outlives the call. A policy only decides where later pages are placed.
    let result =
        unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.words().as_ptr(), MAXNODE) };
    count_or_errno(result).map(|_| ())
}

/// The policy of the calling thread: mode with mode flags, and nodes.
///
/// # Errors
///
/// `EINVAL` from a kernel with more than 1024 node numbers. There is none yet.
///
/// Source: get_mempolicy(2) with no flags; behaviour spec 4.4.
#[doc(alias = "get_mempolicy")]
pub fn get_thread_policy() -> io::Result<(u32, NodeSet)> {
    get_mempolicy(0, 0)
}

/// The policy of the mapping at `address` in our memory; mode 0 if it has none of its own, even
/// if the thread has one.
///
/// # Errors
///
/// `EFAULT`: nothing is mapped at `address`.
///
/// Source: get_mempolicy(2), `MPOL_F_ADDR`; behaviour spec 4.4.
#[doc(alias = "MPOL_F_ADDR")]
pub fn get_range_policy(address: u64) -> io::Result<(u32, NodeSet)> {
    get_mempolicy(address, MPOL_F_ADDR)
}

/// The node of the page at `address` in our memory. Reads the page first, so that an untouched
/// page becomes a real one (the zero page, if it is anonymous).
///
/// # Errors
///
/// `EFAULT`: nothing is mapped at `address`, or it cannot be read.
///
/// Source: get_mempolicy(2), `MPOL_F_NODE | MPOL_F_ADDR`; behaviour spec 4.4.
#[doc(alias = "MPOL_F_NODE")]
pub fn get_page_node(address: u64) -> io::Result<u32> {
    get_mempolicy(address, MPOL_F_NODE | MPOL_F_ADDR).map(|(node, _)| node)
}

/// The nodes that the cpuset of the calling thread allows.
///
/// # Errors
///
/// As [`get_thread_policy`].
///
/// Source: get_mempolicy(2), `MPOL_F_MEMS_ALLOWED`; behaviour spec 4.4.
#[doc(alias = "MPOL_F_MEMS_ALLOWED")]
pub fn get_allowed_nodes() -> io::Result<NodeSet> {
    get_mempolicy(0, MPOL_F_MEMS_ALLOWED).map(|(_, nodes)| nodes)
}

fn get_mempolicy(address: u64, flags: libc::c_ulong) -> io::Result<(u32, NodeSet)> {
    let mut mode = 0_u32;
    let mut words = *NodeSet::EMPTY.words();
    // SAFETY: the kernel writes one int to `mode` and, for `MAXNODE - 1` bits, exactly as many
    // words as `words` has; both live until after the call and any bits are valid in
    // them. `address` is looked up, or read as if by us, by the kernel: a bad one is EFAULT.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            ptr::from_mut(&mut mode),
            words.as_mut_ptr(),
            MAXNODE,
            address,
            flags,
        )
    };
    count_or_errno(result).map(|_| (mode, NodeSet::from_words(words)))
}

/// `set_mempolicy_home_node(start, length, node, 0)`: the node where allocation for a range of our
/// memory starts, within its bind or prefer-many policy. Moves nothing. Linux 5.17.
///
/// # Errors
///
/// - `EINVAL`: an unaligned `start`, or a node that is not online.
/// - `ENOENT`: no mapping in the range has a policy of its own.
/// - `EOPNOTSUPP`: a mapping has another policy than those two; mappings before it are changed.
///
/// Source: set_mempolicy_home_node(2); behaviour spec 4.5.
#[doc(alias = "set_mempolicy_home_node")]
pub fn set_home_node(start: u64, length: u64, node: NodeId) -> io::Result<()> {
    // SAFETY: no pointers are passed but a range that the kernel only looks up. A home node
    // decides where later pages are placed, and changes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy_home_node,
            start,
            length,
            libc::c_ulong::from(node.get()),
            0_u64,
        )
    };
    count_or_errno(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Backing, OwnMemory};
    use machine::Bytes;

    const MPOL_BIND: u32 = 2;
    const LENGTH: u64 = 4 * 4096;

    fn some_memory() -> (OwnMemory, u64) {
        let memory = OwnMemory::map(Bytes::new(LENGTH), Backing::BasePages).unwrap();
        let start = memory.range().start();
        (memory, start)
    }

    /// The lowest node that we may use.
    fn some_node() -> NodeId {
        get_allowed_nodes().unwrap().first().unwrap()
    }

    #[test]
    fn a_thread_starts_without_a_policy_and_may_use_some_node() {
        assert_eq!(get_thread_policy().unwrap(), (0, NodeSet::EMPTY));
        assert!(!get_allowed_nodes().unwrap().is_empty());
    }

    #[test]
    fn what_mbind_sets_get_mempolicy_reads_back() {
        let (_memory, start) = some_memory();
        let nodes = NodeSet::only(some_node());
        mbind(start, LENGTH, MPOL_BIND, &nodes, BindFlags::MOVE).unwrap();
        assert_eq!(get_range_policy(start).unwrap(), (MPOL_BIND, nodes));
    }

    #[test]
    fn a_bind_to_no_node_is_an_invalid_argument() {
        let (_memory, start) = some_memory();
        let error = mbind(start, LENGTH, MPOL_BIND, &NodeSet::EMPTY, BindFlags::NONE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn the_policy_of_a_thread_can_be_set_and_taken_away() {
        let nodes = NodeSet::only(some_node());
        set_thread_policy(MPOL_BIND, &nodes).unwrap();
        assert_eq!(get_thread_policy().unwrap(), (MPOL_BIND, nodes));
        set_thread_policy(0, &NodeSet::EMPTY).unwrap();
        assert_eq!(get_thread_policy().unwrap(), (0, NodeSet::EMPTY));
    }

    #[test]
    fn a_page_of_our_own_is_on_a_node_that_we_can_name() {
        let (_memory, start) = some_memory();
        let node = u16::try_from(get_page_node(start).unwrap()).unwrap();
        assert!(NodeId::new(node).is_some());
        let error = get_page_node(0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_home_node_needs_a_policy_to_be_the_home_of() {
        let (_memory, start) = some_memory();
        let node = some_node();
        let error = set_home_node(start, LENGTH, node).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let nodes = NodeSet::only(node);
        mbind(start, LENGTH, MPOL_BIND, &nodes, BindFlags::NONE).unwrap();
        set_home_node(start, LENGTH, node).unwrap();
    }
}
