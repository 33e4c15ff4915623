//! What is around the processes of a scenario, set up by the director and put back after the case:
//! cgroups, hugetlb pools, weights of interleaving, KSM, the trace of migrations.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use machine::NodeSet;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use scenario::layout::FIRST_HOG;
use scenario::{Actor, Seen, Step};

use super::board::Board;
use super::error_seen;
use super::part::{Performed, Unable};
use crate::sys::{self, Backing, Rights};

const CGROUPS: &str = "/sys/fs/cgroup";
const NODES: &str = "/sys/devices/system/node";
const WEIGHTS: &str = "/sys/kernel/mm/mempolicy/weighted_interleave";
const KSM: &str = "/sys/kernel/mm/ksm";
const INSTANCE: &str = "/sys/kernel/tracing/instances/pagetide-actor";
/// Whole scans without a merge that show that KSM is done: a page is merged at the second look.
const KSM_SCANS: u64 = 4;
/// Bytes of a THP.
const HUGE_BYTES: u64 = 2 << 20;
/// How often something that must come soon is looked for, a millisecond apart.
const TRIES: u32 = 5000;

/// What every scenario takes for granted, where this kernel has it and we may write it.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/kernel/numa_balancing", "0"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
    // khugepaged, which would make THPs whole again between two steps, sleeps for 49 days.
    ("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4294967295"),
];

/// What a case has changed.
#[derive(Debug, Default)]
pub(crate) struct Around {
    groups: Vec<PathBuf>,
    pools: bool,
    /// Files with what was in them.
    weights: BTreeMap<PathBuf, String>,
    ksm: bool,
    traced: bool,
    /// Settings with what they were.
    settings: Vec<(&'static str, String)>,
}

impl Around {
    /// Performs a step of the director that sets something up; `None`: it is none of these.
    pub(crate) fn perform(&mut self, step: &Step, actor: Actor, board: Board) -> Option<Performed> {
        Some(match step {
            Step::Cgroup { name, mems } => self.make_group(name, mems.as_deref()),
            Step::CgroupSet { name, mems } => {
                let set = set_mems(&group(name), mems);
                Ok(Some(error_seen(set).unwrap_or_else(|| Seen::Text("ok".into()))))
            }
            Step::CgroupJoin { name, who } => join(name, who.unwrap_or(actor), board),
            Step::CgroupEffective { name } => {
                let text = fs::read_to_string(group(name).join("cpuset.mems.effective"));
                text.map(|text| Some(Seen::Text(text.trim().to_owned()))).map_err(Unable::from)
            }
            Step::Pool { node, pages } => {
                let file = pool(&node.to_string()).join("nr_hugepages");
                let written = fs::write(&file, pages.to_string());
                self.pools |= written.is_ok();
                Ok(error_seen(written))
            }
            Step::Pools => pools().map(Some),
            Step::Weight { node, value } => self.weight(*node, value.as_deref()),
            Step::Ksm => self.merge().map(|()| None),
            Step::TraceOn => self.trace_on().map(|()| None),
            Step::Trace => trace().map(Some),
            _ => return None,
        })
    }

    /// Puts everything back. The processes of the case are gone.
    pub(crate) fn restore(&mut self) -> Result<(), Unable> {
        if std::mem::take(&mut self.ksm) {
            // 2: what was merged and still lives is parted again.
            fs::write(Path::new(KSM).join("run"), "2")?;
            fs::write(Path::new(KSM).join("run"), "0")?;
        }
        if std::mem::take(&mut self.pools) {
            // Of every node: a page of a pool that moves takes its place in the pool along.
            for node in nodes_with_memory()?.iter() {
                fs::write(pool(&node.to_string()).join("nr_hugepages"), "0")?;
            }
        }
        while let Some((file, text)) = self.weights.pop_first() {
            fs::write(file, text)?;
            // Linux 6.16: computed by the kernel again, where it knows how fast nodes are.
            let _ = fs::write(Path::new(WEIGHTS).join("auto"), "true");
        }
        while let Some(group) = self.groups.pop() {
            // A group is busy until the last of its dead has left it.
            retry(|| match fs::remove_dir(&group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => None,
                done => Some(done),
            })
            .unwrap_or_else(|| fs::remove_dir(&group))
            .map_err(|error| Unable(format!("remove {}: {error}", group.display())))?;
        }
        Ok(())
    }

    /// Makes the settings that every scenario takes for granted.
    pub(crate) fn settle(&mut self) {
        // With one area to look at, khugepaged has looked before it sleeps; else it would at ours.
        // Reading it makes the huge zero page, here on CPU 0 and its node, for all cases: whoever
        // needs it first chooses where it lies.
        let (address, bytes) = (FIRST_HOG - HUGE_BYTES, HUGE_BYTES);
        let anonymous = Backing::Anonymous { shared: false, hugetlb: false };
        let _ = sys::map(address, bytes, anonymous)
            .and_then(|()| sys::advise(address, bytes, libc::MADV_HUGEPAGE))
            .and_then(|()| sys::advise(address, bytes, libc::MADV_POPULATE_READ))
            .and_then(|()| sys::protect(address, bytes, Rights::None));
        for (file, wanted) in SETTINGS {
            let Ok(was) = fs::read_to_string(file) else { continue };
            if fs::write(file, wanted).is_ok() {
                self.settings.push((file, chosen(&was).to_owned()));
            }
        }
    }

