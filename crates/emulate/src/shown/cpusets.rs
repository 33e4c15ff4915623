//! The cpuset of the program's cgroup: the CPUs and nodes that hwloc believes it may use.
//!
//! Only files that this computer has are shown, of the cgroup that the program is started in and
//! those above it.
//!
//! Source: cgroups(7), cpuset(7); kernel, Documentation/admin-guide/cgroup-v2.rst, "Cpuset".

use std::path::{Path, PathBuf};

use model::Machine;

use super::host::host;
use super::tree::{Entry, Tree};

/// Where the hierarchies are mounted, by the name of the controller in `/proc/PID/cgroup`.
pub(super) const MOUNTS: [(&str, &str); 3] =
    [("", "/sys/fs/cgroup"), ("", "/sys/fs/cgroup/unified"), ("cpuset", "/sys/fs/cgroup/cpuset")];

/// Files, and whether they are about CPUs.
const FILES: [(&str, &str, bool); 6] = [
    ("", "cpuset.cpus.effective", true),
    ("", "cpuset.mems.effective", false),
    ("cpuset", "cpuset.cpus", true),
    ("cpuset", "cpuset.effective_cpus", true),
    ("cpuset", "cpuset.mems", false),
    ("cpuset", "cpuset.effective_mems", false),
];

/// Adds them, and says which they are.
pub(crate) fn add(tree: &mut Tree, machine: &Machine) -> Vec<PathBuf> {
    let mut added = Vec::new();
    for (controller, folder) in folders(&host("/proc/self/cgroup")) {
        for (_, name, is_cpus) in FILES.iter().filter(|file| file.0 == controller) {
            let path = folder.join(name);
            if path.is_file() {
                let topology = machine.topology();
                let text = match is_cpus {
                    true => topology.cpus().to_string(),
                    false => topology.memory_nodes().to_string(),
                };
                tree.add(&path, Entry::Text(0o444, format!("{text}\n")));
                added.push(path);
            }
        }
    }
    added
}

/// Folders of the cgroups in `cgroup` (the text of `/proc/PID/cgroup`), and those above them.
fn folders(cgroup: &str) -> Vec<(&'static str, PathBuf)> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for (name, mount) in MOUNTS.iter().filter(|(name, _)| *name == controllers) {
            let path = Path::new(path.trim_start_matches('/'));
            folders.extend(path.ancestors().map(|above| (*name, Path::new(mount).join(above))));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_and_those_above_it_are_looked_at_in_every_hierarchy() {
        let found = folders("4:memory:/x\n3:cpuset:/\n0::/a/b\n");
        let paths: Vec<_> = found.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        let expected = [
            "/sys/fs/cgroup/cpuset/",
            "/sys/fs/cgroup/a/b",
            "/sys/fs/cgroup/a",
            "/sys/fs/cgroup/",
            "/sys/fs/cgroup/unified/a/b",
            "/sys/fs/cgroup/unified/a",
            "/sys/fs/cgroup/unified/",
        ];
        assert_eq!(paths, expected);
    }
}
