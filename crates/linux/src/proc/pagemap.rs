//! Reads `/proc/PID/pagemap`: a 64-bit word for each page of the address space.
//!
//! - Words are read straight into the caller's buffer. A survey reads millions of them at about
//!   26 ns each, all of it the kernel's; a copy would be seen. (The procfs crate makes one.)
//! - Without `CAP_SYS_ADMIN` frame numbers read as zero, without an error.
//! - An open file stays bound to the memory of the process that had the pid when it was opened.
//!   After that one exits, reads give nothing, even if the pid is in use again.
//! - A kernel thread's file opens, and is empty.
//!
//! Source: proc_pid_pagemap(5); kernel, Documentation/admin-guide/mm/pagemap.rst.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::sys::{self, PageRegion, ScanRequest};
use crate::{Errno, ReadError, Root};

pub use crate::sys::ScanFlags;

/// One word of pagemap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PagemapEntry(pub u64);

impl PagemapEntry {
    /// The bits of the frame number; all zero for a caller who may not know it.
    pub const FRAME: u64 = (1 << 55) - 1;

    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// In memory.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.bit(63)
    }

    /// In swap, or under migration just now.
    #[must_use]
    pub const fn is_swapped(self) -> bool {
        self.bit(62)
    }

    /// A page of a file, or of shared memory: not anonymous.
    #[must_use]
    pub const fn is_file_or_shared(self) -> bool {
        self.bit(61)
    }

    /// A guard, which faults when touched. Linux 6.15.
    #[must_use]
    pub const fn is_guard(self) -> bool {
        self.bit(58)
    }

    /// Write-protected by a userfaultfd. Linux 5.14.
    #[must_use]
    pub const fn is_write_protected(self) -> bool {
        self.bit(57)
    }

    /// Mapped here and nowhere else.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        self.bit(56)
    }

    /// Written since soft-dirty bits were cleared; always set when the kernel does not track them
    /// for this mapping.
    #[must_use]
    pub const fn is_soft_dirty(self) -> bool {
        self.bit(55)
    }

    /// Number of the page frame; `None` when the page is not present, or the caller may not know.
    #[must_use]
    pub const fn frame(self) -> Option<u64> {
        let frame = self.0 & Self::FRAME;
        if self.is_present() && frame != 0 { Some(frame) } else { None }
    }
}

/// The open pagemap of a process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    path: PathBuf,
}

impl Pagemap {
    /// Opens the pagemap of the process that has this pid now.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn open(root: &Root, pid: u32) -> Result<Self, ReadError> {
        let path = super::path(pid, "pagemap");
        Ok(Self { file: root.open(&path)?, path: root.path(path) })
    }

    /// Reads the words of the pages from number `first` on (address divided by the page size);
    /// returns how many came. Fewer than asked: the address space ends there, or the process has
    /// exited. Wrap a word in [`PagemapEntry`] to read it.
    ///
    /// # Errors
    ///
    /// What pread(2) says.
    pub fn read_entries(&self, first: u64, entries: &mut [u64]) -> io::Result<usize> {
        sys::pread_words(&self.file, first, entries)
    }

    /// Finds runs of pages with equal properties, huge pages at one step each. Returns how many
    /// regions were filled, and the address where to go on: the end of the range when done.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unsupported`] before Linux 6.7; [`ReadError`] else.
    ///
    /// Source: [`sys::pagemap_scan`].
    pub fn scan(
        &self,
        request: &ScanRequest,
        regions: &mut [PageRegion],
    ) -> Result<(usize, u64), ReadError> {
        sys::pagemap_scan(&self.file, request, regions).map_err(|error| {
            let path = self.path.clone();
            match Errno::from(&error) {
                Errno::ENOTTY => {
                    ReadError::Unsupported { path, what: "PAGEMAP_SCAN", since: "6.7" }
                }
                errno => ReadError::Io { path, errno },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn our_pagemap() -> Pagemap {
        Pagemap::open(&Root::default(), std::process::id()).unwrap()
    }

    #[test]
    fn a_word_is_decoded_bit_by_bit() {
        let entry = PagemapEntry(1 << 63 | 1 << 61 | 1 << 56 | 0x1234);
        assert!(entry.is_present() && entry.is_file_or_shared() && entry.is_exclusive());
        assert!(!entry.is_swapped() && !entry.is_soft_dirty() && !entry.is_guard());
        assert_eq!(entry.frame(), Some(0x1234));
    }

    #[test]
    fn a_hidden_frame_number_is_not_frame_zero() {
        assert_eq!(PagemapEntry(1 << 63).frame(), None);
        assert_eq!(PagemapEntry(1 << 62 | 5).frame(), None, "a swap slot is no frame");
    }

    #[test]
    fn a_touched_page_of_our_own_is_present_and_anonymous() {
        let word = Box::new(1_u64);
        let address = std::ptr::from_ref(&*word).addr() as u64;
        let mut entries = [0];
        assert_eq!(our_pagemap().read_entries(address / 4096, &mut entries).unwrap(), 1);
        let entry = PagemapEntry(entries[0]);
        assert!(entry.is_present() && !entry.is_file_or_shared());
    }

    #[test]
    fn the_null_page_is_nothing_and_the_end_of_the_address_space_ends_the_read() {
        let mut entries = [!0; 2];
        assert_eq!(our_pagemap().read_entries(0, &mut entries).unwrap(), 2);
        assert_eq!(entries, [0, 0]);
        assert_eq!(our_pagemap().read_entries(1 << 52, &mut entries).unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_no_pagemap_cannot_be_scanned_and_says_since_when_it_could() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/7")).unwrap();
        fs::write(folder.path().join("proc/7/pagemap"), [0; 16]).unwrap();
        let pagemap = Pagemap::open(&Root::new(folder.path()), 7).unwrap();
        let request = ScanRequest {
            range: 0..4096,
            all_of: ScanFlags::PRESENT,
            any_of: ScanFlags::NONE,
            report: ScanFlags::PRESENT,
        };
        let error = pagemap.scan(&request, &mut [PageRegion::default()]).unwrap_err();
        assert!(matches!(error, ReadError::Unsupported { since: "6.7", .. }), "{error}");
    }
}
