//! Asking where pages are, and moving them: move_pages(2) and migrate_pages(2).
//!
//! Pid 0, which the kernel takes for the caller, is no process here.

use machine::{NodeId, NodeSet};

use crate::Errno;
use crate::status::UNWRITTEN;
use crate::sys::{self, MoveFlags};

/// Why a call to move pages, or to ask where they are, failed as a whole.
///
/// A page that merely stayed is no error: it is a [`PageStatus`](crate::PageStatus).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// `ESRCH`. What was moved before stays moved.
    #[error("process {pid} has exited, or never was (ESRCH)")]
    TargetGone {
        /// The target.
        pid: u32,
    },

    /// `EPERM` from the ptrace check of any call.
    #[error(
        "no permission to {call} of process {pid} (EPERM): run as its owner, or with \
         CAP_SYS_PTRACE; a container's seccomp profile may forbid the call too"
    )]
    NotPermitted {
        /// The target.
        pid: u32,
        /// The call that was refused.
        call: &'static str,
    },

    /// `EPERM` from `MOVE_ALL`, which the kernel checks before it looks for the process; or from
    /// migrate_pages, when the destination is outside the target's cpuset.
    #[error(
        "no permission to {call} of process {pid} so (EPERM): pages that it shares, and nodes \
         outside its cpuset, need CAP_SYS_NICE"
    )]
    NotPrivileged {
        /// The target.
        pid: u32,
        /// The call that was refused.
        call: &'static str,
    },

    /// `EINVAL`: a kernel thread, or a zombie.
    #[error("process {pid} has no memory of its own (EINVAL): a kernel thread, or a zombie")]
    NoAddressSpace {
        /// The target.
        pid: u32,
    },

    /// `ENODEV`: a node that is absent, or has no memory.
    #[error("no memory node among {nodes} of the move in process {pid} (ENODEV)")]
    NoSuchNode {
        /// The target.
        pid: u32,
        /// Nodes that were asked for.
        nodes: Box<NodeSet>,
    },

    /// `EACCES`: a node outside the target's cpuset. Privilege does not help, `cpuset.mems` does.
    #[error(
        "the cpuset of process {pid} does not allow all of the nodes {nodes} (EACCES): widen its \
         cpuset.mems"
    )]
    NodeNotAllowed {
        /// The target.
        pid: u32,
        /// Nodes that were asked for.
        nodes: Box<NodeSet>,
    },

    /// `EINVAL` from migrate_pages alone: no destination has memory and is in our own cpuset.
    #[error("none of the nodes {nodes} has memory and is in the caller's own cpuset (EINVAL)")]
    NoDestination {
        /// Nodes that were asked for.
        nodes: Box<NodeSet>,
    },

    /// `ENOMEM`: a node is full, or outside the caller's own cpuset. The batch in which it
    /// happened stays unwritten in the status words, though some of its pages may have moved.
    #[error(
        "no memory left on the nodes {nodes} for pages of process {pid} (ENOMEM): what moved \
         before stays moved"
    )]
    NoMemory {
        /// The target.
        pid: u32,
        /// Nodes that were asked for.
        nodes: Box<NodeSet>,
    },

    /// Any other errno, with the part of the plan that was being moved.
    #[error("cannot {call} of process {pid} at {first_address:#x}, {pages} pages: {errno}")]
    Call {
        /// The target.
        pid: u32,
        /// The call that failed.
        call: &'static str,
        /// The first address of the call; 0 for a whole process.
        first_address: u64,
        /// Pages of the call; 0 for a whole process.
        pages: usize,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What the kernel says about a move as a whole. The status words say it by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Folios that did not move plus entries that were not tried. Not exact: folios mapped twice
    /// count on 6.12 and later although they moved (behaviour spec 2.3).
    pub not_moved: u64,
}

