//! Tracefs: what the kernel says while it migrates pages.
//!
//! [`Tracefs::find`] looks the mount up; [`Tracefs::format`] reads how an event's bytes are laid
//! out; an [`Instance`] is a set of ring buffers of our own, so that nobody else's tracing is
//! touched; [`ring`] reads their pages. No event is known here by its number, offsets or words: all
//! of that is the running kernel's to say.
//!
//! Where tracing is impossible, [`TraceError`] says in one line what to mount or to grant.
//!
//! Source: kernel, Documentation/trace/ftrace.rst and events.rst; kernel/trace/trace.c.

mod error;
pub mod format;
mod instance;
pub mod ring;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use error::TraceError;
pub use instance::{CpuStats, Instance};

use crate::proc::mountinfo;
use crate::{ReadError, Root};
use format::Format;
use ring::PageLayout;

/// Where it is mounted by custom.
const USUAL: &str = "/sys/kernel/tracing";

/// A mounted tracefs.
#[derive(Clone, Debug)]
pub struct Tracefs {
    root: Root,
    dir: PathBuf,
}

impl Tracefs {
    /// Finds the mount among those that the caller sees.
    ///
    /// # Errors
    ///
    /// [`TraceError`], when it is not there or not to be entered.
    pub fn find(root: &Root) -> Result<Self, TraceError> {
        let mounts = mountinfo::read(root)?;
        let mut points: Vec<PathBuf> = mounts
            .into_iter()
            .filter(|mount| mount.file_system == "tracefs" && mount.subtree == "/")
            .map(|mount| mount.mount_point)
            .collect();
        points.sort_by_key(|point| point != Path::new(USUAL));
        let Some(dir) = points.into_iter().next() else {
            let known = root.read("proc/filesystems")?;
            let is_known =
                known.lines().any(|line| line.split_whitespace().last() == Some("tracefs"));
            return Err(if is_known { TraceError::NotMounted } else { TraceError::NotBuilt });
        };
        let tracefs = Self { root: root.clone(), dir };
        match root.names(tracefs.dir.join("instances")) {
            Ok(_) => Ok(tracefs),
            Err(error) => Err(tracefs.explain(error)),
        }
    }

    /// Reads one of its files whole.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn read(&self, file: impl AsRef<Path>) -> Result<String, TraceError> {
        self.root.read(self.dir.join(file)).map_err(|error| self.explain(error))
    }

    /// How the events of this kind are laid out; `None` when this kernel has no such event.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn format(&self, system: &str, event: &str) -> Result<Option<Format>, TraceError> {
        let file = self.dir.join(format!("events/{system}/{event}/format"));
        match self.root.parse(file, format::parse) {
            Ok(format) => Ok(Some(format)),
            Err(ReadError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// How the pages of the ring buffers are laid out.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn page_layout(&self) -> Result<PageLayout, TraceError> {
        let path = self.root.path(self.dir.join("events/header_page"));
        // The kernel gives it to the first read and nothing to a second, however short the first was.
        let mut bytes = vec![0; 4096];
        let length = File::open(&path)
            .and_then(|mut file| file.read(&mut bytes))
            .map_err(|error| self.explain(self.root.error(&path, &error)))?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        PageLayout::parse(&text)
            .map_err(|malformed| TraceError::Read(ReadError::Malformed { path, malformed }))
    }

    /// Tells a refusal by lockdown from one for want of a capability.
    fn explain(&self, error: ReadError) -> TraceError {
        let lockdown = || self.root.read("sys/kernel/security/lockdown").unwrap_or_default();
        error::explain(error, lockdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MOUNT: &str = "30 24 0:12 / /sys/kernel/tracing rw,nosuid - tracefs tracefs rw\n";

    /// A made-up computer with these mounts and file systems.
    fn computer(mounts: &str, filesystems: &str) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/self")).unwrap();
        fs::write(folder.path().join("proc/self/mountinfo"), mounts).unwrap();
        fs::write(folder.path().join("proc/filesystems"), filesystems).unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn a_tracefs_that_is_not_mounted_is_answered_by_the_command_that_mounts_it() {
        let (_folder, root) = computer("", "nodev\tsysfs\nnodev\ttracefs\n");
        let error = Tracefs::find(&root).unwrap_err();
        assert!(error.to_string().contains("mount -t tracefs"), "{error}");
    }

    #[test]
    fn a_kernel_without_tracefs_is_told_apart_from_one_where_it_is_not_mounted() {
        let (_folder, root) = computer("", "nodev\tsysfs\n");
        assert!(matches!(Tracefs::find(&root), Err(TraceError::NotBuilt)));
    }

    #[test]
    fn the_usual_mount_point_is_taken_before_others() {
        let other = MOUNT.replace("/sys/kernel/tracing", "/sys/kernel/debug/tracing");
        let (folder, root) = computer(&(other + MOUNT), "nodev\ttracefs\n");
        fs::create_dir_all(folder.path().join("sys/kernel/tracing/instances")).unwrap();
        let tracefs = Tracefs::find(&root).unwrap();
        assert_eq!(tracefs.dir, Path::new(USUAL));
        assert!(tracefs.format("migrate", "mm_migrate_pages").unwrap().is_none());
    }
}
