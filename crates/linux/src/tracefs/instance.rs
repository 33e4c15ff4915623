//! A trace instance of our own: ring buffers that nobody else reads, removed when we are done.
//!
//! Its name is `pagetide-PID-START`, with the start time of the process that made it. So one that a
//! crash or a SIGKILL left behind is known: its process is gone. [`Tracefs::remove_leftovers`]
//! removes those. One whose maker lives in a pid namespace that we do not see looks like a leftover
//! too; the kernel refuses to remove it (`EBUSY`) while its maker holds its files open.
//!
//! Events go to the instance from the moment they are enabled, and cost every migration of the
//! machine a little until it is removed. [`Drop`] removes it, on a panic too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

use super::error::refused;
use super::{TraceError, Tracefs};
use crate::proc::stat;
use crate::{Errno, Malformed};

const PREFIX: &str = "pagetide-";

/// A set of ring buffers, one a CPU.
#[derive(Debug)]
pub struct Instance {
    tracefs: Tracefs,
    /// Under [`crate::Root`].
    dir: PathBuf,
}

/// What the kernel counted in the buffer of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Events that were lost: overwritten before they were read, or that found no room.
    pub lost: u64,
    /// Events that were read.
    pub read: u64,
    /// Events that wait to be read.
    pub waiting: u64,
}

impl Tracefs {
    /// Makes an instance for this process. It traces nothing yet.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn make_instance(&self) -> Result<Instance, TraceError> {
        let pid = process::id();
        let start = stat::read(&self.root, pid)?.start_ticks;
        let dir = self.dir.join("instances").join(format!("{PREFIX}{pid}-{start}"));
        let path = self.root.path(&dir);
        fs::create_dir(&path).map_err(|error| self.failed("make", path, &error))?;
        Ok(Instance { tracefs: self.clone(), dir })
    }

    /// Removes the instances of earlier runs that could not do it themselves, and gives their names.
    ///
    /// # Errors
    ///
    /// [`TraceError`], when the instances cannot be listed. One that cannot be removed stays.
    pub fn remove_leftovers(&self) -> Result<Vec<String>, TraceError> {
        let instances = self.dir.join("instances");
        let names = self.root.names(&instances).map_err(|error| self.explain(error))?;
        let is_leftover = |name: &String| {
            let maker = name.strip_prefix(PREFIX).and_then(|maker| maker.split_once('-'));
            let numbers =
                maker.and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
            numbers.is_some_and(|(pid, start): (u32, u64)| {
                !stat::read(&self.root, pid).is_ok_and(|stat| stat.start_ticks == start)
            })
        };
        let mut removed = Vec::new();
        for name in names.into_iter().filter(is_leftover) {
            if fs::remove_dir(self.root.path(instances.join(&name))).is_ok() {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    fn failed(&self, tried: &str, path: PathBuf, error: &io::Error) -> TraceError {
        match Errno::from(error) {
            errno @ (Errno::EPERM | Errno::EACCES) => refused(path, errno, || {
                self.root.read("sys/kernel/security/lockdown").unwrap_or_default()
            }),
            errno => TraceError::Io { tried: tried.to_owned(), path, errno },
        }
    }
}

impl Instance {
    /// Its name, by which it can be seen in `instances`.
    #[must_use]
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Writes to one of its files.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn write(&self, file: impl AsRef<Path>, text: &str) -> Result<(), TraceError> {
        let path = self.path(file);
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut opened| opened.write_all(text.as_bytes()));
        written.map_err(|error| self.tracefs.failed(&format!("write {text} to"), path, &error))
    }

    /// Reads one of its files whole.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn read(&self, file: impl AsRef<Path>) -> Result<String, TraceError> {
        let path = self.dir.join(file);
        self.tracefs.root.read(path).map_err(|error| self.tracefs.explain(error))
    }

    /// All CPUs that can ever be. One that has not been online since the instance was made has no buffer
    /// yet: a read of its pipe gives `ENODEV`.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn cpus(&self) -> Result<Vec<u32>, TraceError> {
        let root = &self.tracefs.root;
        let numbers = root
            .numbers(self.dir.join("per_cpu"), "cpu", "")
            .map_err(|error| self.tracefs.explain(error))?;
        Ok(numbers.into_iter().filter_map(|cpu| u32::try_from(cpu).ok()).collect())
    }

    /// Opens the buffer of a CPU. A read of a whole page gives a page for [`super::ring`]; it never
    /// waits, and fails with `WouldBlock` when there is none.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn open_pipe(&self, cpu: u32) -> Result<File, TraceError> {
        let path = self.path(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| self.tracefs.failed("open", path, &error))
    }

    /// What the kernel counted on a CPU since the instance was made.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn stats(&self, cpu: u32) -> Result<CpuStats, TraceError> {
        let file = self.dir.join(format!("per_cpu/cpu{cpu}/stats"));
        let stats = self.tracefs.root.parse(file, parse_stats);
        stats.map_err(|error| self.tracefs.explain(error))
    }

    /// Removes it. Its pipes must be closed.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn remove(self) -> Result<(), TraceError> {
        let path = self.path("");
        let removed = fs::remove_dir(&path);
        let result = removed.map_err(|error| self.tracefs.failed("remove", path, &error));
        std::mem::forget(self);
        result
    }

    fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.tracefs.root.path(self.dir.join(file))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Whoever wants to know calls `remove`; what stays is removed at the next start.
        let _ = fs::remove_dir(self.path(""));
    }
}

