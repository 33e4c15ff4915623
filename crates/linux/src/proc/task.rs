//! Reads `/proc/PID/task`: the threads of a process, and where each may run.
//!
//! Threads come and go while the list is read. One that has exited meanwhile is left out.

use machine::{CpuId, CpuSet, NodeSet};

use super::{stat, status};
use crate::{ReadError, Root};

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// Its name; that of the program unless it was given one.
    pub name: String,
    /// CPUs where it may run.
    pub cpus_allowed: CpuSet,
    /// Nodes that its cpuset allows.
    pub mems_allowed: NodeSet,
    /// The CPU on which it ran last.
    pub last_cpu: Option<CpuId>,
}

/// The threads of a process, in order of id.
///
/// # Errors
///
/// [`ReadError`] of the process itself.
pub fn read(root: &Root, pid: u32) -> Result<Vec<Thread>, ReadError> {
    let mut threads = Vec::new();
    for tid in ids(root, pid)? {
        match thread(root, pid, tid) {
            Ok(thread) => threads.push(thread),
            Err(ReadError::NoProcess { .. } | ReadError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if threads.is_empty() { Err(ReadError::NoProcess { pid }) } else { Ok(threads) }
}

/// The ids of the threads of a process, in order.
///
/// # Errors
///
/// [`ReadError`].
pub fn ids(root: &Root, pid: u32) -> Result<Vec<u32>, ReadError> {
    let numbers = root.numbers(super::path(pid, "task"), "", "")?;
    Ok(numbers.into_iter().filter_map(|tid| tid.try_into().ok()).collect())
}

/// The thread by whose number the kernel shows and moves the memory of a process: the first, whose
/// number is the process's, or one that still runs when that has exited. `None` for a kernel thread,
/// and when all have exited.
///
/// # Errors
///
/// [`ReadError`] of the process itself.
pub fn with_memory(root: &Root, pid: u32) -> Result<Option<u32>, ReadError> {
    if status::read(root, pid)?.has_memory() {
        return Ok(Some(pid));
    }
    let has_memory = |tid: &u32| {
        let status = root.parse(super::path(pid, &format!("task/{tid}/status")), status::parse);
        status.is_ok_and(|status| status.has_memory())
    };
    Ok(ids(root, pid)?.into_iter().find(has_memory))
}

fn thread(root: &Root, pid: u32, tid: u32) -> Result<Thread, ReadError> {
    let status = root.parse(super::path(pid, &format!("task/{tid}/status")), status::parse)?;
    let stat = root.parse(super::path(pid, &format!("task/{tid}/stat")), stat::parse)?;
    Ok(Thread {
        tid,
        name: status.name,
        cpus_allowed: status.cpus_allowed,
        mems_allowed: status.mems_allowed,
        last_cpu: stat.last_cpu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_thread_of_our_own_is_listed_with_its_cpus() {
        let root = Root::default();
        let pid = std::process::id();
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let threads = read(&root, pid).unwrap();
        let this = threads.iter().find(|thread| thread.tid.try_into() == Ok(tid)).unwrap();
        assert!(!this.cpus_allowed.is_empty() && !this.mems_allowed.is_empty());
        let cpu = this.last_cpu.unwrap();
        assert!(this.cpus_allowed.contains(cpu), "ran on {cpu}");
    }

    #[test]
    fn the_memory_of_a_process_is_that_of_a_thread_that_runs_when_the_first_has_exited() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("proc/7");
        let running = fs::read_to_string("/proc/self/status").unwrap();
        let has_exited = |status: &str| {
            let fields = status.lines().filter(|line| !line.starts_with("Vm"));
            fields.collect::<Vec<_>>().join("\n")
        };
        for tid in ["7", "8", "9"] {
            fs::create_dir_all(process.join("task").join(tid)).unwrap();
        }
        let root = Root::new(folder.path());
        fs::write(process.join("status"), &running).unwrap();
        assert_eq!(with_memory(&root, 7).unwrap(), Some(7));
        for file in ["status", "task/7/status", "task/8/status"] {
            fs::write(process.join(file), has_exited(&running)).unwrap();
        }
        assert_eq!(with_memory(&root, 7).unwrap(), None);
        fs::write(process.join("task/9/status"), &running).unwrap();
        assert_eq!(with_memory(&root, 7).unwrap(), Some(9));
    }

    #[test]
    fn a_thread_that_ends_while_the_list_is_read_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = folder.path().join("proc/7/task");
        fs::create_dir_all(tasks.join("8")).unwrap();
        fs::create_dir_all(tasks.join("7")).unwrap();
        for file in ["status", "stat"] {
            fs::copy(format!("/proc/self/{file}"), tasks.join("7").join(file)).unwrap();
        }
        let threads = read(&Root::new(folder.path()), 7).unwrap();
        assert_eq!(threads.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [7]);
        fs::remove_dir_all(tasks.join("7")).unwrap();
        let error = read(&Root::new(folder.path()), 7).unwrap_err();
        assert!(matches!(error, ReadError::NoProcess { pid: 7 }), "{error}");
    }
}
