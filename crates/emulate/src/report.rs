//! What a run has seen, for `--report`: recorded call by call, written at exit as HTML or JSON.
//!
//! The supervisor calls [`Recorder`] before and after each call, and when a process ends. What is
//! kept does not grow with the run: lists have limits, and what is beyond them is summed.
//!
//! Looking at where the memory of a process lies costs a walk through its page tables, so that it
//! takes at most a twentieth of the time while the process runs; at its end it is always done.

mod history;
mod html;
mod summary;

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use model::Explained;

use self::history::History;
use self::summary::{
    Calls, Kept, Move, MovesLeftOut, Placement, Policy, PolicyOf, SCHEMA, Summary, Supervisor,
};
use crate::call::{Answer, Call};
use crate::calls::is_about_numa;
use crate::explain;
use crate::filter::{ARCH, SYS_SET_MEMPOLICY_HOME_NODE};
use crate::target;
use crate::world::World;

/// Processes that are told one by one: those with most memory.
const PROCESSES: usize = 200;
/// Calls that moved pages that are told one by one: the first.
const MOVES: usize = 1000;
/// Policies that are told: the first.
const POLICIES: usize = 200;
/// Looks take at most this part of the time.
const LOOK_PART: u32 = 20;

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// One file that needs no other.
    Html,
    /// `"schema": 1`; docs/run.md tells the keys.
    Json,
}

/// Where a report is written to, when the run has ended.
pub struct Report {
    /// Its form.
    pub format: ReportFormat,
    /// Where to.
    pub sink: Box<dyn io::Write>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Records a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    command: Vec<String>,
    start: Supervisor,
    calls: BTreeMap<&'static str, Calls>,
    moves: Vec<Move>,
    moves_left_out: MovesLeftOut,
    policies: BTreeMap<PolicyOf, Policy>,
    policies_left_out: u64,
    /// Processes that live.
    live: BTreeMap<u32, Placement>,
    ended: Kept,
    history: History,
    next_look: Instant,
}

