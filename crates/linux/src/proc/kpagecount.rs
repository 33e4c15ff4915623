//! Reads `/proc/kpagecount`: how often each page frame of the machine is mapped.
//!
//! More than once means shared in the sense of move_pages (behaviour spec 1.4), for a folio of one
//! page. Kernels since 6.16 may give the average over a large folio instead
//! (`CONFIG_NO_PAGE_MAPCOUNT`), so that for those it is a hint only.
//!
//! Source: kernel, Documentation/admin-guide/mm/pagemap.rst.

use std::fs::File;
use std::io;

use crate::{ReadError, Root, sys};

/// The open kpagecount.
#[derive(Debug)]
pub struct KPageCount(File);

impl KPageCount {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn open(root: &Root) -> Result<Self, ReadError> {
        root.open("proc/kpagecount").map(Self)
    }

    /// Reads the counts of the frames from number `first` on; returns how many came.
    ///
    /// # Errors
    ///
    /// What pread(2) says.
    pub fn read(&self, first: u64, counts: &mut [u64]) -> io::Result<usize> {
        sys::pread_words(&self.0, first, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn counts_are_read_from_the_frame_asked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("proc")).unwrap();
        let bytes: Vec<u8> = [1_u64, 2, 3].iter().flat_map(|word| word.to_ne_bytes()).collect();
        fs::write(folder.path().join("proc/kpagecount"), bytes).unwrap();
        let file = KPageCount::open(&Root::new(folder.path())).unwrap();
        let mut counts = [0; 4];
        assert_eq!(file.read(1, &mut counts).unwrap(), 2);
        assert_eq!(counts[..2], [2, 3]);
    }
}
