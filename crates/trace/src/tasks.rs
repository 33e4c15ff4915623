//! Names and processes of the threads in whose context events happen.
//!
//! An event has a thread's number only. It is looked up when it is first seen, and again after a
//! second, for a thread can take another program, and its number go to another. One that has exited
//! meanwhile is looked for in the lists that the kernel keeps for tracing.
//!
//! A number that a system call names is one of the caller's pid namespace: 1 is another process for each
//! container. Source: pid_namespaces(7); proc(5), `NSpid`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use linux::Root;
use linux::cgroup::Cgroup;
use linux::proc::{processes, status};
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
    /// Its numbers in the pid namespaces from ours to its own; none when it was gone before it was looked at.
    pub(crate) numbers: Vec<u32>,
    /// The pid namespace that it is in, if that is further in than ours and may be seen.
    pub(crate) namespace: Option<u64>,
}

/// Looks threads up.
#[derive(Debug)]
pub(crate) struct Tasks {
    root: Root,
    tracefs: Option<Tracefs>,
    wants_cgroups: bool,
    /// With the time of the look.
    known: BTreeMap<u32, (u64, Task)>,
    /// Processes of pid namespaces further in than ours, with the time of the look.
    inner: Option<(u64, Vec<Task>)>,
}

impl Tasks {
    pub(crate) fn new(root: Root, tracefs: Option<Tracefs>, wants_cgroups: bool) -> Self {
        Self { root, tracefs, wants_cgroups, known: BTreeMap::new(), inner: None }
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

    /// The process that a call of the thread `caller` names by `number`; `None`: nobody can tell.
    pub(crate) fn called(&mut self, caller: u32, number: u32, now_ns: u64) -> Option<u32> {
        let Task { pid, numbers, namespace, .. } = self.get(caller, now_ns).clone();
        let is_ours = match numbers.as_slice() {
            _ if number == 0 => return pid,
            [_] => true,
            // It has gone: the number is ours if it can be nobody else's.
            [] => !self.inner(now_ns).iter().any(|task| task.numbers[1..].contains(&number)),
            [.., own] if *own == number => return pid,
            _ => false,
        };
        if is_ours {
            return self.get(number, now_ns).pid.or(Some(number));
        }
        let is_meant =
            |task: &&Task| task.namespace == namespace && task.numbers.last() == Some(&number);
        self.inner(now_ns).iter().find(is_meant).filter(|task| task.namespace.is_some())?.pid
    }

    /// The processes of pid namespaces further in than ours.
    fn inner(&mut self, now_ns: u64) -> &[Task] {
        let is_fresh = |(looked, _): &(u64, _)| now_ns.saturating_sub(*looked) < FRESH_NS;
        if !self.inner.as_ref().is_some_and(is_fresh) {
            let pids = processes::pids(&self.root).unwrap_or_default();
            let tasks = pids.into_iter().filter_map(|pid| self.look(pid));
            let inner = tasks.filter(|task| task.numbers.len() > 1).collect();
            self.inner = Some((now_ns, inner));
        }
        self.inner.as_ref().map_or(&[], |(_, inner)| inner)
    }

    fn look(&self, tid: u32) -> Option<Task> {
        let status = status::read(&self.root, tid).ok()?;
        let cgroup = self.wants_cgroups.then(|| Cgroup::of_process(&self.root, tid).ok()).flatten();
        let cgroup = cgroup.map(|cgroup| cgroup.path());
        let numbers = status.namespace_pids;
        let namespace = (numbers.len() > 1).then(|| self.pid_namespace(tid)).flatten();
        Some(Task { pid: Some(status.tgid), name: status.name, cgroup, numbers, namespace })
    }

    /// The file leads to the namespace itself, whose number is its inode's.
    fn pid_namespace(&self, tid: u32) -> Option<u64> {
        Some(fs::metadata(self.root.path(format!("proc/{tid}/ns/pid"))).ok()?.ino())
    }

    /// What the kernel's tracing remembers of a thread that has exited: `TID NAME`, `TID TGID`.
    fn look_back(&self, tid: u32) -> Task {
        if tid == 0 {
            return Task { pid: Some(0), name: "swapper".to_owned(), ..Task::default() };
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
        Task { pid, name, ..Task::default() }
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

    /// Processes by their numbers from the namespace of the root on, each with the name of its own namespace.
    fn root_with(processes: &[(&[u32], &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (numbers, namespace) in processes {
            let [pid, list] = [&numbers[..1], numbers]
                .map(|all| all.iter().map(u32::to_string).collect::<Vec<_>>().join("\t"));
            let proc = folder.path().join("proc").join(&pid);
            fs::create_dir_all(proc.join("ns")).unwrap();
            let text = status(&format!("p{pid}"));
            let lines = text.lines().map(|line| match line.split_once(':').unwrap().0 {
                name @ ("Tgid" | "Pid") => format!("{name}:\t{pid}\n"),
                "NSpid" => format!("NSpid:\t{list}\n"),
                _ => format!("{line}\n"),
            });
            fs::write(proc.join("status"), lines.collect::<String>()).unwrap();
            let namespace = folder.path().join(namespace);
            fs::write(&namespace, "").unwrap();
            fs::hard_link(namespace, proc.join("ns/pid")).unwrap();
        }
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn a_number_that_a_call_names_is_one_of_the_pid_namespace_of_its_caller() {
        let (_folder, root) = root_with(&[
            (&[1], "ours"),
            (&[40], "ours"),
            (&[300, 1], "another"),
            (&[500, 1], "inner"),
            (&[501, 7], "inner"),
            (&[502, 8, 1], "within inner"),
        ]);
        let mut tasks = Tasks::new(root, None, false);
        let mut called = |caller, number| tasks.called(caller, number, 0);
        assert_eq!([1, 7, 0].map(|number| called(501, number)), [500, 501, 501].map(Some));
        assert_eq!([1, 0].map(|number| called(502, number)), [Some(502); 2]);
        assert_eq!(called(501, 40), None, "nobody there has that number");
        assert_eq!([1, 500, 0].map(|number| called(40, number)), [1, 500, 40].map(Some));
        // A caller that has exited may have been in any of them.
        assert_eq!([1, 8, 0, 40].map(|number| called(99, number)), [None, None, None, Some(40)]);
    }

    #[test]
    fn a_caller_that_has_exited_is_still_known_to_be_in_a_pid_namespace() {
        let (folder, root) =
            root_with(&[(&[1], "ours"), (&[500, 1], "inner"), (&[501, 7], "inner")]);
        let mut tasks = Tasks::new(root, None, false);
        assert_eq!(tasks.called(501, 0, 0), Some(501));
        fs::remove_dir_all(folder.path().join("proc/501")).unwrap();
        assert_eq!(tasks.called(501, 1, 9 * FRESH_NS), Some(500));
    }
}