impl Recorder {
    /// Nothing has been seen yet.
    pub(crate) fn new(world: &World, command: Vec<String>) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            command,
            start: Supervisor::now(world),
            calls: BTreeMap::new(),
            moves: Vec::new(),
            moves_left_out: MovesLeftOut::default(),
            policies: BTreeMap::new(),
            policies_left_out: 0,
            live: BTreeMap::new(),
            ended: Kept::new(PROCESSES),
            history: History::new(&world.machine),
            next_look: now,
        }
    }

    /// A call was received. One that ends a process, or replaces its program, is the last moment at
    /// which its memory can be looked at.
    pub(crate) fn received(&mut self, world: &mut World, call: &Call) {
        if matches!(call.number, libc::SYS_exit_group | libc::SYS_execve | libc::SYS_execveat)
            && let Some(pid) = world.process_of(call.tid)
        {
            // A child that was not copied yet has the memory of its parent.
            if call.number == libc::SYS_exit_group || world.task(pid).is_some() {
                world.settle(pid);
            }
            self.look(world, pid);
        }
    }

    /// A call was answered, and moved these pages.
    pub(crate) fn answered(
        &mut self,
        world: &mut World,
        call: &Call,
        answer: Answer,
        moves: &[Explained],
    ) {
        let name = if call.arch == ARCH { name(call.number) } else { OTHERS };
        self.calls.entry(name).or_default().add(answer);
        let now = Instant::now();
        if is_about_numa(call.number) {
            self.keep_policy(call, answer);
            self.keep_moves(call, answer, moves);
            if now >= self.next_look {
                let pid = target::process_about(world, call);
                self.look(world, pid);
                let after = Instant::now();
                self.next_look = after + (after - now) * LOOK_PART;
            }
        }
        self.history.look(&world.machine, now - self.began);
    }

    /// A process has ended.
    pub(crate) fn ended(&mut self, pid: u32) {
        self.ended.extend(self.live.remove(&pid));
    }

    fn look(&mut self, world: &World, pid: u32) {
        if let Some(task) = world.task(pid) {
            let pages = world.machine.mapped_pages(task);
            self.live.entry(pid).or_insert_with(|| Placement::new(pid)).look(&pages);
        }
    }

    fn keep_policy(&mut self, call: &Call, answer: Answer) {
        const SETTERS: [i64; 3] =
            [libc::SYS_set_mempolicy, libc::SYS_mbind, SYS_SET_MEMPOLICY_HOME_NODE];
        if !SETTERS.contains(&call.number) || !matches!(answer, Answer::Value(_)) {
            return;
        }
        let is_full = self.policies.len() >= POLICIES;
        let of = PolicyOf { thread: call.tid, call: call_of(&explain::told(call, answer)) };
        match self.policies.get_mut(&of) {
            Some(policy) => policy.times += 1,
            None if is_full => self.policies_left_out += 1,
            None => {
                let at_ms = history::ms(self.began.elapsed());
                self.policies.insert(of, Policy { at_ms, times: 1 });
            }
        }
    }

    fn keep_moves(&mut self, call: &Call, answer: Answer, moves: &[Explained]) {
        if moves.is_empty() {
            return;
        }
        if self.moves.len() >= MOVES {
            self.moves_left_out.add(moves);
            return;
        }
        let at_ms = history::ms(self.began.elapsed());
        let told = call_of(&explain::told(call, answer));
        // One call of the program is many of the engine, which differ in counts alone.
        let mut by_path: BTreeMap<(String, &str, &str), Move> = BTreeMap::new();
        for explained in moves {
            let Explained { path, reason, mode, counts, .. } = explained;
            let key = (path.to_string(), reason.name(), mode.name());
            let new = || Move {
                at_ms,
                thread: call.tid,
                call: told.clone(),
                path: path.names().collect(),
                reason: reason.name(),
                mode: mode.name(),
                moved_pages: 0,
                stayed_pages: 0,
                split_folios: 0,
            };
            by_path.entry(key).or_insert_with(new).add(counts);
        }
        self.moves.extend(by_path.into_values());
    }

    /// Everything, when the last process has ended.
    fn finish(mut self, world: &World, exit_code: u8) -> Summary {
        for pid in self.live.keys().copied().collect::<Vec<_>>() {
            self.ended(pid);
        }
        let elapsed = self.began.elapsed();
        self.history.look(&world.machine, elapsed);
        let (processes, processes_left_out) = self.ended.into_parts();
        Summary {
            schema: SCHEMA,
            command: self.command,
            kernel: world.machine.version().name(),
            exit_code,
            elapsed_ms: history::ms(elapsed),
            nodes: summary::nodes(&world.machine, &self.history),
            processes,
            processes_left_out,
            moves: self.moves,
            moves_left_out: self.moves_left_out,
            policies: self.policies.into_iter().map(Into::into).collect(),
            policies_left_out: self.policies_left_out,
            calls: self.calls,
            history: self.history.into_moments(),
            supervisor: [self.start, Supervisor::now(world)],
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub(crate) fn write(self, world: &World, exit_code: u8, report: Report) -> io::Result<()> {
        let summary = self.finish(world, exit_code);
        let mut sink = report.sink;
        match report.format {
            ReportFormat::Html => sink.write_all(html::page(&summary).as_bytes())?,
            ReportFormat::Json => {
                serde_json::to_writer_pretty(&mut sink, &summary)?;
                sink.write_all(b"\n")?;
            }
        }
        sink.flush()
    }
}

/// Without the thread, which is told beside it.
fn call_of(told: &str) -> String {
    told.split_once("] ").map_or(told, |(_, call)| call).to_owned()
}

const OTHERS: &str = "others";

/// Names of the calls that are intercepted.
fn name(number: i64) -> &'static str {
    match number {
        libc::SYS_munmap => "munmap",
        libc::SYS_mmap => "mmap",
        libc::SYS_madvise => "madvise",
        libc::SYS_getcpu => "getcpu",
        libc::SYS_get_mempolicy => "get_mempolicy",
        libc::SYS_set_mempolicy => "set_mempolicy",
        libc::SYS_mbind => "mbind",
        libc::SYS_move_pages => "move_pages",
        libc::SYS_migrate_pages => "migrate_pages",
        SYS_SET_MEMPOLICY_HOME_NODE => "set_mempolicy_home_node",
        libc::SYS_sched_getaffinity => "sched_getaffinity",
        libc::SYS_sched_setaffinity => "sched_setaffinity",
        libc::SYS_mremap => "mremap",
        libc::SYS_execve => "execve",
        libc::SYS_execveat => "execveat",
        libc::SYS_exit => "exit",
        libc::SYS_exit_group => "exit_group",
        libc::SYS_set_robust_list => "set_robust_list",
        libc::SYS_set_tid_address => "set_tid_address",
        libc::SYS_arch_prctl => "arch_prctl",
        _ => OTHERS,
    }
}
