//! Which file an inode number means. A disk file system gives the number of a file that was deleted to the
//! next one that is made.
//!
//! The inode has a generation, which is part of the file's handle. Where a file system has no handles,
//! it is the time at which the file was made, which is exact to a tick of the clock.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use linux::proc::maps::Mapping;
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};

use crate::sys;

/// What sets a file apart from those that had its inode number before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Handle(Vec<u8>),
    /// Seconds and nanoseconds.
    MadeAt(i64, u32),
}

impl Identity {
    /// That of the file of a mapping; `None`: nothing tells.
    pub(crate) fn of(pid: u32, mapping: &Mapping) -> Option<Self> {
        let (file, stat) = open(pid, mapping)?;
        if let Ok(handle) = sys::handle::of(file) {
            return Some(Self::Handle(handle));
        }
        let has_time = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        has_time.then_some(Self::MadeAt(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
    }
}

/// Opens the file of a mapping as a path. Links to the files that are mapped, of those that were deleted
/// too, are for who may restore checkpoints; for others it is looked for by its name.
fn open(pid: u32, mapping: &Mapping) -> Option<(OwnedFd, Statx)> {
    let (start, end) = (mapping.range.start(), mapping.range.end());
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let open = |path: &str| {
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
        (stat.stx_ino == mapping.inode).then_some((file, stat))
    };
    open(&link).or_else(|| open(&format!("/proc/{pid}/root{}", mapping.name)))
}

/// Whether a name that the file of a mapping had is its name still, or leads to it: for a file without
/// identity.
pub(crate) fn is_named(pid: u32, mapping: &Mapping, name: &str) -> bool {
    let found = || fs::symlink_metadata(format!("/proc/{pid}/root{name}"));
    path_of(name) == path_of(&mapping.name) || found().is_ok_and(|it| it.ino() == mapping.inode)
}

fn path_of(name: &str) -> &str {
    name.strip_suffix(" (deleted)").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use linux::proc::maps::{Device, Permissions};
    use machine::AddrRange;

    use super::*;

    fn mapping(inode: u64, name: &str) -> Mapping {
        Mapping {
            range: AddrRange::new(0, 4096).unwrap(),
            permissions: Permissions { read: true, write: true, execute: false, shared: true },
            offset: 0,
            device: Device { major: 8, minor: 1 },
            inode,
            name: name.to_owned(),
        }
    }

    fn mapping_of(path: &Path) -> Mapping {
        mapping(fs::metadata(path).unwrap().ino(), path.to_str().unwrap())
    }

    #[test]
    fn a_file_is_the_same_by_all_its_names_and_none_where_its_name_leads_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "").unwrap();
        fs::hard_link(&path, &link).unwrap();
        let pid = std::process::id();
        let (one, other) = (mapping_of(&path), mapping_of(&link));
        let identity = Identity::of(pid, &one);
        assert_eq!(Identity::of(pid, &other), identity);
        assert_eq!(Identity::of(pid, &Mapping { inode: one.inode + 1, ..one }), None);
    }

    #[test]
    fn a_file_without_identity_is_known_by_a_name_that_it_has_or_had_when_it_was_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "").unwrap();
        let (pid, name) = (std::process::id(), path.to_str().unwrap());
        let it = mapping_of(&path);
        let deleted = Mapping { name: format!("{name} (deleted)"), ..it.clone() };
        let linked = Mapping { name: "/b".to_owned(), ..it.clone() };
        let other = Mapping { inode: it.inode + 1, ..linked.clone() };
        assert!([&it, &deleted, &linked].iter().all(|mapping| is_named(pid, mapping, name)));
        assert!(!is_named(pid, &other, name));
    }
}
