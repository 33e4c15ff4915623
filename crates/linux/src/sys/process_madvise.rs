//! `process_madvise(2)`: advice about the memory of another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::count_or_errno;

/// Advice that changes no content, and that a process may therefore be given by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Not needed for a while: first to be reclaimed (`MADV_COLD`).
    Cold,
    /// Reclaim now (`MADV_PAGEOUT`); on a machine with tiers it may be demoted instead.
    PageOut,
    /// Read ahead (`MADV_WILLNEED`).
    WillNeed,
    /// Make huge pages now (`MADV_COLLAPSE`, Linux 6.1).
    Collapse,
}

impl Advice {
    const fn number(self) -> libc::c_int {
        match self {
            Self::Cold => libc::MADV_COLD,
            Self::PageOut => libc::MADV_PAGEOUT,
            Self::WillNeed => libc::MADV_WILLNEED,
            Self::Collapse => 25, // MADV_COLLAPSE, include/uapi/asm-generic/mman-common.h
        }
    }
}

/// A range of another process's memory, as the kernel's `struct iovec` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRange {
    /// First byte; a multiple of the page size.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// `process_madvise(pidfd, ranges, count, advice, 0)`: give `advice` about `ranges`. Returns the
/// bytes that took it, counted from the beginning of the first range.
///
/// # Errors
///
/// If not even the first range took it:
///
/// - `ESRCH`: the process has exited.
/// - `EPERM`: no ptrace-read access, or no `CAP_SYS_NICE` (on 6.1 not even for ourselves).
/// - `EINVAL`: more than 1024 ranges, or an unaligned one.
/// - `ENOMEM`: a range is not wholly mapped.
///
/// Source: process_madvise(2), Linux 5.10.
pub fn process_madvise(
    pidfd: impl AsFd,
    ranges: &[RemoteRange],
    advice: Advice,
) -> io::Result<u64> {
    // SAFETY: the kernel reads `ranges.len()` iovecs; `RemoteRange` has their layout on 64-bit
    // Linux (two words, checked in sys.rs) and the slice outlives the call. Every `Advice`
    // preserves the content of memory, so that not even ranges of our own process could break a
    // promise to the compiler.
    let result = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            pidfd.as_fd().as_raw_fd(),
            ranges.as_ptr(),
            ranges.len(),
            advice.number(),
            0,
        )
    };
    count_or_errno(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open_pidfd;

    #[test]
    fn advice_about_no_range_reaches_no_byte() {
        let pidfd = open_pidfd(std::process::id()).unwrap();
        match process_madvise(&pidfd, &[], Advice::WillNeed) {
            Ok(bytes) => assert_eq!(bytes, 0),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        }
    }

    #[test]
    fn advice_about_a_hole_is_refused() {
        let pidfd = open_pidfd(std::process::id()).unwrap();
        let hole = [RemoteRange { start: 0, length: 4096 }];
        assert!(process_madvise(&pidfd, &hole, Advice::WillNeed).is_err());
    }
}
