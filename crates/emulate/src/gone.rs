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

use crate::namespace;
use crate::process::Process;
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
        for process in self.processes.values() {
            let Some(seen) = Seen::by(process) else { return 0 };
            gone.retain(|it| !is_in(&seen.inodes, it) && !seen.has_path(it));
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

/// What a process has.
struct Seen {
    /// A thread that lives, in whose files it is seen; none: the process is ending.
    tid: Option<u32>,
    /// Of the files that are mapped or open.
    inodes: BTreeSet<u64>,
}

impl Seen {
    /// `None`: the process does not let us see. The first thread may have ended before the others, and
    /// shows nothing then.
    fn by(process: &Process) -> Option<Self> {
        for &tid in process.threads.keys() {
            let mappings = match maps::read(&Root::default(), tid) {
                Err(ReadError::NoProcess { .. }) => continue,
                result => result.ok()?,
            };
            if mappings.is_empty() {
                continue;
            }
            let mut inodes = open_inodes(tid)?;
            inodes.extend(mappings.iter().map(|mapping| mapping.inode));
            return Some(Self { tid: Some(tid), inodes });
        }
        Some(Self { tid: None, inodes: BTreeSet::new() })
    }

    /// Whether a path leads to a file. One that was renamed since is not found.
    fn has_path(&self, it: &Unmapped) -> bool {
        let Some(tid) = self.tid else { return false };
        let found = fs::symlink_metadata(format!("/proc/{tid}/root{}", it.name));
        found.is_ok_and(|found| found.ino() == it.key.1)
    }
}

/// Inodes of the files that a thread has open; `None`: it does not let us see.
fn open_inodes(tid: u32) -> Option<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    let descriptors = match fs::read_dir(format!("/proc/{tid}/fdinfo")) {
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
fn segments(mut pids: impl Iterator<Item = u32>) -> Option<BTreeSet<u64>> {
    let own = namespace::of(std::process::id(), "ipc")?;
    if pids.any(|pid| namespace::of(pid, "ipc") != Some(own)) {
        return None;
    }
    let text = Root::default().read("proc/sysvipc/shm").ok()?;
    let lines = text.lines().skip(1);
    lines.map(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()).collect()
}
