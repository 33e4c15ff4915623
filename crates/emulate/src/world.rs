//! The emulated machine, and the processes that live on it.
//!
//! Processes and threads are met, not announced: by their first call, or when their parent is about
//! to change something that they inherited. The model's tasks have the numbers of the real ones, so
//! that the words of a program can be handed to the model as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::{fs, io, iter};

use linux::proc::maps;
use linux::proc::status::{self, Status};
use linux::{Errno, ReadError, Root};
use machine::{CpuId, CpuSet};
use model::{Machine, TaskId};
use rustix::event::epoll;

use crate::image::{self, Getcpu};
use crate::process::{Known, Process, Thread};
use crate::settle::Files;
use crate::sys;
use crate::target;

/// What a user is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Notice {
    /// Some page has no place.
    Full,
    /// A program of another architecture.
    ThirtyTwoBit,
    /// Some process cannot be followed.
    NotFollowed,
    /// The files of a process are not shown.
    Uncovered,
    /// A program mounts a `/proc` of its own.
    OwnFiles,
}

/// What the supervisor knows.
#[derive(Debug)]
pub(crate) struct World {
    /// The machine of the model.
    pub(crate) machine: Machine,
    /// By process id.
    pub(crate) processes: BTreeMap<u32, Process>,
    /// The process of each thread.
    threads: BTreeMap<u32, u32>,
    /// Files that were seen mapped.
    pub(crate) files: Files,
    /// Processes that were met, or have a new program, since the list was taken last.
    pub(crate) news: BTreeSet<u32>,
    /// Processes whose end was noticed before the kernel told of it.
    pub(crate) ended: BTreeSet<u32>,
    /// What the user was told.
    told: BTreeSet<Notice>,
    root: Root,
    getcpu: Option<Getcpu>,
    is_privileged: bool,
    /// Families of processes so far.
    families: u64,
    /// Tells when a process has ended.
    watch: OwnedFd,
}

impl World {
    /// A booted machine without processes. The descriptors of processes are added to `watch`.
    pub(crate) fn new(machine: Machine, watch: OwnedFd) -> Self {
        let own = status::read(&Root::default(), std::process::id());
        Self {
            machine,
            processes: BTreeMap::new(),
            threads: BTreeMap::new(),
            files: Files::default(),
            news: BTreeSet::new(),
            ended: BTreeSet::new(),
            told: BTreeSet::new(),
            root: Root::default(),
            getcpu: Getcpu::find(),
            is_privileged: own.is_ok_and(|own| own.is_capable(Status::CAP_SYS_NICE)),
            families: 0,
            watch,
        }
    }

    /// Whether programs may have capabilities that count on the machine.
    pub(crate) const fn is_privileged(&self) -> bool {
        self.is_privileged
    }

    /// Tells the user something, the first time.
    pub(crate) fn tell_once(&mut self, notice: Notice, line: &str) {
        if self.told.insert(notice) {
            crate::say(line);
        }
    }

    /// The task of a thread that was met.
    pub(crate) fn task(&self, tid: u32) -> Option<TaskId> {
        self.machine.task(i32::try_from(tid).ok()?)
    }

    /// The process of a thread that was met.
    pub(crate) fn process_of_met(&self, tid: u32) -> Option<u32> {
        self.threads.get(&tid).copied()
    }

    /// The CPUs of the machine.
    pub(crate) fn cpus(&self) -> CpuSet {
        self.machine.topology().cpus()
    }

    /// A thread that was met.
    pub(crate) fn thread(&self, tid: u32) -> Option<&Thread> {
        self.processes.get(self.threads.get(&tid)?)?.threads.get(&tid)
    }

    /// A thread that was met.
    pub(crate) fn thread_mut(&mut self, tid: u32) -> Option<&mut Thread> {
        self.processes.get_mut(self.threads.get(&tid)?)?.threads.get_mut(&tid)
    }

    // ---- meeting ----

