//! `migrate_pages(2)`: move a whole process from some nodes to others, in one call.

use std::io;

use machine::NodeSet;

use super::{MAXNODE, count_or_errno};

/// `migrate_pages(pid, maxnode, from, to)`: move the pages of `pid` that lie on `from` to `to`.
///
/// Positions are kept: the second node of `from` goes to the second of `to` (behaviour spec 2.2).
/// With `CAP_SYS_NICE` pages that other processes map move too, without it they stay and are not
/// counted. Returns the number of folios that did not move. On 6.12 and later a folio that the
/// process maps twice is counted although it moved, so only a look at the pages tells the truth.
///
/// Cost: holds the target's mmap lock for reading during the move (the whole call on 6.1).
///
/// # Errors
///
/// - `ESRCH`: no process `pid`.
/// - `EPERM`: no ptrace-read access to it, or `to` is outside its cpuset and the caller lacks
///   `CAP_SYS_NICE`.
/// - `EINVAL`: `to` has no node with memory in the caller's own cpuset, or `pid` has no memory of
///   its own (a kernel thread).
/// - `ENOMEM`: a node of `to` is full. What was moved before stays moved.
///
/// Source: migrate_pages(2); behaviour spec 2.
#[doc(alias = "migratepages")]
pub fn migrate_pages(pid: u32, from: &NodeSet, to: &NodeSet) -> io::Result<u64> {
    // SAFETY: the kernel reads `MAXNODE - 1` bits from either mask, which is what the words of a
    // `NodeSet` have; both sets outlive the call. Migration changes where pages lie, never what
    // they hold, so no memory of ours or of the target changes its value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_migrate_pages,
            pid,
            MAXNODE,
            from.words().as_ptr(),
            to.words().as_ptr(),
        )
    };
    count_or_errno(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::get_allowed_nodes;

    #[test]
    fn moving_from_no_node_moves_nothing() {
        let to = get_allowed_nodes().unwrap();
        assert_eq!(migrate_pages(0, &NodeSet::EMPTY, &to).unwrap(), 0);
    }

    #[test]
    fn moving_to_no_node_is_an_invalid_argument() {
        let error = migrate_pages(0, &NodeSet::EMPTY, &NodeSet::EMPTY).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