/// Asks the node of each page; moves nothing. Read `status` with
/// [`PageStatus::from_word`](crate::PageStatus::from_word).
///
/// # Errors
///
/// [`MoveError`]; words of complete chunks of 16 are written nevertheless.
///
/// # Panics
///
/// When `pages` and `status` differ in length.
///
/// Source: behaviour spec 3.2.
pub fn query_pages(pid: u32, pages: &[u64], status: &mut [i32]) -> Result<(), MoveError> {
    const CALL: &str = "query pages";
    refuse_pid_zero(pid)?;
    status.fill(UNWRITTEN);
    sys::query_pages(pid, pages, status).map_err(|error| match Errno::from(&error) {
        Errno::ESRCH => MoveError::TargetGone { pid },
        Errno::EPERM => MoveError::NotPermitted { pid, call: CALL },
        Errno::EINVAL => MoveError::NoAddressSpace { pid },
        errno => other(CALL, pid, pages, errno),
    })
}

/// Moves each page to the node of the same index in `nodes` (numbers as
/// [`NodeId::as_raw`] gives them).
///
/// # Errors
///
/// [`MoveError`]. `status` is worth reading then too: batches that were complete before the
/// failure have their words, the rest is [`UNWRITTEN`].
///
/// # Panics
///
/// When the three slices differ in length.
///
/// Source: behaviour spec 3.4.
pub fn move_pages(
    pid: u32,
    pages: &[u64],
    nodes: &[i32],
    status: &mut [i32],
    flags: MoveFlags,
) -> Result<Moved, MoveError> {
    const CALL: &str = "move pages";
    refuse_pid_zero(pid)?;
    status.fill(UNWRITTEN);
    let result = sys::move_pages(pid, pages, nodes, status, flags);
    result.map(|not_moved| Moved { not_moved }).map_err(|error| match Errno::from(&error) {
        Errno::ESRCH => MoveError::TargetGone { pid },
        Errno::EPERM => refused(pid, CALL),
        Errno::EINVAL => MoveError::NoAddressSpace { pid },
        Errno::ENODEV => MoveError::NoSuchNode { pid, nodes: named(nodes) },
        Errno::EACCES => MoveError::NodeNotAllowed { pid, nodes: named(nodes) },
        Errno::ENOMEM => MoveError::NoMemory { pid, nodes: named(nodes) },
        errno => other(CALL, pid, pages, errno),
    })
}

/// Moves all pages of a process from some nodes to others, keeping positions.
///
/// # Errors
///
/// [`MoveError`]; what was moved before stays moved.
///
/// Source: behaviour spec 2.
pub fn migrate_pages(pid: u32, from: &NodeSet, to: &NodeSet) -> Result<Moved, MoveError> {
    const CALL: &str = "migrate pages";
    refuse_pid_zero(pid)?;
    let result = sys::migrate_pages(pid, from, to);
    result.map(|not_moved| Moved { not_moved }).map_err(|error| match Errno::from(&error) {
        Errno::ESRCH => MoveError::TargetGone { pid },
        Errno::EPERM => refused(pid, CALL),
        // A query with no pages fails so for a kernel thread only, not for a bad destination.
        Errno::EINVAL => match query_pages(pid, &[], &mut []) {
            Err(error @ MoveError::NoAddressSpace { .. }) => error,
            _ => MoveError::NoDestination { nodes: Box::new(*to) },
        },
        Errno::ENOMEM => MoveError::NoMemory { pid, nodes: Box::new(*to) },
        errno => MoveError::Call { pid, call: CALL, first_address: 0, pages: 0, errno },
    })
}

/// Which of the checks that answer `EPERM` it was. A query of no pages meets the ptrace check, but
/// none that asks for `CAP_SYS_NICE`.
fn refused(pid: u32, call: &'static str) -> MoveError {
    match query_pages(pid, &[], &mut []) {
        Ok(()) => MoveError::NotPrivileged { pid, call },
        Err(error @ MoveError::TargetGone { .. }) => error,
        Err(_) => MoveError::NotPermitted { pid, call },
    }
}

