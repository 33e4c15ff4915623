//! Reads `/proc/kpageflags`: a word of flags for each page frame of the machine.
//!
//! It tells the head of a folio from its tails, and pages that never migrate from those that do.
//! It is about frames, not about a process: a frame may be freed and used again between the read
//! of a pagemap and this one.
//!
//! Source: kernel, Documentation/admin-guide/mm/pagemap.rst and
//! include/uapi/linux/kernel-page-flags.h.

use std::fs::File;
use std::io;

use crate::{ReadError, Root, sys};

/// Flags of a page frame. Bits without a name here are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameFlags(pub u64);

impl FrameFlags {
    /// Locked just now, for I/O say.
    pub const LOCKED: Self = Self(1 << 0);
    /// On an LRU list; a page that is not cannot be isolated.
    pub const LRU: Self = Self(1 << 5);
    /// Being written.
    pub const WRITEBACK: Self = Self(1 << 8);
    /// Anonymous.
    pub const ANON: Self = Self(1 << 12);
    /// First page of a folio of several.
    pub const COMPOUND_HEAD: Self = Self(1 << 15);
    /// Another page of a folio of several.
    pub const COMPOUND_TAIL: Self = Self(1 << 16);
    /// Of a hugetlb pool.
    pub const HUGETLB: Self = Self(1 << 17);
    /// Not to be reclaimed: locked by mlock, say. It migrates.
    pub const UNEVICTABLE: Self = Self(1 << 18);
    /// No page frame: a hole in memory.
    pub const NO_PAGE: Self = Self(1 << 20);
    /// Merged by KSM.
    pub const KSM: Self = Self(1 << 21);
    /// Of a transparent huge page, or of another large folio that processes may map.
    pub const THP: Self = Self(1 << 22);
    /// Logically offline: taken by a balloon, say.
    pub const OFFLINE: Self = Self(1 << 23);
    /// The zero page, or the huge zero page.
    pub const ZERO_PAGE: Self = Self(1 << 24);
    /// Broken memory, which is never used again.
    pub const HARDWARE_POISON: Self = Self(1 << 19);
    /// A page table.
    pub const PAGE_TABLE: Self = Self(1 << 26);

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags that are set, in the kernel's words; one without a name as `bit 45`.
    pub fn words(self) -> impl Iterator<Item = String> {
        (0..u64::BITS).filter(move |bit| self.0 >> bit & 1 == 1).map(|bit| {
            let name = WORDS.iter().find(|(known, _)| *known == bit);
            name.map_or_else(|| format!("bit {bit}"), |(_, word)| (*word).to_owned())
        })
    }
}

/// Bits by name: those below 32 are of the interface, the others are for kernel developers.
const WORDS: [(u32, &str); 37] = [
    (0, "locked"),
    (1, "error"),
    (2, "referenced"),
    (3, "uptodate"),
    (4, "dirty"),
    (5, "lru"),
    (6, "active"),
    (7, "slab"),
    (8, "writeback"),
    (9, "reclaim"),
    (10, "buddy"),
    (11, "mmap"),
    (12, "anon"),
    (13, "swapcache"),
    (14, "swapbacked"),
    (15, "compound head"),
    (16, "compound tail"),
    (17, "hugetlb"),
    (18, "unevictable"),
    (19, "hardware poison"),
    (20, "no page"),
    (21, "ksm"),
    (22, "thp"),
    (23, "offline"),
    (24, "zero page"),
    (25, "idle"),
    (26, "page table"),
    (32, "reserved"),
    (33, "mlocked"),
    (34, "owner 2"),
    (35, "private"),
    (36, "private 2"),
    (37, "owner private"),
    (38, "arch"),
    (39, "uncached"),
    (40, "soft-dirty"),
    (41, "arch 2"),
];

/// The open kpageflags.
#[derive(Debug)]
pub struct KPageFlags(File);

impl KPageFlags {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn open(root: &Root) -> Result<Self, ReadError> {
        root.open("proc/kpageflags").map(Self)
    }

    /// Reads the words of the frames from number `first` on; returns how many came. Wrap a word
    /// in [`FrameFlags`] to read it.
    ///
    /// # Errors
    ///
    /// What pread(2) says.
    pub fn read(&self, first: u64, flags: &mut [u64]) -> io::Result<usize> {
        sys::pread_words(&self.0, first, flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_set_bit_has_a_word_and_no_other() {
        let flags = FrameFlags(1 << 5 | 1 << 12 | 1 << 50);
        assert_eq!(flags.words().collect::<Vec<_>>(), ["lru", "anon", "bit 50"]);
        assert_eq!(FrameFlags(u64::MAX).words().count(), 64);
    }

    #[test]
    fn flags_of_a_run_of_frames_are_read_from_the_first_asked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("proc")).unwrap();
        let words = [0_u64, 1 << 5, 1 << 15 | 1 << 22, 1 << 16 | 1 << 22];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        fs::write(folder.path().join("proc/kpageflags"), bytes).unwrap();
        let file = KPageFlags::open(&Root::new(folder.path())).unwrap();
        let mut flags = [0; 8];
        assert_eq!(file.read(2, &mut flags).unwrap(), 2);
        let head = FrameFlags(flags[0]);
        assert!(head.contains(FrameFlags::COMPOUND_HEAD) && head.contains(FrameFlags::THP));
        assert!(!FrameFlags(flags[1]).contains(FrameFlags::COMPOUND_HEAD));
    }
}
