//! A tree of files to be shown: what is where, before anything is written anywhere.
//!
//! Filled by the renderers of sysfs ([`super::nodes`], [`super::cpus`], [`super::memory`]), written
//! into a folder by [`super::mounts`] and [`super::inject`]. Listings and stat need no code of
//! their own: they are those of the folder.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::live::Live;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Folder,
    Link(String),
    /// A file that never changes, with its permission bits.
    Text(u32, String),
    /// A file that is rendered anew for each open.
    Live(Live),
}

/// Entries by absolute path, as in the machine that is played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Adds an entry, and the folders above it.
    pub(crate) fn add(&mut self, path: impl Into<PathBuf>, entry: Entry) {
        let path = path.into();
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.0.entry(folder.to_path_buf()).or_insert(Entry::Folder);
        }
        self.0.insert(path, entry);
    }

    /// A file that anyone may read and that ends with a newline.
    pub(crate) fn line(&mut self, path: impl Into<PathBuf>, text: impl std::fmt::Display) {
        self.add(path, Entry::Text(0o444, format!("{text}\n")));
    }

    pub(crate) fn link(&mut self, path: impl Into<PathBuf>, target: impl Into<String>) {
        self.add(path, Entry::Link(target.into()));
    }

    /// What every device has: `uevent`, `power/*`, and the link to its bus.
    pub(crate) fn device(&mut self, path: &str, bus: Option<&str>) {
        self.add(format!("{path}/uevent"), Entry::Text(0o644, String::new()));
        for (name, text) in [
            ("control", "auto"),
            ("runtime_active_time", "0"),
            ("runtime_status", "unsupported"),
            ("runtime_suspended_time", "0"),
        ] {
            self.line(format!("{path}/power/{name}"), text);
        }
        if let Some(bus) = bus {
            let up = "../".repeat(path.matches('/').count() - 1);
            self.link(format!("{path}/subsystem"), format!("{up}bus/{bus}"));
        }
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Everything, folders before what is in them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// The files that change.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Path, Live)> {
        self.entries().filter_map(|(path, entry)| match entry {
            Entry::Live(live) => Some((path, *live)),
            _ => None,
        })
    }

    /// Writes all of it below `root`; files that change are left out.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        for (path, entry) in self.entries() {
            let path = below(root, path);
            match entry {
                Entry::Folder => {
                    fs::create_dir_all(&path)?;
                    // Whatever our umask: it is not the machine's.
                    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                }
                Entry::Link(target) => symlink(target, &path)?,
                Entry::Text(mode, text) => {
                    fs::write(&path, text)?;
                    fs::set_permissions(&path, Permissions::from_mode(*mode))?;
                }
                Entry::Live(_) => {}
            }
        }
        Ok(())
    }
}

/// `path`, which is absolute, inside the folder `root`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_added() {
        let mut tree = Tree::default();
        tree.line("/sys/a/online", "0-1");
        tree.link("/sys/a/b/up", "../online");
        tree.add("/sys/a/live", Entry::Live(Live::Meminfo));
        let folder = tempfile::tempdir().unwrap();
        tree.write(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("sys/a/b/up")).unwrap(), "0-1\n");
        assert!(!folder.path().join("sys/a/live").exists());
        assert_eq!(tree.live().collect::<Vec<_>>(), [(Path::new("/sys/a/live"), Live::Meminfo)]);
    }

    #[test]
    fn a_device_is_linked_to_its_bus() {
        let mut tree = Tree::default();
        tree.device("/sys/devices/system/node/node0", Some("node"));
        let link = tree.get(Path::new("/sys/devices/system/node/node0/subsystem"));
        assert_eq!(link, Some(&Entry::Link("../../../../bus/node".to_owned())));
    }
}