    /// The process of a thread, which is met if it was not. `None`: it is no descendant of ours. (So
    /// a caller that is gone already, and whose number a stranger has by now, does no harm.)
    pub(crate) fn process_of(&mut self, tid: u32) -> Option<u32> {
        if let Some(&pid) = self.threads.get(&tid) {
            return Some(pid);
        }
        if let Some(pid) = self.process_that_has(tid) {
            self.meet_thread(pid, tid);
            return self.threads.get(&tid).copied();
        }
        let status = match status::read(&self.root, tid) {
            Ok(status) => status,
            Err(ReadError::Io { errno, .. }) if errno != Errno::ESRCH => {
                self.tell_not_followed(tid, errno);
                return None;
            }
            Err(_) => return None,
        };
        // Who has ended already has no memory.
        if !self.is_descendant(&status) || !status.has_memory() {
            return None;
        }
        if !self.processes.contains_key(&status.tgid) {
            self.meet_process(&status);
        }
        if tid != status.tgid && self.processes.contains_key(&status.tgid) {
            self.meet_thread(status.tgid, tid);
        }
        self.threads.get(&tid).copied()
    }

    /// The process that has started this thread, if it is one of the youngest that were met before it:
    /// to read the thread's own files takes longer.
    fn process_that_has(&self, tid: u32) -> Option<u32> {
        const NEAR: usize = 32;
        let mut near = self.processes.range(..tid).rev().take(NEAR).map(|(&pid, _)| pid);
        near.find(|&pid| sys::thread::is_of(pid, tid))
    }

    fn is_descendant(&self, status: &Status) -> bool {
        let own = std::process::id();
        let is_met = |pid: u32| self.processes.contains_key(&pid);
        let is_near =
            |status: &Status| is_met(status.tgid) || is_met(status.parent) || status.parent == own;
        if is_near(status) {
            return true;
        }
        // A chain of parents has no loop, but may change while it is read.
        let parent = |of: &Status| status::read(&self.root, of.parent).ok();
        iter::successors(parent(status), parent).take(1024).any(|status| is_near(&status))
    }

    fn meet_process(&mut self, status: &Status) {
        let pid = status.tgid;
        let parent = match status.parent {
            parent if parent == std::process::id() || parent == 0 => None,
            parent => self.process_of(parent),
        };
        let pidfd = match self.watched(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => return self.tell_not_followed(pid, Errno::from(&error)),
        };
        let mut process = match parent {
            Some(parent) => {
                let thread = self.forker(parent, pid);
                let allowed = self.thread(thread).map(|thread| thread.allowed.clone());
                let allowed = allowed.unwrap_or_else(|| self.cpus());
                let known = Known::AsItsParent { parent, thread };
                Process::new(pid, pidfd, allowed, known, 0)
            }
            None => Process::new(pid, pidfd, self.cpus(), Known::InModel, self.new_family()),
        };
        match parent.and_then(|parent| self.processes.get(&parent)) {
            Some(parent) => {
                process.family = parent.family;
                process.getcpu = parent.getcpu;
                process.hands_on = parent.hands_on || self.runs_elsewhere(process.known);
            }
            None => process.getcpu = self.getcpu.and_then(|getcpu| getcpu.inherited(pid)),
        }
        self.processes.insert(pid, process);
        self.threads.insert(pid, pid);
        self.news.insert(pid);
        if parent.is_none() {
            self.spawn(status);
        }
    }

    /// Whether a process was forked on another CPU than the first.
    fn runs_elsewhere(&self, known: Known) -> bool {
        let Known::AsItsParent { thread, .. } = known else { return false };
        let cpu = self.task(thread).and_then(|task| self.machine.cpu(task));
        cpu.is_some_and(|cpu| self.cpus().iter().next() != Some(cpu))
    }

    /// A descriptor of a process, whose end is told from here on.
    fn watched(&self, pid: u32) -> io::Result<OwnedFd> {
        let pidfd = linux::sys::open_pidfd(pid)?;
        let number = epoll::EventData::new_u64(u64::from(pid));
        epoll::add(&self.watch, &pidfd, number, epoll::EventFlags::IN)?;
        Ok(pidfd)
    }

