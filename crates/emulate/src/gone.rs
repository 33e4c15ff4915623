//! Files in memory that no longer exist: memfds, files on tmpfs, segments of shmget(2).
//!
//! Their pages outlive the last mapping for as long as a path, a descriptor or an identifier leads to
//! them, and nobody tells when the last of these goes. It is looked for when the machine is full, and
//! where there may be much of it when a node runs short or a process has ended. Where it cannot be
//! told, a file is taken to exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use linux::proc::maps;
use linux::{ReadError, Root};
use machine::Node;
use model::FileId;

use crate::settle::FileKey;
use crate::world::World;

const PAGE: u64 = 4096;

/// A file that nobody maps.
#[derive(Debug)]
pub(crate) struct Unmapped {
    pub(crate) key: FileKey,
    pub(crate) file: FileId,
    /// As a mapping of it was called.
    pub(crate) name: String,
}

impl World {
    /// Frees the pages of files that no longer exist. How many.
    pub(crate) fn drop_gone_files(&mut self) -> u64 {
        let mut gone = self.files.unmapped(&self.machine);
        if gone.is_empty() {
            return 0;
        }
        let segments = segments(self.processes.keys().copied());
        gone.retain(|it| !is_segment(it) || segments.as_ref().is_some_and(|all| !is_in(all, it)));
        for &pid in self.processes.keys() {
            let Some(used) = inodes_in_use(pid) else { return 0 };
            gone.retain(|it| !is_in(&used, it) && !has_path(pid, it));
        }
        let mut freed = 0;
        for it in gone {
            freed += self.machine.delete_file(it.file);
            self.files.forget(it.key);
        }
        freed
    }

    /// The same if more than a sixteenth of the machine may be free by it, in addition to what
    /// turned out to exist the last time: to look at all descriptors takes its time.
    pub(crate) fn drop_gone_files_if_many(&mut self) {
        let nodes = self.machine.topology().nodes();
        let many = nodes.iter().map(|node| node.memory.get()).sum::<u64>() / PAGE / 16;
        let pages = self.files.unmapped_pages(&self.machine);
        let seen = self.files.unmapped_pages_seen.min(pages);
        self.files.unmapped_pages_seen = if pages > seen + many {
            self.drop_gone_files();
            self.files.unmapped_pages(&self.machine)
        } else {
            seen
        };
    }

    /// The same where less than a quarter of some node is free: new pages may go elsewhere soon.
    pub(crate) fn make_room(&mut self) {
        let is_short = |node: &Node| {
            self.machine.free_pages(node.id).saturating_mul(PAGE) < node.memory.get() / 4
        };
        if self.machine.topology().nodes().iter().any(is_short) {
            self.drop_gone_files_if_many();
        }
    }
}

fn is_in(inodes: &BTreeSet<u64>, it: &Unmapped) -> bool {
    inodes.contains(&it.key.1)
}

fn is_segment(it: &Unmapped) -> bool {
    it.name.starts_with("/SYSV")
}

/// Whether a path that a process sees leads to a file. One that was renamed since is not found.
fn has_path(pid: u32, it: &Unmapped) -> bool {
    let found = fs::symlink_metadata(format!("/proc/{pid}/root{}", it.name));
    found.is_ok_and(|found| found.ino() == it.key.1)
}

/// Inodes of the files that a process has mapped or open; `None`: it does not let us see.
fn inodes_in_use(pid: u32) -> Option<BTreeSet<u64>> {
    let mappings = match maps::read(&Root::default(), pid) {
        Err(ReadError::NoProcess { .. }) => return Some(BTreeSet::new()),
        result => result.ok()?,
    };
    let mut inodes: BTreeSet<u64> = mappings.iter().map(|mapping| mapping.inode).collect();
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fdinfo")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(inodes),
        result => result.ok()?,
    };
    for descriptor in descriptors {
        // One that was closed since.
        let Ok(text) = fs::read_to_string(descriptor.ok()?.path()) else { continue };
        let inode = text.lines().find_map(|line| line.strip_prefix("ino:"));
        inodes.insert(inode?.trim().parse().ok()?);
    }
    Some(inodes)
}

/// The segments of shmget(2) that exist, by the inodes of their files, which are their identifiers.
/// `None`: some process has others than we.
fn segments(pids: impl Iterator<Item = u32>) -> Option<BTreeSet<u64>> {
    let own = fs::read_link("/proc/self/ns/ipc").ok()?;
    for pid in pids {
        if fs::read_link(format!("/proc/{pid}/ns/ipc")).ok()? != own {
            return None;
        }
    }
    let text = Root::default().read("proc/sysvipc/shm").ok()?;
    let lines = text.lines().skip(1);
    lines.map(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()).collect()
}
