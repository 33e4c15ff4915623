//! The `PAGEMAP_SCAN` ioctl of `/proc/PID/pagemap` (Linux 6.7): runs of pages with equal
//! properties, instead of a word for each page.

use std::io;
use std::ops::{BitOr, Range};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Properties of a page, as `PAGE_IS_*`. Bits without a name here are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct ScanFlags(pub u64);

impl ScanFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Written since it was last write-protected through userfaultfd.
    pub const WRITTEN: Self = Self(1 << 1);
    /// A page of a file, or of shared memory.
    pub const FILE: Self = Self(1 << 2);
    /// In memory.
    pub const PRESENT: Self = Self(1 << 3);
    /// In swap, or under migration just now.
    pub const SWAPPED: Self = Self(1 << 4);
    /// The zero page.
    pub const PFN_ZERO: Self = Self(1 << 5);
    /// Mapped by a huge entry (PMD): a THP or a hugetlb page.
    pub const HUGE: Self = Self(1 << 6);
    /// Soft-dirty.
    pub const SOFT_DIRTY: Self = Self(1 << 7);

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for ScanFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A run of pages with the same properties (`struct page_region`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRegion {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
    /// Those of [`ScanRequest::report`] that its pages have.
    pub flags: ScanFlags,
}

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// Byte addresses; the start must be a multiple of the page size.
    pub range: Range<u64>,
    /// A page counts only if it has all of these.
    pub all_of: ScanFlags,
    /// And, unless this is empty, at least one of these.
    pub any_of: ScanFlags,
    /// Properties to tell apart: a region ends where one of these changes.
    pub report: ScanFlags,
}

/// `struct pm_scan_arg` of include/uapi/linux/fs.h.
#[repr(C)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const PAGEMAP_SCAN: rustix::ioctl::Opcode =
    rustix::ioctl::opcode::read_write::<ScanArgument>(b'f', 16);

/// `ioctl(pagemap, PAGEMAP_SCAN, ...)`: fill `regions` with what `request` matches; write-protect
/// nothing.
///
/// Returns how many regions were filled, and the address where the next scan must go on: the end
/// of the range when all of it was looked at.
///
/// # Errors
///
/// - `ENOTTY`: the kernel is older than 6.7.
/// - `ESRCH`: the process has exited.
/// - `EINVAL`: an unaligned range, or no room for a region.
///
/// Source: kernel, Documentation/admin-guide/mm/pagemap.rst and fs/proc/task_mmu.c,
/// `do_pagemap_scan`.
#[doc(alias = "PAGEMAP_SCAN")]
pub fn pagemap_scan(
    pagemap: impl AsFd,
    request: &ScanRequest,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    let mut argument = ScanArgument {
        size: size_of::<ScanArgument>() as u64,
        flags: 0,
        start: request.range.start,
        end: request.range.end,
        walk_end: 0,
        regions: regions.as_mut_ptr().expose_provenance() as u64,
        regions_len: regions.len() as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: request.all_of.0,
        category_anyof_mask: request.any_of.0,
        return_mask: request.report.0,
    };
    // SAFETY: `argument` has the layout and, in `size`, the length that the kernel expects, and
    // lives until after the call. The kernel writes `walk_end` in it, and at most `regions_len`
    // regions through the exposed pointer: a `PageRegion` has their layout and `regions` that
    // length. Without flags nothing is write-protected. On a file that is no pagemap the number
    // means nothing to the driver, or another ioctl of type 'f' and size 96, of which there is
    // none.
    let result = unsafe {
        libc::ioctl(
            pagemap.as_fd().as_raw_fd(),
            PAGEMAP_SCAN as libc::Ioctl,
            ptr::from_mut(&mut argument),
        )
    };
    let filled = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    Ok((filled, argument.walk_end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_opcode_is_the_one_of_the_kernel_header() {
        assert_eq!(PAGEMAP_SCAN, 0xC060_6610);
        assert_eq!(size_of::<PageRegion>(), 24);
    }

    #[test]
    fn a_touched_page_of_our_own_is_present_where_the_kernel_can_scan() {
        let memory = vec![1_u8; 3 * 4096];
        let page = (memory.as_ptr().addr() as u64 + 4096) & !4095;
        let request = ScanRequest {
            range: page..page + 4096,
            all_of: ScanFlags::PRESENT,
            any_of: ScanFlags::NONE,
            report: ScanFlags::PRESENT | ScanFlags::FILE,
        };
        let mut regions = [PageRegion::default(); 2];
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        match pagemap_scan(&pagemap, &request, &mut regions) {
            Ok((filled, walk_end)) => {
                assert_eq!((filled, walk_end), (1, page + 4096));
                let flags = ScanFlags::PRESENT;
                assert_eq!(regions[0], PageRegion { start: page, end: page + 4096, flags });
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOTTY)),
        }
    }
}