/// Reads the text of `per_cpu/cpuN/stats`; a line that it lacks counts nothing.
///
/// # Errors
///
/// When a line that we want has no number.
fn parse_stats(text: &str) -> Result<CpuStats, Malformed> {
    let mut stats = CpuStats::default();
    for (at, line) in text.lines().enumerate() {
        let Some((name, number)) = line.split_once(": ") else { continue };
        let counter = match name {
            "overrun" | "commit overrun" | "dropped events" => &mut stats.lost,
            "read events" => &mut stats.read,
            "entries" => &mut stats.waiting,
            _ => continue,
        };
        let number: u64 = number.trim().parse().map_err(|error| Malformed::new(at + 1, error))?;
        *counter = counter.saturating_add(number);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;

    /// A folder with `instances`, which stands for a tracefs, and the real `/proc`.
    fn tracefs() -> (tempfile::TempDir, Tracefs) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("instances")).unwrap();
        let tracefs = Tracefs { root: Root::default(), dir: folder.path().to_path_buf() };
        (folder, tracefs)
    }

    fn instances(folder: &tempfile::TempDir) -> Vec<String> {
        Root::new(folder.path()).names("instances").unwrap()
    }

    #[test]
    fn an_instance_is_gone_when_it_is_dropped_also_by_a_panic() {
        let (folder, tracefs) = tracefs();
        let instance = tracefs.make_instance().unwrap();
        assert_eq!(instances(&folder), [instance.name()]);
        drop(instance);
        assert!(instances(&folder).is_empty());
        let panicked = std::thread::spawn(move || {
            let _instance = tracefs.make_instance().unwrap();
            panic!("midway");
        });
        assert!(panicked.join().is_err());
        assert!(instances(&folder).is_empty());
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_those_of_the_living_and_of_others_stay() {
        let (folder, tracefs) = tracefs();
        let living = tracefs.make_instance().unwrap();
        let recycled = format!("pagetide-{}-1", process::id());
        let kept = ["pagetide-x-1", "pagetide-7", "somebody"];
        for name in ["pagetide-4194305-7", recycled.as_str()].iter().chain(&kept) {
            fs::create_dir(folder.path().join("instances").join(name)).unwrap();
        }
        let mut removed = tracefs.remove_leftovers().unwrap();
        removed.sort_unstable();
        let mut expected = vec!["pagetide-4194305-7".to_owned(), recycled];
        expected.sort_unstable();
        assert_eq!(removed, expected);
        assert_eq!(instances(&folder).len(), kept.len() + 1);
        assert!(instances(&folder).contains(&living.name()));
    }

    #[test]
    fn what_was_lost_is_the_sum_of_the_three_ways_to_lose_an_event() {
        let text = "entries: 4\noverrun: 10\ncommit overrun: 1\nbytes: 256\n\
            oldest event ts:     6.071036\ndropped events: 100\nread events: 9\n";
        let stats = parse_stats(text).unwrap();
        assert_eq!(stats, CpuStats { lost: 111, read: 9, waiting: 4 });
        assert_eq!(parse_stats("overrun: many\n").unwrap_err().line, 1);
    }
}
