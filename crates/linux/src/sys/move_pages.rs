//! `move_pages(2)`: ask where single pages are, or move them.

use std::{io, ptr};

use super::count_or_errno;

/// Which pages a move may take (`MPOL_MF_*` of include/uapi/linux/mempolicy.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveFlags(libc::c_int);

impl MoveFlags {
    /// Pages that nobody else maps (`MPOL_MF_MOVE`).
    pub const MOVE: Self = Self(1 << 1);
    /// Shared pages as well (`MPOL_MF_MOVE_ALL`). Needs `CAP_SYS_NICE`.
    pub const MOVE_ALL: Self = Self(1 << 2);
}

/// `move_pages(pid, count, pages, NULL, status, 0)`: ask where pages are; move nothing.
///
/// `pages` are byte addresses in the target and need no alignment. `status` receives one word for
/// each; read it with [`PageStatus`](crate::PageStatus).
///
/// # Errors
///
/// - `ESRCH`: no process `pid`.
/// - `EPERM`: no ptrace-read access to it.
/// - `EINVAL`: it has no memory of its own (a kernel thread).
///
/// # Panics
///
/// When `pages` and `status` differ in length.
///
/// Source: move_pages(2); behaviour spec 3.1 and 3.2.
#[doc(alias = "move_pages")]
pub fn query_pages(pid: u32, pages: &[u64], status: &mut [i32]) -> io::Result<()> {
    assert_eq!(pages.len(), status.len(), "one status word for each page");
    // SAFETY: the kernel reads `pages.len()` pointers and writes as many ints; both slices have
    // that length (asserted) and outlive the call. A `u64` has size, alignment and bits of a
    // pointer on 64-bit Linux (checked in sys.rs). The addresses are looked up in the target, not
    // dereferenced by us. A null `nodes` selects the query form, which changes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            ptr::null::<i32>(),
            status.as_mut_ptr(),
            0,
        )
    };
    count_or_errno(result).map(|_| ())
}

/// `move_pages(pid, count, pages, nodes, status, flags)`: move each page to its node.
///
/// Returns the pages that the kernel says did not move: folios of the batch that failed, and
/// everything after it, which was not tried. **A batch that fails writes no status words**, not
/// even for its pages that moved: fill `status` with a sentinel first (behaviour spec 3.4).
///
/// A run of equal `nodes` is one batch; a page already home, or not movable, ends it. Pass an
/// address of each folio once: the second address of one folio is `-EBUSY`.
///
/// # Errors
///
/// What was moved before stays moved, and complete batches have their status words.
///
/// - `ESRCH`: no process `pid`.
/// - `EPERM`: no ptrace-read access to it, or `MOVE_ALL` without `CAP_SYS_NICE`.
/// - `EINVAL`: it has no memory of its own (a kernel thread).
/// - `ENODEV`: a node that does not exist or has no memory.
/// - `EACCES`: a node outside the target's cpuset, whoever the caller is.
/// - `ENOMEM`: the node is full, or outside the caller's own cpuset.
/// - `E2BIG`: never, in spite of the man page.
///
/// # Panics
///
/// When the three slices differ in length.
///
/// Source: move_pages(2); behaviour spec 3.
pub fn move_pages(
    pid: u32,
    pages: &[u64],
    nodes: &[i32],
    status: &mut [i32],
    flags: MoveFlags,
) -> io::Result<u64> {
    assert_eq!(pages.len(), nodes.len(), "one node for each page");
    assert_eq!(pages.len(), status.len(), "one status word for each page");
    // SAFETY: the kernel reads `pages.len()` pointers and as many ints from `nodes`, and writes at
    // most as many ints; the slices have that length (asserted) and outlive the call. A `u64` has
    // size, alignment and bits of a pointer on 64-bit Linux (checked in sys.rs). The addresses
    // are looked up in the target, not dereferenced by us. Migration changes where pages lie,
    // never what they hold.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            flags.0,
        )
    };
    count_or_errno(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_page_of_our_own_is_on_some_node() {
        let word = Box::new(1_u64);
        let mut status = [i32::MIN];
        query_pages(0, &[ptr::from_ref(&*word).addr() as u64], &mut status).unwrap();
        assert!((0..1024).contains(&status[0]), "status {}", status[0]);
    }

    #[test]
    fn the_null_page_is_not_mapped() {
        let mut status = [i32::MIN];
        query_pages(0, &[0], &mut status).unwrap();
        assert_eq!(status, [-libc::EFAULT]);
    }

    #[test]
    fn an_absent_node_fails_the_call_and_writes_no_status() {
        let word = Box::new(1_u64);
        let mut status = [i32::MIN];
        let page = ptr::from_ref(&*word).addr() as u64;
        let error = move_pages(0, &[page], &[1023], &mut status, MoveFlags::MOVE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(status, [i32::MIN]);
    }

    #[test]
    fn a_pid_that_cannot_exist_is_no_process() {
        let error = query_pages(u32::MAX, &[], &mut []).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
