//! The director: forks the processes of a case, gives them their turns, performs the steps that are
//! not theirs, and leaves the machine as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use linux::proc::{maps, stat};
use linux::sys::BindFlags;
use linux::{ReadError, Root};
use machine::{AddrRange, BASE_PAGE_BYTES, NodeId, NodeSet};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::thread::CpuSet;
use rustix::thread::futex::Timespec;
use scenario::{Act, Actor, End, Record, RecordLine, Scenario, Step};

use super::around::{Around, retry};
use super::board::{Board, KernelPages};
use super::look::{Looker, Target};
use super::part::{Part, Performed, Script, Unable, is_directors};
use crate::sys::{self, Desk};

/// How long the director sleeps before it looks whether the one whose turn it is still lives.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// So many looks, and a step that has not come to an end is stuck: a minute or more.
const LOOKS: u32 = 12_000;
/// MPOL_PREFERRED.
const PREFERRED: u32 = 1;

/// Why the actor cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// Something that it needs could not be had.
    #[error("the actor cannot {what}: {reason}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        reason: io::Error,
    },
    /// A file of the kernel could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Cases could not be read, or records not be written.
    #[error("the actor's stream failed")]
    Stream(#[source] io::Error),
}

/// Plays scenarios, one after the other.
#[derive(Debug)]
pub struct Director {
    board: Board,
    desk: Desk,
    looker: Looker,
    around: Around,
    kernel_pages: KernelPages,
    own: Vec<AddrRange>,
    common: Vec<AddrRange>,
    /// Where the heap ended when `own` was learnt.
    heap_end: usize,
    kthread: i32,
    folder: PathBuf,
    nodes: NodeSet,
    largest_node_pages: u64,
    /// Where our own pages lie, unless a case has moved them: see `come_home`.
    home: Option<NodeId>,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
}

const MOUNTS: [(&str, &str); 2] = [("tmpfs", "TMPFS"), ("ramfs", "RAMFS")];

impl Director {
    /// Prepares: runs on CPU 0, maps the board and the desk, mounts a tmpfs and a ramfs of its own
    /// where it may. Once `stop` is set, a case that is played ends as failed.
    ///
    /// # Errors
    ///
    /// [`ActorError`].
    pub fn new(stop: Arc<AtomicBool>) -> Result<Self, ActorError> {
        let root = Root::default();
        sys::keep_heap();
        let mut first = CpuSet::new();
        first.set(0);
        setup("run on CPU 0", rustix::thread::sched_setaffinity(None, &first))?;
        let own_pid = rustix::process::getpid();
        setup(
            "take over orphans of its processes",
            rustix::process::set_child_subreaper(Some(own_pid)),
        )?;
        let folder = std::env::temp_dir().join(format!("pagetide-actor-{own_pid}"));
        let mounts = MOUNTS.map(|(kind, name)| (folder.join(kind).display().to_string(), name));
        for (kind, _) in MOUNTS {
            let path = folder.join(kind);
            setup("make a folder", fs::create_dir_all(&path).map_err(no_rustix))?;
            // Who may not mount has no files on ramfs, and files on what is there.
            let _ = mount(kind, &path, kind, MountFlags::empty(), c"mode=1777");
        }
        let nodes = linux::sysfs::node::nodes(&root)?.with_memory;
        let mut largest_node_pages = 0;
        for node in nodes.iter() {
            let bytes = linux::sysfs::node::memory(&root, node)?.total().get();
            largest_node_pages = largest_node_pages.max(bytes / BASE_PAGE_BYTES);
        }
        let (board, desk) = (
            setup("map its board", Board::new().map_err(no_rustix))?,
            setup("map its desk", Desk::map().map_err(no_rustix))?,
        );
        let looker = Looker::new(mounts.to_vec())?;
        let mut director = Self {
            board,
            desk,
            looker,
            around: Around::default(),
            kernel_pages: KernelPages::default(),
            own: Vec::new(),
            common: Vec::new(),
            heap_end: 0,
            kthread: kernel_thread(&root)?,
            folder,
            nodes,
            largest_node_pages,
            home: None,
            stop,
        };
        director.around.settle();
        director.learn_own_memory(&root)?;
        Ok(director)
    }

    /// Our own writable memory, and where the kernel's pages lie in us and in whom we fork. Pages
    /// of our program are read in, so that those that a case moves can be brought home.
    fn learn_own_memory(&mut self, root: &Root) -> Result<(), ReadError> {
        let mut vvar: Option<AddrRange> = None;
        self.own.clear();
        self.common.clear();
        for mapping in maps::read(root, std::process::id())? {
            let range = mapping.range;
            let bytes = range.bytes().get();
            if mapping.name == "[vdso]" {
                self.kernel_pages.vdso = Some((range.start(), bytes));
            } else if mapping.name.starts_with("[vvar") {
                vvar = AddrRange::new(vvar.map_or(range.start(), AddrRange::start), range.end());
            } else if mapping.permissions.write && !mapping.permissions.shared {
                self.own.push(range);
            } else if mapping.inode != 0
                && mapping.permissions.read
                && sys::advise(range.start(), bytes, libc::MADV_POPULATE_READ).is_ok()
            {
                // What cannot be read in is not ours to move either.
                self.common.push(range);
            }
        }
        self.heap_end = sys::heap_end();
        self.home = None;
        self.kernel_pages.vvar = vvar.map(|range| (range.start(), range.bytes().get()));
        self.kernel_pages.read_clock();
        Ok(())
    }

