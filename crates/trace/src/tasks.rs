//! Names and processes of the threads in whose context events happen.
//!
//! An event has a thread's number only. It is looked up when it is first seen, and again after a
//! second, for a thread can take another program, and its number go to another. One that has exited
//! meanwhile is looked for in the lists that the kernel keeps for tracing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use linux::Root;
use linux::cgroup::Cgroup;
use linux::proc::status;
use linux::tracefs::Tracefs;

/// For so long, by the clock of the trace, an answer is taken for true.
const FRESH_NS: u64 = 1_000_000_000;

/// What is known of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its process.
    pub(crate) pid: Option<u32>,
    /// Its name; empty when unknown.
    pub(crate) name: String,
    /// The path of its control group, if that was asked for.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Looks threads up.
#[derive(Debug)]
pub(crate) struct Tasks {
    root: Root,
    tracefs: Option<Tracefs>,
    wants_cgroups: bool,
    /// With the time of the look.
    known: BTreeMap<u32, (u64, Task)>,
}

impl Tasks {
    pub(crate) fn new(root: Root, tracefs: Option<Tracefs>, wants_cgroups: bool) -> Self {
        Self { root, tracefs, wants_cgroups, known: BTreeMap::new() }
    }

    /// What is known of a thread at this time.
    pub(crate) fn get(&mut self, tid: u32, now_ns: u64) -> &Task {
        let is_fresh = |(looked, _): &(u64, Task)| now_ns.saturating_sub(*looked) < FRESH_NS;
        if !self.known.get(&tid).is_some_and(is_fresh) {
            let before = self.known.remove(&tid).map(|(_, task)| task);
            let task = self.look(tid).or(before).unwrap_or_else(|| self.look_back(tid));
            self.known.insert(tid, (now_ns, task));
        }
        &self.known.entry(tid).or_default().1
    }

    fn look(&self, tid: u32) -> Option<Task> {
        let status = status::read(&self.root, tid).ok()?;
        let cgroup = self.wants_cgroups.then(|| Cgroup::of_process(&self.root, tid).ok()).flatten();
        let cgroup = cgroup.map(|cgroup| cgroup.path());
        Some(Task { pid: Some(status.tgid), name: status.name, cgroup })
    }

    /// What the kernel's tracing remembers of a thread that has exited: `TID NAME`, `TID TGID`.
    fn look_back(&self, tid: u32) -> Task {
        if tid == 0 {
            return Task { pid: Some(0), name: "swapper".to_owned(), cgroup: None };
        }
        let find = |file: &str| {
            let text = self.tracefs.as_ref()?.read(file).ok()?;
            let of_tid = |line: &str| {
                let (number, value) = line.split_once(' ')?;
                (number.parse() == Ok(tid)).then(|| value.to_owned())
            };
            text.lines().find_map(of_tid)
        };
        let name = find("saved_cmdlines").filter(|name| name != "<...>").unwrap_or_default();
        let pid = find("saved_tgids").and_then(|tgid| tgid.parse().ok());
        Task { pid, name, cgroup: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn status(name: &str) -> String {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let rest = text.split_once('\n').unwrap().1;
        format!("Name:\t{name}\n{rest}")
    }

    #[test]
    fn a_name_is_looked_up_again_after_a_second_and_kept_when_the_thread_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path().join("proc/7");
        fs::create_dir_all(&proc).unwrap();
        let file = proc.join("status");
        fs::write(&file, status("sh")).unwrap();
        let mut tasks = Tasks::new(Root::new(folder.path()), None, false);
        assert_eq!(tasks.get(7, 0).name, "sh");
        fs::write(&file, status("migratepages")).unwrap();
        assert_eq!(tasks.get(7, FRESH_NS - 1).name, "sh");
        assert_eq!(tasks.get(7, FRESH_NS).name, "migratepages");
        fs::remove_dir_all(&proc).unwrap();
        assert_eq!(tasks.get(7, 9 * FRESH_NS).name, "migratepages");
        assert_eq!(*tasks.get(8, 0), Task::default());
    }
}
