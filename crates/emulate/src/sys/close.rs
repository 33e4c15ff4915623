//! `close_range(2)`: what a forked process is not to keep.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Closes every descriptor of this process but two. Their owners here must never come to use them.
///
/// # Errors
///
/// `ENOSYS`: before Linux 5.9.
///
/// Source: close_range(2).
pub(crate) fn all_but(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<()> {
    let [one, other] = [one, other].map(|kept| kept.as_raw_fd().cast_unsigned());
    let (low, high) = (one.min(other), one.max(other));
    for (from, upto) in [(0, low), (low + 1, high), (high + 1, u32::MAX)] {
        if from < upto {
            // SAFETY: no memory is touched. Nothing in this process uses one of these descriptors any
            // more, which the caller promises.
            let result = unsafe { libc::syscall(libc::SYS_close_range, from, upto - 1, 0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}