    /// Plays a scenario from a fresh process on, and puts everything back.
    pub fn play(&mut self, scenario: &Scenario) -> Record {
        self.board.clear();
        let end = match self.begin(scenario) {
            Ok(first) => {
                let end = self.direct(scenario).unwrap_or_else(failed);
                self.end_all(scenario, first);
                end
            }
            Err(unable) => failed(unable),
        };
        let record = self.record(end);
        match self.put_back(scenario) {
            Ok(()) => record,
            Err(unable) => Record { end: failed(unable), ..record },
        }
    }

    /// Forks P, and waits until it is ready.
    fn begin(&mut self, scenario: &Scenario) -> Result<Pid, Unable> {
        if sys::heap_end() != self.heap_end {
            self.learn_own_memory(&Root::default())?;
        }
        self.come_home(scenario)?;
        let script = Arc::new(Script {
            acts: scenario.acts.clone(),
            board: self.board,
            desk: self.desk,
            kernel_pages: self.kernel_pages,
            own: self.own.clone(),
            common: self.common.clone(),
            kthread: self.kthread,
            tmpfs: self.folder.join("tmpfs"),
            ramfs: self.folder.join("ramfs"),
            largest_node_pages: self.largest_node_pages,
        });
        let Some(first) = sys::fork()? else {
            // It must not outlive us; if it cannot be told so, it will be ended by us all the same.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let mut part = Part::first(script);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| part.run(0)));
            sys::exit_now(1)
        };
        self.board.set_pid(Actor::FIRST, number(first));
        for _ in 0..LOOKS {
            if self.board.ready() > 0 || self.is_stopped() {
                break;
            }
            self.board.wait_ready(0, Some(&LOOK));
        }
        if scenario.has(|step| *step == Step::Counters) {
            self.looker.count_from_now()?;
        }
        Ok(first)
    }

    /// Gives every step its turn.
    fn direct(&mut self, scenario: &Scenario) -> Result<End, Unable> {
        self.board.pass_turn(0);
        let mut looks = 0;
        let mut seen = None;
        loop {
            if self.is_stopped() {
                return Err(Unable("a signal has ended it".into()));
            }
            let turn = self.board.turn();
            let Some(act) = turn.and_then(|turn| scenario.acts.get(turn)) else {
                return Ok(End::Done);
            };
            let step = turn.unwrap_or_default();
            let Some(pid) = self.board.pid(act.actor) else {
                // Nobody has made it; it performs nothing.
                self.board.pass_turn(step + 1);
                continue;
            };
            if is_directors(&act.step) {
                if let Some(seen) = self.perform(act, pid)? {
                    self.board.write(&RecordLine::Result(step, seen.to_string()));
                }
                self.board.pass_turn(step + 1);
                continue;
            }
            self.board.wait_turn(turn, Some(&LOOK));
            if self.board.turn() != turn {
                continue;
            }
            if let Some(signal) = death(pid) {
                return Ok(End::Dead(signal));
            }
            looks = if seen == turn { looks + 1 } else { 0 };
            seen = turn;
            if looks > LOOKS {
                return Ok(End::Stuck);
            }
        }
    }

    /// A signal says that the case, and what follows it, is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A step of the director.
    fn perform(&mut self, act: &Act, pid: u32) -> Performed {
        match &act.step {
            Step::Exit => {
                signal(pid, Signal::KILL)?;
                let gone = || death(pid).is_some().then_some(());
                retry(gone).ok_or_else(|| Unable(format!("{} does not exit", act.actor)))?;
                return Ok(None);
            }
            Step::Stop => {
                signal(pid, Signal::STOP)?;
                let stopped = || (state(pid) == Some('T')).then_some(());
                retry(stopped).ok_or_else(|| Unable(format!("{} does not stop", act.actor)))?;
                return Ok(None);
            }
            _ => {}
        }
        if let Some(performed) = self.around.perform(&act.step, act.actor, self.board) {
            return performed;
        }
        let target = Target { pid, board: self.board, own: self.kernel_pages };
        self.looker.perform(&act.step, target)
    }

