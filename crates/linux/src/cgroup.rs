//! Control groups, version 2: which processes a group has, where it lets them run, and where the
//! memory that is charged to it lies.
//!
//! A group's memory is not the sum of its processes' mappings: page cache is charged to the group
//! that touched it first.
//!
//! Source: kernel, Documentation/admin-guide/cgroup-v2.rst.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use machine::{CpuSet, NodeId, NodeSet};
use procfs::{FromBufRead, ProcessCGroups};

use crate::error::parse_lines;
use crate::proc::mountinfo;
use crate::{Errno, Malformed, ReadError, Root};

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    root: Root,
    mount: PathBuf,
    /// Below the mount point, without a slash at its beginning.
    path: PathBuf,
}

/// Why a path names no control group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No mount of type cgroup2.
    #[error("no cgroup v2 file system is mounted: processes must be named one by one")]
    NotMounted,

    /// Not below the mount point, or not there.
    #[error("{} is not a control group under {}", path.display(), mount.display())]
    NoSuchGroup {
        /// What was asked for.
        path: PathBuf,
        /// Where groups are.
        mount: PathBuf,
    },

    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Cgroup {
    /// Opens a group by its path: in full (`/sys/fs/cgroup/system.slice`), or from the mount point
    /// on, with or without a slash (`/system.slice`).
    ///
    /// # Errors
    ///
    /// [`CgroupError`].
    pub fn open(root: &Root, path: impl AsRef<Path>) -> Result<Self, CgroupError> {
        let path = path.as_ref();
        let mount = mount_point(root)?.ok_or(CgroupError::NotMounted)?;
        let inside = path.strip_prefix(&mount).unwrap_or(path);
        let inside = inside.strip_prefix("/").unwrap_or(inside).to_path_buf();
        let group = Self { root: root.clone(), mount, path: inside };
        let climbs = group.path.components().any(|part| part == Component::ParentDir);
        if climbs || !root.path(group.file("cgroup.procs")).exists() {
            return Err(CgroupError::NoSuchGroup { path: path.to_path_buf(), mount: group.mount });
        }
        Ok(group)
    }

    /// The group of a process.
    ///
    /// # Errors
    ///
    /// [`CgroupError`].
    pub fn of_process(root: &Root, pid: u32) -> Result<Self, CgroupError> {
        let path = root.parse(format!("proc/{pid}/cgroup"), parse_membership)?;
        Self::open(root, path.ok_or(CgroupError::NotMounted)?)
    }

    /// Its path from the mount point on: `/system.slice`, `/` for all.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// The processes of the group and of all groups in it, in order of pid. Reads until no new one
    /// appears, since processes fork meanwhile; but only a few times, since some groups never rest.
    ///
    /// Those in a pid namespace that we cannot see into are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError`] of the group itself; groups in it may vanish.
    pub fn processes(&self) -> Result<Vec<u32>, ReadError> {
        const PASSES: usize = 4;
        let mut all = BTreeSet::new();
        for _ in 0..PASSES {
            let before = all.len();
            all.extend(processes_of(&self.root, &self.folder())?);
            if all.len() == before {
                break;
            }
        }
        Ok(all.into_iter().collect())
    }

    /// CPUs where its processes may run; `None` when no cpuset limits them.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn cpus(&self) -> Result<Option<CpuSet>, ReadError> {
        self.nearest("cpuset.cpus.effective")
    }

    /// Nodes where its processes may have memory; `None` when no cpuset limits them.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn mems(&self) -> Result<Option<NodeSet>, ReadError> {
        self.nearest("cpuset.mems.effective")
    }

    /// Where the memory charged to the group lies, by kind and node. `None` without the memory
    /// controller, and for the root.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn numa_stat(&self) -> Result<Option<NumaStat>, ReadError> {
        match self.root.parse(self.file("memory.numa_stat"), parse_numa_stat) {
            Err(ReadError::NotFound { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// The value of a file in this group, or in the nearest group above that has the controller.
    fn nearest<T>(&self, file: &str) -> Result<Option<T>, ReadError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        for folder in self.path.ancestors() {
            match self.root.value(self.mount.join(folder).join(file)) {
                Err(ReadError::NotFound { .. }) => {}
                result => return result.map(Some),
            }
        }
        Ok(None)
    }

    fn folder(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }
}

/// Where cgroup v2 is mounted; `None` when it is not.
///
/// # Errors
///
/// [`ReadError`].
pub fn mount_point(root: &Root) -> Result<Option<PathBuf>, ReadError> {
    let mounts = mountinfo::read(root)?;
    Ok(mounts.into_iter().find(|mount| mount.file_system == "cgroup2").map(|m| m.mount_point))
}

/// Reads `/proc/PID/cgroup`: the path of the process in the v2 hierarchy, which has number 0.
/// `None` when the process is in v1 hierarchies only.
///
/// # Errors
///
/// When a line is not `NUMBER:CONTROLLERS:PATH`.
pub fn parse_membership(text: &str) -> Result<Option<PathBuf>, Malformed> {
    let ProcessCGroups(groups) = ProcessCGroups::from_buf_read(text.as_bytes())
        .map_err(|_| Malformed::new(1, "not `NUMBER:CONTROLLERS:PATH` on each line"))?;
    Ok(groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname.into()))
}

/// `memory.numa_stat`: for each kind of memory (`anon`, `file`, `shmem`) what lies on each node.
/// Bytes; the `workingset_` kinds count events. Kinds that we do not know are kept.
pub type NumaStat = BTreeMap<String, BTreeMap<NodeId, u64>>;