    fn tell_not_followed(&mut self, pid: u32, errno: Errno) {
        if errno == Errno::ESRCH {
            return; // It has ended.
        }
        let line = format!(
            "process {pid} cannot be followed: {errno}; its NUMA calls, and perhaps those of others, are \
             answered by this computer; a process takes 4 of the descriptors that `ulimit -Hn` allows"
        );
        self.tell_once(Notice::NotFollowed, &line);
    }

    fn new_family(&mut self) -> u64 {
        self.families += 1;
        self.families
    }

    /// A process without a parent on the machine.
    fn spawn(&mut self, status: &Status) {
        let credentials = target::credentials(status, self.is_privileged);
        let first = CpuId::new(0).expect("0 is a CPU number");
        let cpu = self.cpus().iter().next().unwrap_or(first);
        self.machine.set_last_task(status.tgid.cast_signed() - 1);
        let task = self.machine.spawn(credentials, cpu);
        self.machine.exec(task, task);
    }

    /// Which thread of `parent` forked `pid`.
    fn forker(&self, parent: u32, pid: u32) -> u32 {
        let threads = self.processes.get(&parent).map(|process| &process.threads);
        let others = threads.into_iter().flat_map(BTreeMap::keys).filter(|&&tid| tid != parent);
        // The youngest first: programs start a thread to start a program.
        let mut others = others.rev().copied();
        others.find(|&tid| self.children(parent, tid).contains(&pid)).unwrap_or(parent)
    }