    /// Ends every process of the case and reaps it.
    fn end_all(&self, scenario: &Scenario, first: Pid) {
        let forked = scenario.acts.iter().filter_map(|act| match act.step {
            Step::Fork(actor) => self.board.pid(actor),
            _ => None,
        });
        for pid in forked.chain([number(first)]) {
            // It may be gone already.
            let _ = signal(pid, Signal::KILL);
        }
        // Orphans become ours. The last one reaped, there is nobody left to wait for.
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    }

    fn record(&self, mut end: End) -> Record {
        let mut results = Vec::new();
        let Some(text) = self.board.text() else {
            return Record { results, end: End::Failed("the results are too long".into()) };
        };
        for line in text.lines() {
            match line.parse() {
                Ok(RecordLine::Result(step, text)) => results.push((step, text)),
                Ok(RecordLine::End(failed)) => end = failed,
                Ok(RecordLine::Case(_)) | Err(_) => {}
            }
        }
        Record { results, end }
    }

    /// Removes what the case has made, once its processes are gone.
    fn put_back(&mut self, scenario: &Scenario) -> Result<(), Unable> {
        for act in &scenario.acts {
            if let Step::Map { kind: scenario::Kind::Tmpfs | scenario::Kind::Ramfs, area, .. } =
                act.step
            {
                for (kind, _) in MOUNTS {
                    // It is on one of them, or was not made.
                    let _ = fs::remove_file(self.folder.join(kind).join(format!("f_{area}")));
                }
            }
        }
        let has_moved = |home: &NodeId| {
            scenario.has(|step| step.changes_cpuset() || step.migrates_from(home.get()))
        };
        self.home = self.home.filter(|home| !has_moved(home));
        self.around.restore()
    }

    /// Has all of our own pages on a node that no migrate_pages of the case moves pages from: those
    /// of the program and of the board too, which the processes of a case share. So a case moves
    /// and counts its own pages alone, and takes less time. Where there is no such node, on the
    /// first. Nothing is done where no result would tell.
    fn come_home(&mut self, scenario: &Scenario) -> Result<(), Unable> {
        let is_source = |node: NodeId| scenario.has(|step| step.migrates_from(node.get()));
        if self.home.is_some_and(|home| !is_source(home)) || !tells_own_pages(scenario) {
            return Ok(());
        }
        let free = self.nodes.iter().find(|&node| !is_source(node));
        let Some(home) = free.or(self.nodes.first()) else { return Ok(()) };
        for range in &self.own {
            let (start, bytes) = (range.start(), range.bytes().get());
            // Copies that the processes of a case get of these pages will be there too.
            let only = NodeSet::only(home);
            linux::sys::mbind(start, bytes, PREFERRED, &only, BindFlags::NONE)?;
        }
        let from = self.nodes.difference(&NodeSet::only(home));
        if !from.is_empty() {
            // What stays twice is no page of ours that a case could have moved.
            let stayed = linux::sys::migrate_pages(0, &from, &NodeSet::only(home))?;
            if stayed > 0 {
                linux::sys::migrate_pages(0, &from, &NodeSet::only(home))?;
            }
        }
        self.home = Some(home);
        Ok(())
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.around.leave();
        for (kind, _) in MOUNTS {
            // What was not mounted is not unmounted.
            let _ = unmount(self.folder.join(kind), UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether results of a scenario would tell that our own pages were moved with those of the case: what
/// migrate_pages returns, and the counters, where a change of cpuset moves pages too.
fn tells_own_pages(scenario: &Scenario) -> bool {
    scenario.has(|step| matches!(step, Step::MigratePages { .. }))
        || scenario.has(Step::changes_cpuset)
            && scenario.has(|step| matches!(step, Step::Counters | Step::Trace))
}

fn failed(unable: Unable) -> End {
    End::Failed(unable.0)
}

fn setup<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, ActorError> {
    result.map_err(|errno| ActorError::Setup { what, reason: errno.into() })
}

fn no_rustix(error: io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(rustix::io::Errno::SRCH))?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// The letter of a process's state; `None` when it is gone.
fn state(pid: u32) -> Option<char> {
    stat::read(&Root::default(), pid).ok().map(|stat| stat.state)
}

/// The signal that killed a process, 0 where that cannot be told; `None` while it lives.
fn death(pid: u32) -> Option<i32> {
    if !matches!(state(pid), None | Some('Z' | 'X')) {
        return None;
    }
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(WaitId::Pid(id), peek).ok().flatten();
    Some(status.and_then(|status| status.terminating_signal()).unwrap_or(0))
}

/// The first thread of the kernel: it has no memory of its own.
fn kernel_thread(root: &Root) -> Result<i32, ActorError> {
    for pid in linux::proc::processes::pids(root)? {
        let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
        if status.is_ok_and(|text| !text.contains("\nVmSize:") && !text.contains("State:\tZ")) {
            return Ok(i32::try_from(pid).unwrap_or(i32::MAX));
        }
    }
    // A pid namespace without the kernel's threads: a number that nobody has.
    Ok(scenario::layout::ABSENT_PID)
}