/// Reads the text of memory.numa_stat: `anon N0=4096 N1=0` on each line.
///
/// # Errors
///
/// A field that is not `N0=NUMBER`.
pub fn parse_numa_stat(text: &str) -> Result<NumaStat, Malformed> {
    let field = |field: &str| {
        let (node, amount) = field.strip_prefix('N')?.split_once('=')?;
        Some((NodeId::new(node.parse().ok()?)?, amount.parse().ok()?))
    };
    let line = |line: &str| {
        let (kind, fields) = line.split_once(' ').unwrap_or((line, ""));
        let nodes: Option<_> = fields.split_ascii_whitespace().map(field).collect();
        Ok((kind.to_owned(), nodes.ok_or_else(|| format!("not `N0=NUMBER`: `{fields}`"))?))
    };
    parse_lines::<_, String>(text, line).map(|lines| lines.into_iter().collect())
}

/// The pids in a folder and those below it. A folder that vanishes has none.
fn processes_of(root: &Root, folder: &Path) -> Result<BTreeSet<u32>, ReadError> {
    let mut pids = match root.parse(folder.join("cgroup.procs"), parse_pids) {
        // A threaded group: its processes are listed in the group that it belongs to.
        Err(ReadError::Io { errno: Errno::EOPNOTSUPP, .. }) => BTreeSet::new(),
        result => result?,
    };
    for name in root.names(folder)? {
        let inner = folder.join(name);
        if !root.path(&inner).is_dir() {
            continue;
        }
        match processes_of(root, &inner) {
            Ok(inner) => pids.extend(inner),
            Err(ReadError::NotFound { .. } | ReadError::Io { errno: Errno::ENODEV, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

/// Reads the text of cgroup.procs. A 0 is a process in a namespace that we cannot see into.
fn parse_pids(text: &str) -> Result<BTreeSet<u32>, Malformed> {
    let pids = parse_lines(text, |line| line.parse::<u32>())?;
    Ok(pids.into_iter().filter(|pid| *pid != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    /// `/sys/fs/cgroup` with a service that has a worker below it.
    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/self/mountinfo",
            "26 23 0:24 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        write("proc/41/cgroup", "1:name=systemd:/x\n0::/system.slice/a:b.service\n");
        let group = "sys/fs/cgroup/system.slice";
        write("sys/fs/cgroup/cgroup.procs", "1\n");
        write(&format!("{group}/cgroup.procs"), "");
        write(&format!("{group}/cpuset.mems.effective"), "0-1\n");
        write(&format!("{group}/a:b.service/cgroup.procs"), "41\n0\n");
        write(&format!("{group}/a:b.service/worker/cgroup.procs"), "43\n42\n");
        write(
            &format!("{group}/a:b.service/memory.numa_stat"),
            "anon N0=4096 N1=8192\ncooled N0=1 N1=2\n",
        );
        folder
    }

    #[test]
    fn a_group_has_its_own_processes_and_those_below_it() {
        let folder = tree();
        let root = Root::new(folder.path());
        let group = Cgroup::open(&root, "/sys/fs/cgroup/system.slice").unwrap();
        assert_eq!(group.processes().unwrap(), [41, 42, 43]);
        let same = Cgroup::open(&root, "system.slice").unwrap();
        assert_eq!(same, group);
        assert_eq!(Cgroup::open(&root, "/").unwrap().processes().unwrap(), [1, 41, 42, 43]);
    }

    #[test]
    fn the_group_of_a_process_is_found_though_its_name_has_a_colon() {
        let folder = tree();
        let group = Cgroup::of_process(&Root::new(folder.path()), 41).unwrap();
        assert_eq!(group.path(), PathBuf::from("/system.slice/a:b.service"));
    }

    #[test]
    fn a_group_without_cpuset_has_that_of_the_group_above() {
        let folder = tree();
        let group = Cgroup::of_process(&Root::new(folder.path()), 41).unwrap();
        assert_eq!(group.mems().unwrap().unwrap().to_string(), "0-1");
        assert_eq!(group.cpus().unwrap(), None);
    }

    #[test]
    fn memory_is_told_by_kind_and_node_and_unknown_kinds_survive() {
        let folder = tree();
        let root = Root::new(folder.path());
        let stat = Cgroup::of_process(&root, 41).unwrap().numa_stat().unwrap().unwrap();
        let node = |raw| NodeId::new(raw).unwrap();
        assert_eq!(stat["anon"], BTreeMap::from([(node(0), 4096), (node(1), 8192)]));
        assert_eq!(stat["cooled"][&node(1)], 2);
        assert_eq!(Cgroup::open(&root, "/").unwrap().numa_stat().unwrap(), None);
    }

    #[test]
    fn a_path_outside_the_hierarchy_is_no_group() {
        let folder = tree();
        let root = Root::new(folder.path());
        for path in ["nowhere", "../../../proc", "/system.slice/../.."] {
            let error = Cgroup::open(&root, path).unwrap_err().to_string();
            assert_eq!(error, format!("{path} is not a control group under /sys/fs/cgroup"));
        }
    }

    #[test]
    fn without_cgroup_v2_the_error_says_what_to_do() {
        let folder = tree();
        fs::write(folder.path().join("proc/self/mountinfo"), "").unwrap();
        let error = Cgroup::open(&Root::new(folder.path()), "/").unwrap_err();
        assert!(matches!(error, CgroupError::NotMounted), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(
            text in "([a-z0-9]{1,4}[: ](N?[0-9]{1,5}[=:][0-9]{0,25} ?){0,3}\n|\
                [ -~]{0,30}\n){0,5}"
        ) {
            let _ = parse_membership(&text);
            let _ = parse_numa_stat(&text);
            let _ = parse_pids(&text);
        }
    }
}
