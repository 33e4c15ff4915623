//! Puts a guest back to how it was when it began to serve, so that one boot serves many runs that
//! do not trust each other: processes are killed, mounts and cgroups taken away, hugetlb pools and
//! settings of memory written back. Files stay: the lab has put them there.
//!
//! Called by the serving agent, and only in process 1: it kills everything else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

const CGROUPS: &str = "/sys/fs/cgroup";
const TRACES: &str = "/sys/kernel/tracing/instances";
const NODES: &str = "/sys/devices/system/node";
const SETTINGS: [&str; 9] = [
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/vm/nr_overcommit_hugepages",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/zone_reclaim_mode",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/numa/demotion_enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];
/// How often something that must end soon is tried, a millisecond apart.
const TRIES: u32 = 20_000;

/// How the guest was.
#[derive(Debug)]
pub(crate) struct Baseline {
    mounts: BTreeSet<PathBuf>,
    settings: Vec<(PathBuf, String)>,
}

impl Baseline {
    /// As it is now. A setting that this kernel lacks is not kept.
    pub(crate) fn take() -> Self {
        let files = SETTINGS.iter().map(PathBuf::from).chain(pools());
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).ok()?;
            Some((file, chosen(&text).to_owned()))
        };
        Self {
            mounts: mounts().unwrap_or_default().into_iter().collect(),
            settings: files.filter_map(read).collect(),
        }
    }

    /// Puts everything back.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be put back, in one line.
    pub(crate) fn restore(&self) -> Result<(), String> {
        if std::process::id() != 1 {
            return Err("cannot reset a computer that is no guest".to_owned());
        }
        end_everyone()?;
        for mount in mounts().map_err(said("read the mounts"))?.into_iter().rev() {
            if !self.mounts.contains(&mount) {
                unmount(&mount, UnmountFlags::DETACH)
                    .map_err(|error| format!("cannot unmount {}: {error}", mount.display()))?;
            }
        }
        remove_folders(Path::new(CGROUPS)).map_err(said("remove the cgroups"))?;
        remove_folders(Path::new(TRACES)).map_err(said("remove the trace instances"))?;
        for (file, text) in &self.settings {
            let is = fs::read_to_string(file).unwrap_or_default();
            if chosen(&is) != text {
                fs::write(file, text).map_err(|error| {
                    format!("cannot write {text} to {}: {error}", file.display())
                })?;
            }
        }
        Ok(())
    }
}

fn said(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// The word of a setting: the one in brackets, where all are listed.
fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text.trim(), |(word, _)| word)
}

/// The files with the sizes of all hugetlb pools.
fn pools() -> Vec<PathBuf> {
    let folders = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let nodes = folders(NODES.into()).into_iter();
    let sizes = nodes.flat_map(|node| folders(node.join("hugepages")));
    sizes.map(|size| size.join("nr_hugepages")).collect()
}

/// Mount points, in the order in which they were mounted.
fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points.map(|point| PathBuf::from(point.replace("\\040", " "))).collect())
}

/// Kills every process but this one, until none is left.
fn end_everyone() -> Result<(), String> {
    for _ in 0..TRIES {
        let others = others().map_err(said("list the processes"))?;
        if others.is_empty() {
            return Ok(());
        }
        for pid in others {
            // One that has ended meanwhile is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("cannot end all processes: one does not die".to_owned())
}

/// Processes that have memory of their own: no kernel threads, and none that is dead.
fn others() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.filter(|&pid| pid != 1).and_then(Pid::from_raw) else { continue };
        let status = fs::read_to_string(Path::new("/proc").join(&name).join("status"));
        if status.is_ok_and(|status| status.contains("\nVmSize:")) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Removes the folders below one, innermost first. The kernel's own files in them go along.
fn remove_folders(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folders(&entry.path())?;
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

/// A group is busy until the last of its dead has left it.
fn remove_folder(path: &Path) -> io::Result<()> {
    for _ in 1..TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_process_one_of_a_guest_may_reset() {
        assert!(Baseline::take().restore().unwrap_err().contains("no guest"));
    }

    #[test]
    fn we_are_not_alone_and_kernel_threads_do_not_count() {
        let own = std::process::id().cast_signed();
        assert!(others().unwrap().iter().any(|pid| pid.as_raw_nonzero().get() == own));
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounts().unwrap().contains(&PathBuf::from("/")));
    }
}
