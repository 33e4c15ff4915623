//! One process or thread of a scenario: it waits for its turn and performs its steps.
//!
//! It must allocate no memory of its own between two steps: such a page would be placed by the
//! policy that the scenario has just set, and move with the scenario's pages. So it makes its heap
//! and stack its own before it begins ([`Part::settle`]), and asks no clock: `unmap vdso` takes the
//! clock away.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::{io, thread};

use linux::Errno;
use machine::AddrRange;
use rustix::process::{DumpableBehavior, Gid, Pid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, CpuSet};
use scenario::{Act, Actor, Credential, End, Mask, RecordLine, Seen, Step};

use super::board::{Board, KernelPages};
use super::errno_seen;
use crate::sys::{self, Desk};

/// Bytes that one table of the lowest level maps.
const TABLE_BYTES: u64 = 2 << 20;

/// What all processes of a scenario know.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) acts: Vec<Act>,
    pub(crate) board: Board,
    pub(crate) desk: Desk,
    pub(crate) kernel_pages: KernelPages,
    /// Our own writable memory: heap, stack, data.
    pub(crate) own: Vec<AddrRange>,
    /// Our program, and what we share: memory that no process of ours copies.
    pub(crate) common: Vec<AddrRange>,
    /// A kernel thread.
    pub(crate) kthread: i32,
    /// Folders with a tmpfs and a ramfs, where they could be mounted.
    pub(crate) tmpfs: std::path::PathBuf,
    pub(crate) ramfs: std::path::PathBuf,
    /// Pages of the largest node.
    pub(crate) largest_node_pages: u64,
}

/// A step that could not be performed, and why: not a result, but the end of the case.
#[derive(Debug)]
pub(crate) struct Unable(pub(crate) String);

impl From<rustix::io::Errno> for Unable {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(io::Error::from(errno).to_string())
    }
}

impl From<io::Error> for Unable {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What a step gave: nothing, or a result.
pub(crate) type Performed = Result<Option<Seen>, Unable>;

/// One that performs steps.
pub(crate) struct Part {
    pub(crate) script: Arc<Script>,
    me: Actor,
    /// Files of areas; threads have the same.
    pub(crate) files: Arc<Mutex<BTreeMap<char, OwnedFd>>>,
    /// The policy that was set last: raw mode and nodes.
    policy: (i32, Vec<u16>),
    /// Pages that it pins lie in these.
    pipes: Vec<(OwnedFd, OwnedFd)>,
    pub(crate) hogs: u64,
}

/// Whether a step is performed by the director: it sets up what is around the processes, or looks
/// at them with rights that they may have given up.
pub(crate) fn is_directors(step: &Step) -> bool {
    !matches!(
        step,
        Step::Map { .. }
            | Step::Fill { .. }
            | Step::Touch(_)
            | Step::Read(_)
            | Step::Store(..)
            | Step::Check(..)
            | Step::Cpu(_)
            | Step::Protect(..)
            | Step::Lock(_)
            | Step::LockOnFault(_)
            | Step::Unmap(_)
            | Step::Advise(..)
            | Step::Pin(_)
            | Step::Unpin
            | Step::Fork(_)
            | Step::Thread(_)
            | Step::Wait(_)
            | Step::User(..)
            | Step::Drop
            | Step::NoDump
            | Step::UserNamespace
            | Step::MigratePages { .. }
            | Step::MovePages { .. }
            | Step::Mbind { .. }
            | Step::SetMempolicy { .. }
            | Step::GetMempolicy { .. }
            | Step::HomeNode { .. }
            | Step::Hog { .. }
            | Step::WriteFile(_)
            | Step::ReadFile(_)
    )
}

impl Part {
    /// Process P, just forked from the director.
    pub(crate) fn first(script: Arc<Script>) -> Self {
        Self {
            script,
            me: Actor::FIRST,
            files: Arc::default(),
            policy: (0, Vec::new()),
            pipes: Vec::new(),
            hogs: 0,
        }
    }

    /// Performs its steps from `step` on; never returns: the director ends it.
    pub(crate) fn run(&mut self, from: usize) -> ! {
        let board = self.script.board;
        self.settle();
        self.script.kernel_pages.read_clock();
        board.say_ready();
        let script = Arc::clone(&self.script);
        for (step, act) in script.acts.iter().enumerate().skip(from) {
            loop {
                match board.turn() {
                    Some(turn) if turn > step => break,
                    // Forked into another actor in the middle of it, it is no longer its turn.
                    Some(turn) if turn == step && self.is_mine(act) => {
                        self.take_turn(step, act);
                        break;
                    }
                    turn => board.wait_turn(turn, None),
                }
            }
        }
        loop {
            board.wait_turn(board.turn(), None);
        }
    }

    fn is_mine(&self, act: &Act) -> bool {
        act.actor == self.me && !is_directors(&act.step)
    }

    fn take_turn(&mut self, step: usize, act: &Act) {
        let board = self.script.board;
        match self.perform(step, &act.step) {
            Ok(None) => {}
            Ok(Some(seen)) => board.write(&RecordLine::Result(step, seen.to_string())),
            Err(Unable(why)) => {
                board.write(&RecordLine::End(End::Failed(format!("cannot {}: {why}", act.step))));
                board.pass_turn(self.script.acts.len());
                return;
            }
        }
        board.pass_turn(step + 1);
    }

