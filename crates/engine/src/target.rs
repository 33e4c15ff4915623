//! The target: one process, found by pid or name, and held by a pidfd.
//!
//! Its number may be given to another process at any time after it has exited; the pidfd, the start
//! time and the boot id tell the two apart.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use linux::calls::open_pidfd;
use linux::cgroup::{Cgroup, CgroupError};
use linux::proc::{cmdline, processes, stat, sysctl, task};
use linux::{Errno, ReadError, Root};
use machine::printable;
use serde::{Deserialize, Serialize};

/// Which process: a pid, and what tells it from another under the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetId {
    /// Its number.
    pub pid: u32,
    /// Its command name, as in `/proc/PID/comm`.
    pub name: String,
    /// When it started: clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time_ticks: u64,
    /// The boot in which it runs.
    pub boot_id: String,
}

/// An opened process.
#[derive(Debug)]
pub struct Target {
    /// Which process it is.
    pub id: TargetId,
    /// Refers to this process and never to a successor.
    pub pidfd: OwnedFd,
}

/// Why there is no such target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// No process has the number.
    #[error("no process {pid}: it has exited, or never was")]
    NoProcess {
        /// The number.
        pid: u32,
    },
    /// A kernel thread.
    #[error("process {pid} ({}) is a kernel thread: it has no memory of its own", printable(name))]
    NoMemory {
        /// The number.
        pid: u32,
        /// The name.
        name: String,
    },
    /// No process has the name.
    #[error("no process is called `{name}`: give a pid, or a name as `ps -e` shows it")]
    NoName {
        /// The name.
        name: String,
    },
    /// Several processes have the name.
    #[error("{} processes are called `{name}`: choose one of the pids {}", pids.len(), list(pids))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their pids.
        pids: Vec<u32>,
    },
    /// The process of a plan or a record is not the one that has its number now.
    #[error(
        "process {pid} is not the one that the plan was made for: that one, {}, has exited",
        printable(name)
    )]
    Replaced {
        /// The number.
        pid: u32,
        /// The name of the earlier process.
        name: String,
    },
    /// Nothing in the cgroup, or in those below it, has memory.
    #[error("the cgroup {path} has no processes")]
    EmptyCgroup {
        /// The cgroup as it was named.
        path: String,
    },
    /// The cgroup is not there, or cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// pidfd_open(2) failed.
    #[error("cannot hold process {pid} by a pidfd: {errno}")]
    Pidfd {
        /// The number.
        pid: u32,
        /// What the kernel said.
        errno: Errno,
    },
}

fn list(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

impl Target {
    /// Opens the process that has this pid now.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub fn open(root: &Root, pid: u32) -> Result<Self, TargetError> {
        let gone = || TargetError::NoProcess { pid };
        let pidfd = open_pidfd(pid).map_err(|error| match Errno::from(&error) {
            Errno::ESRCH | Errno::EINVAL => gone(),
            errno => TargetError::Pidfd { pid, errno },
        })?;
        let stat = match stat::read(root, pid) {
            Err(ReadError::NoProcess { .. }) => return Err(gone()),
            result => result?,
        };
        let thread = match task::with_memory(root, pid) {
            Err(ReadError::NoProcess { .. }) => return Err(gone()),
            result => result?,
        };
        // Asked after the read: had the pid changed hands in between, the pidfd would say so.
        if linux::calls::has_exited(&pidfd).unwrap_or(true) {
            return Err(gone());
        }
        if thread.is_none() {
            return Err(TargetError::NoMemory { pid, name: stat.name });
        }
        let id = TargetId {
            pid,
            name: stat.name,
            start_time_ticks: stat.start_ticks,
            boot_id: sysctl::boot_id(root)?,
        };
        Ok(Self { id, pidfd })
    }

    /// Opens the process that a plan or a record speaks of.
    ///
    /// # Errors
    ///
    /// [`TargetError::Replaced`] when its number belongs to another one now; [`TargetError`] else.
    pub fn reopen(root: &Root, id: &TargetId) -> Result<Self, TargetError> {
        let target = Self::open(root, id.pid)?;
        let same =
            target.id.start_time_ticks == id.start_time_ticks && target.id.boot_id == id.boot_id;
        if same {
            Ok(target)
        } else {
            Err(TargetError::Replaced { pid: id.pid, name: id.name.clone() })
        }
    }

    /// Opens the one process that `text` names: a pid, a command name, or the file name of its
    /// program.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub fn find(root: &Root, text: &str) -> Result<Self, TargetError> {
        if let Ok(pid) = text.parse() {
            return Self::open(root, pid);
        }
        let name = || text.to_owned();
        let pids = pids_called(root, text)?;
        match pids.as_slice() {
            [] => Err(TargetError::NoName { name: name() }),
            [pid] => Self::open(root, *pid),
            _ => Err(TargetError::Ambiguous { name: name(), pids }),
        }
    }
}

/// Every process of a cgroup and those below it.
///
/// # Errors
///
/// [`TargetError`].
pub fn pids_of_cgroup(root: &Root, path: &str) -> Result<Vec<u32>, TargetError> {
    Ok(Cgroup::open(root, path)?.processes()?)
}

/// Processes by command name or by the file name of their program; not this one.
fn pids_called(root: &Root, name: &str) -> Result<Vec<u32>, TargetError> {
    let mut pids = BTreeSet::new();
    for pid in processes::pids(root)?.into_iter().filter(|&pid| pid != std::process::id()) {
        let by_command = stat::read(root, pid).is_ok_and(|stat| stat.name == name);
        let by_program = || {
            let arguments = cmdline::read(root, pid).unwrap_or_default();
            let program = arguments.first().map_or("", String::as_str);
            program.rsplit('/').next() == Some(name)
        };
        if by_command || by_program() {
            pids.insert(pid);
        }
    }
    Ok(pids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_pid_and_is_the_same_when_reopened() {
        let root = Root::default();
        let target = Target::find(&root, &std::process::id().to_string()).unwrap();
        assert_eq!(Target::reopen(&root, &target.id).unwrap().id, target.id);
    }

    #[test]
    fn a_process_that_started_at_another_time_is_another_process() {
        let root = Root::default();
        let mut id = Target::open(&root, std::process::id()).unwrap().id;
        id.start_time_ticks += 1;
        assert!(matches!(Target::reopen(&root, &id), Err(TargetError::Replaced { .. })));
    }

    #[test]
    fn an_unknown_pid_and_an_unknown_name_are_named_in_the_error() {
        let root = Root::default();
        let error = Target::find(&root, "4194305").unwrap_err();
        assert!(error.to_string().contains("4194305"), "{error}");
        let error = Target::find(&root, "no such name").unwrap_err();
        assert!(error.to_string().contains("`no such name`"), "{error}");
        assert!(Target::find(&root, "0").is_err(), "0 is the caller, not a process");
    }
}