    /// Children that a thread forked (`CONFIG_PROC_CHILDREN`; none without it).
    fn children(&self, pid: u32, tid: u32) -> Vec<u32> {
        let path = format!("proc/{pid}/task/{tid}/children");
        let text = self.root.read(path).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn meet_thread(&mut self, pid: u32, tid: u32) {
        self.adopt(pid);
        // From here on it matters which thread touched a page.
        if self.processes[&pid].threads.len() == 1 {
            self.note_first_touch(pid, tid);
        }
        let Some(leader) = self.task(pid) else { return };
        let Some(allowed) = self.thread(pid).map(|leader| leader.allowed.clone()) else { return };
        self.machine.set_last_task(tid.cast_signed() - 1);
        let Ok(task) = self.machine.clone_thread(leader) else { return };
        let process = self.processes.get_mut(&pid).expect("it is there");
        let started = process.started;
        process.started += 1;
        let cpu = self.machine.cpu(leader);
        if let Some(cpu) = cpu.and_then(|cpu| nth_after(&allowed, cpu, started)) {
            // The CPU is one of the machine's.
            let _ = self.machine.set_cpu(task, cpu);
        }
        process.threads.insert(tid, Thread::new(allowed));
        process.leaving.remove(&tid);
        self.threads.insert(tid, pid);
    }

    /// Threads that have not called yet are met: they began as the first thread is now. Those that have
    /// ended without a call (the kernel's own workers, of io_uring) are forgotten.
    fn meet_threads(&mut self, pid: u32) {
        // Beside itself and its parent, a folder has a link for each in it.
        const LINKS: u64 = 2;
        let Some(process) = self.processes.get(&pid) else { return };
        let folder = format!("proc/{pid}/task");
        let links = fs::metadata(self.root.path(&folder)).map_or(0, |folder| folder.nlink());
        if links == LINKS + process.threads.len() as u64 {
            return;
        }
        let Ok(names) = self.root.names(&folder) else { return };
        let tids: BTreeSet<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let known = |tid: &u32| process.threads.contains_key(tid) || process.leaving.contains(tid);
        let new: Vec<u32> = tids.iter().copied().filter(|tid| !known(tid)).collect();
        // An execve ends the others too, and it matters until that is noticed who they were.
        let is_gone = |tid: &u32| *tid != pid && process.exec.is_none() && !tids.contains(tid);
        let gone: Vec<u32> = process.threads.keys().copied().filter(is_gone).collect();
        new.into_iter().for_each(|tid| self.meet_thread(pid, tid));
        gone.into_iter().for_each(|tid| self.forget_thread(pid, tid));
    }

    // ---- what a process goes through ----

    /// Puts a process into the model that was there as a copy of its parent only.
    pub(crate) fn adopt(&mut self, pid: u32) {
        let Some(Known::AsItsParent { parent, .. }) = self.processes.get(&pid).map(|p| p.known)
        else {
            return;
        };
        // What parent and child have each for themselves by now is found when somebody asks.
        self.look(parent, None);
        self.copy_parent(pid);
    }

    /// fork(2) in the model, of what it knows of the parent.
    fn copy_parent(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Known::AsItsParent { parent, thread } = process.known else { return };
        process.known = Known::InModel;
        self.machine.set_last_task(pid.cast_signed() - 1);
        let forker = self.task(thread).or_else(|| self.task(parent));
        if forker.is_none_or(|forker| self.machine.fork(forker).is_err())
            && let Ok(status) = status::read(&self.root, pid)
        {
            self.spawn(&status);
        }
    }

    /// Before something changes that threads and children inherit or share: all are met, children are
    /// copied, and the pages that have appeared are placed.
    pub(crate) fn before_change(&mut self, pid: u32, by: Option<u32>) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.hands_on = true;
        }
        self.meet_threads(pid);
        self.meet_children(pid);
        self.look(pid, by);
        // Before it is told who has copied what, for a child that has not called yet may have.
        self.copy_to_children(pid);
        self.part_from_relatives(pid);
    }

    fn meet_children(&mut self, pid: u32) {
        let threads: Vec<u32> = self
            .processes
            .get(&pid)
            .map(|p| p.threads.keys().copied().collect())
            .unwrap_or_default();
        let children: Vec<u32> =
            threads.into_iter().flat_map(|tid| self.children(pid, tid)).collect();
        for child in children {
            self.process_of(child);
        }
    }

    fn copy_to_children(&mut self, pid: u32) {
        let is_child = |process: &Process| matches!(process.known, Known::AsItsParent { parent, .. } if parent == pid);
        let children: Vec<u32> =
            self.processes.iter().filter(|(_, p)| is_child(p)).map(|(&child, _)| child).collect();
        children.into_iter().for_each(|child| self.copy_parent(child));
    }

    /// A thread calls execve: whether it succeeds shows later.
    pub(crate) fn execs(&mut self, pid: u32, tid: u32) {
        self.before_leaving(pid, tid);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.exec = Some(tid);
        }
    }

    /// A process is about to give its memory up, by exec or exit. What others share with it is
    /// placed while it is known who touched it.
    pub(crate) fn before_leaving(&mut self, pid: u32, tid: u32) {
        if self.processes.get(&pid).is_some_and(|process| process.hands_on) {
            // Those that have not called yet lose their parent: what they inherit is known now or never.
            self.meet_children(pid);
        }
        let is_parent = self.processes.values().any(
            |process| matches!(process.known, Known::AsItsParent { parent, .. } if parent == pid),
        );
        // The other threads end with it, and what they have touched is to be placed too.
        let is_single = self.processes.get(&pid).is_some_and(|it| it.threads.len() == 1);
        let by = is_single.then_some(tid);
        if is_parent {
            self.before_change(pid, by);
        } else if maps::shares_memory(&self.root, tid).unwrap_or(false) {
            self.settle_for(pid, by);
        }
    }

    /// Finds out whether an execve that was let through has succeeded, and if so starts afresh.
    pub(crate) fn notice_exec(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(by) = process.exec else { return };
        // After an execve that has failed each thread that lives has it still, if not the first one.
        let has_it = |address| process.threads.keys().any(|&tid| image::is_rewritten(tid, address));
        if process.getcpu.is_some_and(has_it) {
            return;
        }
        self.families += 1;
        process.forget_program(self.families);
        process.getcpu = self.getcpu.and_then(|getcpu| getcpu.rewrite(pid));
        let caller = process.threads.get(&by).cloned();
        let others: Vec<u32> = process.threads.keys().copied().filter(|&tid| tid != pid).collect();
        let known = std::mem::replace(&mut process.known, Known::InModel);
        if let Some(caller) = caller {
            process.threads.insert(pid, Thread::new(caller.allowed));
        }
        match known {
            Known::AsItsParent { parent, thread } => {
                self.machine.set_last_task(pid.cast_signed() - 1);
                let parent = self.task(thread).or_else(|| self.task(parent));
                if parent.is_none_or(|parent| self.machine.spawn_like(parent).is_none())
                    && let Ok(status) = status::read(&self.root, pid)
                {
                    self.spawn(&status);
                }
            }
            Known::InModel => {
                if let (Some(task), Some(by)) = (self.task(pid), self.task(by)) {
                    self.machine.exec(task, by);
                }
            }
        }
        others.into_iter().for_each(|tid| self.forget_thread(pid, tid));
        self.news.insert(pid);
    }

    /// Another thread that would have put this one's pages where it has.
    pub(crate) fn heir(&self, pid: u32, tid: u32) -> Option<u32> {
        let task = self.task(tid)?;
        let others = self.processes.get(&pid)?.threads.keys().filter(|&&other| other != tid);
        let alike = |other| self.task(other).is_some_and(|it| self.machine.places_alike(it, task));
        others.copied().find(|&other| alike(other))
    }

    /// Pages that a thread has touched since the last look are `heir`'s from here on.
    pub(crate) fn bequeath_faults(&mut self, pid: u32, tid: u32, heir: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let faults: u64 = process.new_faults(pid, Some(tid)).into_iter().map(|new| new.1).sum();
        if let Some(heir) = process.threads.get_mut(&heir) {
            heir.inherited_faults += faults;
        }
    }

    /// A thread that is not the last of its process ends.
    pub(crate) fn end_thread(&mut self, pid: u32, tid: u32) {
        if tid == pid {
            return; // The first thread stands for the process for as long as that lives.
        }
        self.copy_to_children_of(pid, tid);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.leaves(pid, tid);
        }
        self.forget_thread(pid, tid);
    }

    /// The children of a thread will be taken for the first one's when it has ended: they are copied if
    /// that makes a difference.
    fn copy_to_children_of(&mut self, pid: u32, tid: u32) {
        let (Some(task), Some(first)) = (self.task(tid), self.task(pid)) else { return };
        let allowed = |tid| self.thread(tid).map(|thread| &thread.allowed);
        if self.machine.places_alike(task, first) && allowed(tid) == allowed(pid) {
            return;
        }
        if self.processes.get(&pid).is_some_and(|process| process.hands_on) {
            for child in self.children(pid, tid) {
                self.process_of(child);
            }
        }
        let is_its = |process: &Process| matches!(process.known, Known::AsItsParent { thread, .. } if thread == tid);
        let children: Vec<u32> =
            self.processes.iter().filter(|(_, p)| is_its(p)).map(|(&child, _)| child).collect();
        children.into_iter().for_each(|child| self.adopt(child));
    }

    fn forget_thread(&mut self, pid: u32, tid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.threads.remove(&tid);
        }
        self.threads.remove(&tid);
        if let Some(task) = self.task(tid) {
            self.machine.reap(task);
        }
    }

    /// A process has ended. Its children that are copies of it become processes of their own.
    pub(crate) fn end_process(&mut self, pid: u32) {
        self.copy_to_children(pid);
        let Some(process) = self.processes.remove(&pid) else { return };
        // The kernel forgets the descriptor when it is closed, unless the fork of a moment holds it.
        let _ = epoll::delete(&self.watch, &process.pidfd);
        for &tid in process.threads.keys() {
            self.threads.remove(&tid);
            if let Some(task) = self.task(tid) {
                self.machine.reap(task);
            }
        }
        self.machine.drop_caches();
        self.drop_gone_files_if_many();
    }
}

/// The member of `cpus` that is `steps` behind `from`, round and round.
fn nth_after(cpus: &CpuSet, from: CpuId, steps: usize) -> Option<CpuId> {
    let all: Vec<CpuId> = cpus.iter().collect();
    let at = all.iter().position(|&cpu| cpu >= from).unwrap_or(0);
    all.get((at + steps).checked_rem(all.len())?).copied()
}
