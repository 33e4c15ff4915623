//! A process that lives on the machine, and its threads.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use linux::Root;
use linux::proc::maps::{self, Mapping};
use linux::proc::pagemap::Pagemap;
use machine::CpuSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::first_touch::FirstTouch;
use crate::remap::Remap;
use crate::sys;

/// A thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    /// The machine's CPUs where it may run. Where it does run is the model's to know.
    pub(crate) allowed: CpuSet,
    /// Page faults that it had taken when its process was settled last.
    pub(crate) faults: u64,
    /// Page faults of threads that have ended since, and whose pages it places for them.
    pub(crate) inherited_faults: u64,
}

impl Thread {
    /// A thread that has touched nothing.
    pub(crate) const fn new(allowed: CpuSet) -> Self {
        Self { allowed, faults: 0, inherited_faults: 0 }
    }
}

/// Whether the model knows a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its task and its address space are in the model.
    InModel,
    /// It was forked by this thread, and nothing has happened since that would tell its memory or its
    /// policy from those of its parent. Most such children exec or exit, and are never copied.
    AsItsParent {
        /// The parent.
        parent: u32,
        /// The thread that forked.
        thread: u32,
    },
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// By thread id.
    pub(crate) threads: BTreeMap<u32, Thread>,
    /// Whether the model has it.
    pub(crate) known: Known,
    /// Where its getcpu is rewritten ([`crate::image`]).
    pub(crate) getcpu: Option<u64>,
    /// A thread whose execve was let through: it succeeds or not.
    pub(crate) exec: Option<u32>,
    /// Calls of mremap whose outcome is not known yet.
    pub(crate) remaps: Vec<Remap>,
    /// Pages of the first thread that are not placed yet.
    pub(crate) first_touch: FirstTouch,
    /// Open for the present program.
    pagemap: Option<Pagemap>,
    /// Those that descend from one program by fork, and may share its pages.
    pub(crate) family: u64,
    /// Threads that it ever had: the next one's place among the CPUs.
    pub(crate) started: usize,
    /// Whether it has what a child that is met without it would lack: a policy, CPUs or places of its own.
    pub(crate) hands_on: bool,
    /// Threads that are about to end, or have ended since this was looked through last.
    pub(crate) leaving: BTreeSet<u32>,
    /// Whether it is in a pid namespace further in than we are, if that was asked ([`crate::pids`]).
    pub(crate) is_apart: Option<bool>,
}

impl Process {
    /// A process of one thread.
    pub(crate) fn new(
        pid: u32,
        pidfd: OwnedFd,
        allowed: CpuSet,
        known: Known,
        family: u64,
    ) -> Self {
        Self {
            pidfd,
            threads: BTreeMap::from([(pid, Thread::new(allowed))]),
            known,
            getcpu: None,
            exec: None,
            remaps: Vec::new(),
            first_touch: FirstTouch::default(),
            pagemap: None,
            family,
            started: 1,
            hands_on: false,
            leaving: BTreeSet::new(),
            is_apart: None,
        }
    }

    /// Its mappings, and a thread in whose files they are seen. The first thread may have ended before
    /// the others, and shows none then. `None`: the process is ending.
    pub(crate) fn mappings(&self) -> Option<(u32, Vec<Mapping>)> {
        self.threads.keys().find_map(|&tid| {
            let mappings = maps::read(&Root::default(), tid).ok()?;
            (!mappings.is_empty()).then_some((tid, mappings))
        })
    }

    /// The pagemap of the present program, which is opened in the files of a thread that lives; `None`:
    /// it has ended.
    pub(crate) fn pagemap(&mut self, tid: u32) -> Option<&Pagemap> {
        if self.pagemap.is_none() {
            self.pagemap = Pagemap::open(&Root::default(), tid).ok();
        }
        self.pagemap.as_ref()
    }

    /// The pagemap, if it is open: nothing of the process is placed without it.
    pub(crate) const fn open_pagemap(&self) -> Option<&Pagemap> {
        self.pagemap.as_ref()
    }

    /// A thread is about to end. The kernel lists it for a moment more.
    pub(crate) fn leaves(&mut self, pid: u32, tid: u32) {
        const MANY: usize = 64;
        if self.leaving.len() >= MANY {
            self.leaving.retain(|&tid| sys::thread::is_of(pid, tid));
        }
        self.leaving.insert(tid);
    }

    /// There is a new program: nothing that was open or found belongs to it.
    pub(crate) fn forget_program(&mut self, family: u64) {
        self.exec = None;
        self.remaps.clear();
        self.first_touch = FirstTouch::default();
        self.pagemap = None;
        self.getcpu = None;
        self.family = family;
        self.started = 1;
        self.leaving.clear();
    }

    /// Threads that took page faults since the last call, and how many: all, or this one.
    pub(crate) fn new_faults(&mut self, pid: u32, only: Option<u32>) -> Vec<(u32, u64)> {
        let mut new = Vec::new();
        let threads = self.threads.iter_mut();
        for (&tid, thread) in threads.filter(|(tid, _)| only.is_none_or(|only| only == **tid)) {
            let now = faults(pid, tid).unwrap_or(thread.faults);
            let own = now.saturating_sub(std::mem::replace(&mut thread.faults, now));
            let since = own + std::mem::take(&mut thread.inherited_faults);
            if since > 0 {
                new.push((tid, since));
            }
        }
        new
    }
}

/// Each process takes three or four descriptors of ours. How many we may have is raised as far as it
/// goes, once the program is started: it keeps the limit of its user.
pub(crate) fn allow_many() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, fewer processes are followed, and the user is told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Page faults of a thread: fields 10 and 12 of its stat, minor and major.
fn faults(pid: u32, tid: u32) -> Option<u64> {
    let text = Root::default().read(format!("proc/{pid}/task/{tid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(7);
    let minor: u64 = fields.next()?.parse().ok()?;
    let major: u64 = fields.nth(1)?.parse().ok()?;
    Some(minor + major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_touch_of_our_own_is_counted_as_a_fault_of_this_thread() {
        let pid = std::process::id();
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let before = faults(pid, tid).unwrap();
        let pages = vec![1u8; 16 << 20];
        let after = faults(pid, tid).unwrap();
        assert!(after > before, "{} bytes were touched", pages.len());
    }
}