fn refuse_pid_zero(pid: u32) -> Result<(), MoveError> {
    if pid == 0 { Err(MoveError::TargetGone { pid }) } else { Ok(()) }
}

fn named(nodes: &[i32]) -> Box<NodeSet> {
    let node = |&node: &i32| u16::try_from(node).ok().and_then(NodeId::new);
    Box::new(nodes.iter().filter_map(node).collect())
}

fn other(call: &'static str, pid: u32, pages: &[u64], errno: Errno) -> MoveError {
    let first_address = pages.first().copied().unwrap_or_default();
    MoveError::Call { pid, call, first_address, pages: pages.len(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageStatus;
    use crate::sys::{Backing, OwnMemory, get_allowed_nodes};
    use machine::Bytes;
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    use std::process::Command;

    /// One page of our own, written to, and its address.
    fn some_page() -> (OwnMemory, u64) {
        let mut memory = OwnMemory::map(Bytes::from_pages(1), Backing::BasePages).unwrap();
        let start = memory.range().start();
        memory.write(start, 7);
        (memory, start)
    }

    #[test]
    fn a_page_goes_to_each_node_that_we_may_use_and_keeps_its_content() {
        let pid = std::process::id();
        let (memory, page) = some_page();
        for node in get_allowed_nodes().unwrap().iter() {
            let mut status = [0];
            let moved = move_pages(pid, &[page], &[node.as_raw()], &mut status, MoveFlags::MOVE);
            assert_eq!(moved.unwrap(), Moved { not_moved: 0 });
            assert_eq!(PageStatus::from_word(status[0]), PageStatus::On(node));
            query_pages(pid, &[page], &mut status).unwrap();
            assert_eq!(PageStatus::from_word(status[0]), PageStatus::On(node));
            assert_eq!(memory.read(page), 7);
        }
    }

    #[test]
    fn an_absent_node_is_named_and_no_page_has_a_status() {
        let (_memory, page) = some_page();
        let mut status = [0];
        let error = move_pages(std::process::id(), &[page], &[1023], &mut status, MoveFlags::MOVE)
            .unwrap_err();
        assert!(error.to_string().contains("1023"), "{error}");
        assert_eq!(PageStatus::from_word(status[0]), PageStatus::Unwritten);
    }

    #[test]
    fn a_destination_without_memory_is_told_apart_from_a_process_without_memory() {
        let absent = NodeSet::only(NodeId::new(1023).unwrap());
        let error = migrate_pages(std::process::id(), &NodeSet::EMPTY, &NodeSet::EMPTY);
        assert!(matches!(error, Err(MoveError::NoDestination { .. })), "{error:?}");
        // Without CAP_SYS_NICE the kernel refuses before it looks at memory.
        let error = migrate_pages(std::process::id(), &NodeSet::EMPTY, &absent);
        assert!(
            matches!(error, Err(MoveError::NoDestination { .. } | MoveError::NotPrivileged { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn a_zombie_has_no_address_space_and_a_reaped_process_is_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let id = WaitId::Pid(Pid::from_raw(pid.try_into().unwrap()).unwrap());
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let error = query_pages(pid, &[], &mut []).unwrap_err();
        // The ptrace check comes first, and a zombie passes it for its owner only.
        assert!(
            matches!(error, MoveError::NoAddressSpace { .. } | MoveError::NotPermitted { .. }),
            "{error}"
        );
        let nodes = get_allowed_nodes().unwrap();
        child.wait().unwrap();
        let error = migrate_pages(pid, &nodes, &nodes).unwrap_err();
        assert!(matches!(error, MoveError::TargetGone { .. }), "{error}");
    }

    #[test]
    fn pid_zero_is_not_taken_for_ourselves() {
        let error = query_pages(0, &[], &mut []).unwrap_err();
        assert!(matches!(error, MoveError::TargetGone { pid: 0 }), "{error}");
    }
}