    /// Takes away what lasts longer than a case.
    pub(crate) fn leave(&mut self) {
        for (file, was) in self.settings.drain(..) {
            // It could be written before.
            let _ = fs::write(file, was);
        }
        if std::mem::take(&mut self.traced) {
            // The instance goes with its guest if it will not go now.
            let _ = fs::remove_dir(INSTANCE);
        }
    }

    fn make_group(&mut self, name: &str, mems: Option<&str>) -> Performed {
        let path = group(name);
        if !Path::new(CGROUPS).join("cgroup.controllers").exists() {
            return Err(Unable(format!("{CGROUPS} is no cgroup2 file system")));
        }
        if let Some(parent) = path.parent() {
            fs::write(parent.join("cgroup.subtree_control"), "+cpuset")?;
        }
        fs::create_dir(&path)?;
        self.groups.push(path.clone());
        Ok(mems.and_then(|mems| error_seen(set_mems(&path, mems))))
    }

    fn weight(&mut self, node: u16, value: Option<&str>) -> Performed {
        let file = Path::new(WEIGHTS).join(format!("node{node}"));
        let text = fs::read_to_string(&file).ok();
        let Some(value) = value else {
            let text = text.as_deref().map_or("nofile", str::trim);
            return Ok(Some(Seen::Text(text.to_owned())));
        };
        let written = fs::write(&file, value);
        if let Some(text) = text.filter(|_| written.is_ok()) {
            self.weights.entry(file).or_insert(text);
        }
        Ok(Some(error_seen(written).unwrap_or_else(|| Seen::Text("ok".into()))))
    }

    /// Lets KSM merge what it can, and stops it.
    fn merge(&mut self) -> Result<(), Unable> {
        let file = |name: &str| Path::new(KSM).join(name);
        self.ksm = true;
        fs::write(file("sleep_millisecs"), "0")?;
        fs::write(file("pages_to_scan"), "10000")?;
        let scans = || -> Result<u64, Unable> {
            let text = fs::read_to_string(file("full_scans"))?;
            text.trim().parse().map_err(|_| Unable(format!("KSM has made `{text}` scans")))
        };
        let upto = scans()? + KSM_SCANS;
        fs::write(file("run"), "1")?;
        let done = retry(|| (scans().is_ok_and(|scans| scans >= upto)).then_some(()));
        // What is merged stays merged; whoever writes to it gets a page of its own.
        fs::write(file("run"), "0")?;
        done.ok_or_else(|| Unable("KSM does not come to an end".into()))
    }

    fn trace_on(&mut self) -> Result<(), Unable> {
        let file = |name: &str| Path::new(INSTANCE).join(name);
        if !self.traced {
            fs::create_dir(INSTANCE).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
            self.traced = true;
            fs::write(file("events/migrate/mm_migrate_pages/enable"), "1")?;
        }
        Ok(fs::write(file("trace"), "")?)
    }
}

/// The word of a setting: the one in brackets, where all are listed.
fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text.trim(), |(word, _)| word)
}

fn group(name: &str) -> PathBuf {
    match name {
        "root" => PathBuf::from(CGROUPS),
        name => Path::new(CGROUPS).join(name),
    }
}

fn set_mems(group: &Path, mems: &str) -> io::Result<()> {
    let mems = if mems == "empty" { "\n" } else { mems };
    fs::write(group.join("cpuset.mems"), mems)
}

/// Threads stay on their CPUs: Linux before 6.2 gives those that enter a cpuset all CPUs of it
/// (`cpuset_attach`), and then the scheduler chooses where pages come from.
fn join(name: &str, who: Actor, board: Board) -> Performed {
    let Some(pid) = board.pid(who) else { return Ok(None) };
    let threads = threads_with_cpus(pid);
    let joined = fs::write(group(name).join("cgroup.procs"), pid.to_string());
    for (thread, cpus) in threads {
        // One that has ended meanwhile needs no CPU.
        let _ = sched_setaffinity(Some(thread), &cpus);
    }
    Ok(error_seen(joined))
}

fn threads_with_cpus(pid: u32) -> Vec<(Pid, CpuSet)> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let names = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let threads = names.filter_map(Pid::from_raw);
    threads.filter_map(|thread| Some((thread, sched_getaffinity(Some(thread)).ok()?))).collect()
}

fn pool(node: &str) -> PathBuf {
    Path::new(NODES).join(format!("node{node}/hugepages/hugepages-2048kB"))
}

fn nodes_with_memory() -> Result<NodeSet, Unable> {
    let text = fs::read_to_string(Path::new(NODES).join("has_memory"))?;
    text.trim().parse().map_err(|_| Unable(format!("has_memory is `{text}`")))
}

fn pools() -> Result<Seen, Unable> {
    let mut words = Vec::new();
    for node in nodes_with_memory()?.iter() {
        let read = |file: &str| fs::read_to_string(pool(&node.to_string()).join(file));
        words.push(format!("{}/{}", read("nr_hugepages")?.trim(), read("free_hugepages")?.trim()));
    }
    Ok(Seen::Text(words.join(" ")))
}

/// The events since `trace on`, without time and process.
fn trace() -> Result<Seen, Unable> {
    let text = fs::read_to_string(Path::new(INSTANCE).join("trace"))?;
    let events = text.lines().filter_map(|line| line.split_once("mm_migrate_pages: "));
    Ok(Seen::Quoted(events.map(|(_, event)| event.trim().to_owned()).collect()))
}

/// Looks again and again, a millisecond apart. `None`: it never came.
pub(crate) fn retry<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..TRIES {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_list_the_word_in_brackets_is_chosen() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen("1\n"), "1");
    }
}