    /// Makes all of its own writable memory its own, as it is after a fork only once it is written;
    /// and has page tables for the rest.
    fn settle(&self) {
        for range in &self.script.common {
            let first_of_tables =
                (range.start() / TABLE_BYTES + 1..).map(|table| table * TABLE_BYTES);
            let inside = first_of_tables.take_while(|&address| address < range.end());
            for address in std::iter::once(range.start()).chain(inside) {
                sys::read(address);
            }
        }
        for range in &self.script.own {
            // A range that is gone, or cannot be had, is one that will not disturb.
            let _ = sys::populate_for_writing(range.start(), range.bytes().get());
        }
    }

    fn perform(&mut self, step: usize, what: &Step) -> Performed {
        match what {
            Step::Fork(actor) => self.fork(step, *actor),
            Step::Thread(actor) => self.start_thread(step, *actor),
            Step::Wait(actor) => {
                let pid = self.script.board.pid(*actor).and_then(|pid| i32::try_from(pid).ok());
                let waited =
                    rustix::process::waitpid(pid.and_then(Pid::from_raw), WaitOptions::empty());
                Ok(errno_seen(waited.map(drop)))
            }
            Step::Cpu(cpu) => {
                let mut cpus = CpuSet::new();
                let cpu = usize::try_from(*cpu).unwrap_or(usize::MAX);
                if cpu >= CpuSet::MAX_CPU {
                    return Ok(Some(Seen::Errno("EINVAL".into())));
                }
                cpus.set(cpu);
                Ok(errno_seen(rustix::thread::sched_setaffinity(None, &cpus)))
            }
            Step::Pin(place) => self.pin(*place),
            Step::Unpin => {
                self.pipes.clear();
                Ok(None)
            }
            Step::User(who, id) => Ok(errno_seen(become_user(*who, *id))),
            Step::Drop => Ok(errno_seen(drop_nice())),
            Step::NoDump => Ok(errno_seen(set_dumpable(DumpableBehavior::NotDumpable))),
            Step::UserNamespace => Ok(errno_seen(sys::enter_new_user_namespace())),
            _ => self.use_memory(what),
        }
    }

    // ---- other processes ----

    fn fork(&mut self, step: usize, actor: Actor) -> Performed {
        let board = self.script.board;
        let ready = board.ready();
        match sys::fork() {
            Ok(None) => {
                self.me = actor;
                // The pages that these pin are the parent's to let go.
                self.pipes.clear();
                self.run(step + 1)
            }
            Ok(Some(pid)) => {
                board.set_pid(actor, pid.as_raw_nonzero().get().unsigned_abs());
                while board.ready() == ready {
                    board.wait_ready(ready, None);
                }
                self.settle();
                Ok(None)
            }
            Err(error) => Ok(Some(Seen::Errno(super::name(Errno::from(&error))))),
        }
    }

    fn start_thread(&mut self, step: usize, actor: Actor) -> Performed {
        let board = self.script.board;
        let ready = board.ready();
        let mut part = Self {
            script: Arc::clone(&self.script),
            me: actor,
            files: Arc::clone(&self.files),
            policy: self.policy.clone(),
            pipes: Vec::new(),
            hogs: self.hogs,
        };
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            part.script.board.set_pid(actor, tid);
            part.run(step + 1)
        })?;
        while board.ready() == ready {
            board.wait_ready(ready, None);
        }
        Ok(None)
    }

    fn pin(&mut self, place: scenario::Place) -> Performed {
        let Some(span) = self.span(place) else { return Ok(None) };
        let (reader, writer) = rustix::pipe::pipe()?;
        let slots = span.pages.div_ceil(span.stride.max(1));
        if slots > 16 {
            let bytes = usize::try_from(slots * 4096).unwrap_or(usize::MAX);
            rustix::pipe::fcntl_setpipe_size(&writer, bytes)?;
        }
        use std::os::fd::AsFd;
        for address in span.addresses() {
            if let Err(errno) = sys::pin(address, writer.as_fd()) {
                return Ok(Some(Seen::Errno(super::name(errno))));
            }
        }
        self.pipes.push((reader, writer));
        Ok(None)
    }

    // ---- for the other half, in `memory.rs` and `calls.rs` ----

    /// The pages of a place; `None` for an area that could not be mapped.
    pub(crate) fn span(&self, place: scenario::Place) -> Option<scenario::layout::Span> {
        self.script.board.span(place, self.script.kernel_pages)
    }

    pub(crate) fn remember_policy(&mut self, mode: i32, mask: &Mask) {
        let nodes = match mask {
            Mask::Nodes { nodes, .. } => nodes.clone(),
            Mask::Null | Mask::Bad => Vec::new(),
        };
        self.policy = (mode, nodes);
    }

    /// Sets the policy again that the scenario set last. One that no longer fits the cpuset is
    /// refused, and the last page's policy stays: the model's player does the same.
    pub(crate) fn restore_policy(&self) {
        let (mode, nodes) = &self.policy;
        let _ = self.set_policy(*mode, nodes);
    }
}

fn become_user(who: Credential, id: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    match who {
        Credential::All => {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        Credential::Real => rustix::thread::set_thread_res_uid(uid, None, None)?,
        Credential::Effective => rustix::thread::set_thread_res_uid(None, uid, None)?,
    }
    set_dumpable(DumpableBehavior::Dumpable)
}

fn set_dumpable(how: DumpableBehavior) -> rustix::io::Result<()> {
    rustix::process::set_dumpable_behavior(how)
}

fn drop_nice() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_NICE);
    sets.permitted.remove(CapabilitySet::SYS_NICE);
    rustix::thread::set_capabilities(None, sets)
}
