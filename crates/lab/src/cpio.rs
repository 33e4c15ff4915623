//! Writes a cpio archive in the one format that the kernel unpacks as an initramfs (`newc`).
//!
//! Each entry is a header of 110 characters (a magic, then 13 numbers as eight hex digits), the
//! path without its leading slash and with a zero byte, the content; path and content are each
//! padded to four bytes. An entry named `TRAILER!!!` ends the archive.
//!
//! The kernel makes no missing folders, so [`Archive`] adds every parent by itself.
//!
//! Source: kernel, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File { mode: u32, bytes: Vec<u8> },
    Link { target: PathBuf },
}

/// The files of an initramfs, by path. What is added later replaces what has the same path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Archive {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Archive {
    pub(crate) fn folder(&mut self, path: &Path) {
        self.add(path, Entry::Folder);
    }

    pub(crate) fn file(&mut self, path: &Path, mode: u32, bytes: Vec<u8>) {
        self.add(path, Entry::File { mode: mode & 0o7777, bytes });
    }

    pub(crate) fn link(&mut self, path: &Path, target: &Path) {
        self.add(path, Entry::Link { target: target.to_owned() });
    }

    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// Bytes of all files: the memory that they take in the guest.
    pub(crate) fn file_bytes(&self) -> u64 {
        let length = |entry: &Entry| match entry {
            Entry::File { bytes, .. } => bytes.len() as u64,
            Entry::Folder | Entry::Link { .. } => 0,
        };
        self.entries.values().map(length).sum()
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        // Parents sort before what lies in them, which is the order that the kernel needs.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let path = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
            let (mode, bytes) = match entry {
                Entry::Folder => (FOLDER, &[][..]),
                Entry::File { mode, bytes } => (FILE | mode, bytes.as_slice()),
                Entry::Link { target } => (LINK, target.as_os_str().as_bytes()),
            };
            write_entry(to, number, mode, path, bytes)?;
        }
        write_entry(to, 0, 0, b"TRAILER!!!", b"")
    }
}

fn write_entry(
    to: &mut impl Write,
    number: u32,
    mode: u32,
    path: &[u8],
    bytes: &[u8],
) -> io::Result<()> {
    let too_long = |_| io::Error::new(io::ErrorKind::FileTooLarge, "a file of 4 GiB or more");
    let path_length = u32::try_from(path.len() + 1).map_err(too_long)?;
    let length = u32::try_from(bytes.len()).map_err(too_long)?;
    let links = if mode == FOLDER { 2 } else { 1 };
    // Inode, mode, owner, group, links, time, length, device (4), length of the path, checksum.
    let fields = [number, mode, 0, 0, links, 0, length, 0, 0, 0, 0, path_length, 0];
    to.write_all(b"070701")?;
    for field in fields {
        write!(to, "{field:08x}")?;
    }
    to.write_all(path)?;
    to.write_all(&[0])?;
    pad(to, HEADER_BYTES + path.len() + 1)?;
    to.write_all(bytes)?;
    pad(to, bytes.len())
}

const HEADER_BYTES: usize = 110;

fn pad(to: &mut impl Write, length: usize) -> io::Result<()> {
    to.write_all(&[0; 3][..length.next_multiple_of(4) - length])
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// Reads an archive the way the kernel does, and insists on what the kernel insists on.
    fn read(mut bytes: &[u8]) -> Archive {
        let mut archive = Archive::default();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |at: usize| {
                let digits = std::str::from_utf8(&bytes[6 + at * 8..14 + at * 8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (mode, length, path_length) = (field(1), field(6), field(11));
            let path = &bytes[HEADER_BYTES..HEADER_BYTES + path_length - 1];
            let path = format!("/{}", std::str::from_utf8(path).unwrap());
            bytes = &bytes[(HEADER_BYTES + path_length).next_multiple_of(4)..];
            let content = bytes[..length].to_vec();
            bytes = &bytes[length.next_multiple_of(4)..];
            if path == "/TRAILER!!!" {
                assert!(bytes.is_empty());
                return archive;
            }
            let parent = Path::new(&path).parent().unwrap().to_owned();
            assert!(parent == Path::new("/") || archive.entries.contains_key(&parent), "{path}");
            let mode = u32::try_from(mode).unwrap();
            let entry = match mode & 0o170_000 {
                0o040_000 => Entry::Folder,
                0o120_000 => Entry::Link { target: String::from_utf8(content).unwrap().into() },
                _ => Entry::File { mode: mode & 0o7777, bytes: content },
            };
            archive.entries.insert(path.into(), entry);
        }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn parents_are_made_and_the_last_of_two_wins() {
        let mut archive = Archive::default();
        archive.link(Path::new("/usr/bin/sh"), Path::new("busybox"));
        archive.file(Path::new("/usr/bin/sh"), 0o755, b"dash".to_vec());
        let found = read(&written(&archive));
        assert_eq!(found.entries[Path::new("/usr")], Entry::Folder);
        assert_eq!(found.entries[Path::new("/usr/bin")], Entry::Folder);
        let file = Entry::File { mode: 0o755, bytes: b"dash".to_vec() };
        assert_eq!(found.entries[Path::new("/usr/bin/sh")], file);
        assert_eq!(found.file_bytes(), 4);
    }

    proptest! {
        #[test]
        fn an_archive_reads_back_as_it_was_written(
            files in btree_map("(/[a-z.]{1,9}){1,4}", (0..0o7777u32, vec(any::<u8>(), 0..50)), 0..9),
        ) {
            let mut archive = Archive::default();
            for (path, (mode, bytes)) in files {
                // A path cannot be a file and the folder of another one.
                if !archive.contains(Path::new(&path)) {
                    archive.file(Path::new(&format!("{path}/file")), mode, bytes);
                }
            }
            prop_assert_eq!(read(&written(&archive)), archive);
        }
    }
}
