//! A trace from its beginning to its end: what is switched on in the kernel, read, and switched off.
//!
//! The instance is removed when the session ends or is dropped. Stacks are taken at the end of a
//! migration only, by a trigger: they cost more than all the rest.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use linux::proc::kallsyms;
use linux::tracefs::{Instance, TraceError, Tracefs};
use linux::{ReadError, Root};
use machine::Bytes;
use rustix::time::ClockId;
use serde::Serialize;

use crate::counted;
use crate::decode::{Decoder, NoField};
use crate::event::{Counts, Event, KernelEvent, Migration, Occasion, Owner, Value};
use crate::pairing::{At, Joined, JoinedMigration, Pairing};
use crate::reader::{Reader, Round, now_ns};
use crate::stacks::Stacks;
use crate::tasks::{Task, Tasks};
use crate::wanted::{self, Target, UnknownReason, Wanted};

const END: &str = "migrate/mm_migrate_pages";
const START: &str = "migrate/mm_migrate_pages_start";
const STACK: &str = "ftrace/kernel_stack";
/// Calls whose argument says whose pages move.
const CALLS: [&str; 2] = ["syscalls/sys_enter_migrate_pages", "syscalls/sys_enter_move_pages"];
/// Events that explain migrations. A kernel may lack any of them.
const OTHERS: [&str; 7] = [
    "sched/sched_move_numa",
    "sched/sched_swap_numa",
    "sched/sched_stick_numa",
    "compaction/mm_compaction_begin",
    "compaction/mm_compaction_end",
    "huge_memory/mm_collapse_huge_page",
    "huge_memory/mm_khugepaged_collapse_file",
];

/// While events come, they are read so often at least.
const HANDFUL: Duration = Duration::from_millis(100);

/// What is traced, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which migrations.
    pub wanted: Wanted,
    /// With the kernel's path of each.
    pub stacks: bool,
    /// Size of the buffer of each CPU; `None` leaves the kernel's default.
    pub buffer: Option<Bytes>,
}

/// Why a trace cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No tracefs, no right, no event.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A kernel whose events we do not understand.
    #[error(transparent)]
    NoField(#[from] NoField),
    /// A reason that the kernel does not have.
    #[error(transparent)]
    Reason(#[from] UnknownReason),
    /// Stacks without the right to see the kernel's symbols; or no vmstat.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A buffer could not be read.
    #[error("cannot read the trace buffer")]
    Buffer(#[from] io::Error),
}

/// A trace under way.
#[derive(Debug)]
pub struct Session {
    // Before the instance: the kernel removes none whose buffers are open.
    reader: Reader,
    instance: Instance,
    root: Root,
    decoder: Decoder,
    pairing: Pairing,
    stacks: Stacks,
    tasks: Tasks,
    target: Option<Target>,
    is_filtered: bool,
    /// Nothing happens, and the first event wakes us.
    is_quiet: bool,
    counted_before: Option<Counts>,
    bad_pages: u64,
    began: Began,
    /// Instances of earlier runs that were removed.
    pub leftovers: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Began {
    monotonic_ns: u64,
    cpu_ns: u64,
}

/// What remains to be said when a trace has ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ending {
    /// How long it ran.
    pub elapsed_ns: u64,
    /// Processor time that the tracing process used, in the kernel and outside.
    pub own_cpu_ns: u64,
    /// Events that were read from the buffers.
    pub read_events: u64,
    /// Events that were lost before they were read.
    pub lost_events: u64,
    /// Pages of the buffers that made no sense.
    pub bad_pages: u64,
    /// What `/proc/vmstat` counted meanwhile; `None` when only some migrations were traced.
    pub vmstat: Option<Counts>,
}

impl Session {
    /// Removes what earlier runs left behind, makes an instance, and switches the events on.
    ///
    /// # Errors
    ///
    /// [`SessionError`].
    pub fn start(root: &Root, options: &Options) -> Result<Self, SessionError> {
        let tracefs = Tracefs::find(root)?;
        let leftovers = tracefs.remove_leftovers()?;
        let Kinds { decoder, named } = Kinds::of(&tracefs, options)?;
        let reasons = wanted::numbers(&options.wanted.reasons, decoder.reasons())?;
        let stacks =
            if options.stacks { Stacks::new(kallsyms::read(root)?) } else { Stacks::default() };

        let instance = tracefs.make_instance()?;
        prepare(&instance, options, &reasons)?;
        let mut layout = tracefs.page_layout()?;
        // From 6.8 on, an instance may have larger pages than the rest.
        if let Ok(size) = instance.read("buffer_subbuf_size_kb")
            && let Ok(kib) = size.trim().parse::<usize>()
        {
            layout.page_bytes = layout.page_bytes.max(kib.saturating_mul(1024));
        }
        let reader = Reader::open(&instance, layout)?;
        let target = options.wanted.target.clone();
        let is_filtered = target.is_some() || !reasons.is_empty();
        let tasks =
            Tasks::new(root.clone(), Some(tracefs), matches!(target, Some(Target::Cgroup(_))));
        for event in named {
            instance.write(format!("events/{event}/enable"), "1")?;
        }
        let counted_before = counted::read(root);
        instance.write("tracing_on", "1")?;
        let began = Began {
            monotonic_ns: now_ns(ClockId::Monotonic),
            cpu_ns: now_ns(ClockId::ProcessCPUTime),
        };
        Ok(Self {
            reader,
            instance,
            root: root.clone(),
            decoder,
            pairing: Pairing::new(options.stacks),
            stacks,
            tasks,
            target,
            is_filtered,
            is_quiet: false,
            counted_before,
            bad_pages: 0,
            began,
            leftovers,
        })
    }

    /// Waits for at most this long, and gives what has happened.
    ///
    /// # Errors
    ///
    /// When a buffer cannot be read.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, SessionError> {
        let longest = if self.is_quiet { timeout } else { timeout.min(HANDFUL) };
        let is_woken = self.reader.wait(longest)?;
        let round = self.reader.read(&self.decoder)?;
        let is_quiet = !is_woken && round.seen.is_empty() && !self.reader.has_young();
        self.set_quiet(is_quiet);
        Ok(self.events(round, false))
    }

    /// While nothing happens, the first event wakes us. While much does, a buffer that is half full,
    /// or else the next handful: to be woken for each event would cost more than the event.
    fn set_quiet(&mut self, is_quiet: bool) {
        if is_quiet != self.is_quiet {
            let percent = if is_quiet { "0" } else { "50" };
            let is_set = self.instance.write("buffer_percent", percent).is_ok();
            self.is_quiet = is_quiet && is_set;
        }
    }

    /// Switches tracing off, gives what was still in the buffers, and removes the instance.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; the instance is removed all the same.
    pub fn finish(mut self) -> Result<(Vec<Event>, Ending), SessionError> {
        self.instance.write("tracing_on", "0")?;
        let counted_after = counted::read(&self.root);
        let round = self.reader.read_all(&self.decoder)?;
        let events = self.events(round, true);
        let (mut read_events, mut lost_events) = (0, 0);
        for cpu in self.instance.cpus()? {
            let stats = self.instance.stats(cpu)?;
            read_events += stats.read;
            lost_events += stats.lost;
        }
        let vmstat = self.counted_before.zip(counted_after).filter(|_| !self.is_filtered);
        let ending = Ending {
            elapsed_ns: now_ns(ClockId::Monotonic).saturating_sub(self.began.monotonic_ns),
            own_cpu_ns: now_ns(ClockId::ProcessCPUTime).saturating_sub(self.began.cpu_ns),
            read_events,
            lost_events,
            bad_pages: self.bad_pages,
            vmstat: vmstat.map(|(before, after)| counted::since(&before, &after)),
        };
        drop(self.reader);
        self.instance.remove()?;
        Ok((events, ending))
    }

    fn events(&mut self, round: Round, is_last: bool) -> Vec<Event> {
        self.bad_pages += round.bad_pages.len() as u64;
        let mut joined = Vec::new();
        for seen in round.seen {
            self.pairing.push(seen, &mut joined);
        }
        if is_last {
            self.pairing.flush(&mut joined);
        }
        let realtime_ns = now_ns(ClockId::Realtime).wrapping_sub(now_ns(ClockId::Monotonic));
        let mut events: Vec<_> = round.gaps.into_iter().map(Event::Lost).collect();
        for joined in joined {
            events.extend(match joined {
                Joined::Migration(migration) => self.migration(migration, realtime_ns),
                Joined::Other { at, event, fields } => self.other(at, event, fields, realtime_ns),
            });
        }
        events
    }

    fn migration(&mut self, joined: JoinedMigration, realtime_ns: u64) -> Option<Event> {
        let JoinedMigration { at, reason, mode, counts, duration_ns, called_for, frames } = joined;
        let reason = self.decoder.reason(reason);
        let task = self.tasks.get(at.tid, at.time_ns).clone();
        let called_for = called_for.filter(|_| wanted::is_called_for(&reason));
        let owner = match called_for {
            Some(number) => self.tasks.called(at.tid, number, at.time_ns),
            None => task.pid.filter(|_| wanted::moves_own_pages(&reason)),
        };
        if let Some(target) = &self.target {
            let is_owner = owner.is_some_and(|pid| target.is(self.tasks.get(pid, at.time_ns)));
            if !is_owner && !target.is(&task) && !self.is_of_target(&task, at.time_ns) {
                return None;
            }
        }
        Some(Event::Migration(Migration {
            occasion: self.occasion(at, task, realtime_ns),
            reason,
            mode: self.decoder.mode(mode),
            counts,
            duration_ns,
            pages_of: owner
                .map(|pid| Owner { pid, name: self.tasks.get(pid, at.time_ns).name.clone() }),
            stack: self.stacks.resolve(frames),
        }))
    }

    /// Whether the process of a thread is the target: threads have names of their own.
    fn is_of_target(&mut self, task: &Task, time_ns: u64) -> bool {
        let Some(target) = &self.target else { return true };
        task.pid.is_some_and(|pid| target.is(self.tasks.get(pid, time_ns)))
    }

    fn other(
        &mut self,
        at: At,
        event: u16,
        fields: Vec<(std::sync::Arc<str>, Value)>,
        realtime_ns: u64,
    ) -> Option<Event> {
        let task = self.tasks.get(at.tid, at.time_ns).clone();
        let named = fields.iter().filter_map(|(name, value)| match value {
            Value::Number(pid) if name.ends_with("pid") => u32::try_from(*pid).ok(),
            _ => None,
        });
        let mut concerned: Vec<u32> = named.chain([at.tid]).collect();
        concerned.extend(task.pid);
        let is_wanted = self.target.as_ref().is_none_or(|target| {
            concerned.iter().any(|&tid| target.is(self.tasks.get(tid, at.time_ns)))
        });
        is_wanted.then(|| {
            Event::Kernel(KernelEvent {
                occasion: self.occasion(at, task, realtime_ns),
                name: self.decoder.name(event).to_owned(),
                fields,
            })
        })
    }

    /// A thread may have a name of its own: that of its process is shown.
    fn occasion(&mut self, at: At, task: Task, realtime_ns: u64) -> Occasion {
        let of_process = task.pid.map(|pid| self.tasks.get(pid, at.time_ns).name.clone());
        Occasion {
            time_ns: at.time_ns.wrapping_add(realtime_ns),
            cpu: at.cpu,
            tid: at.tid,
            pid: task.pid,
            process: of_process.filter(|name| !name.is_empty()).unwrap_or(task.name),
        }
    }
}

/// The events of this kernel that serve, and how to read them.
struct Kinds {
    decoder: Decoder,
    /// Those to switch on.
    named: Vec<&'static str>,
}

impl Kinds {
    fn of(tracefs: &Tracefs, options: &Options) -> Result<Self, SessionError> {
        let format = |event: &str| {
            let (system, name) = event.split_once('/').unwrap_or((event, ""));
            tracefs.format(system, name)
        };
        let need = |event: &str| {
            format(event)?.ok_or_else(|| TraceError::NoEvent { event: event.to_owned() })
        };
        let mut decoder = Decoder::new(&need(END)?)?;
        let mut named = vec![END];
        if options.stacks {
            decoder.know_stack(&need(STACK)?)?;
        }
        if let Some(start) = format(START)? {
            decoder.know_start(&start)?;
            named.push(START);
        }
        for event in CALLS {
            if let Some(call) = format(event)? {
                decoder.know_call(&call)?;
                named.push(event);
            }
        }
        // Whoever asks for a reason asks for migrations alone.
        for event in OTHERS.into_iter().filter(|_| options.wanted.reasons.is_empty()) {
            if let Some(other) = format(event)? {
                decoder.know_other(&other);
                named.push(event);
            }
        }
        Ok(Self { decoder, named })
    }
}

/// Sets an instance up; no event is on yet.
fn prepare(
    instance: &Instance,
    options: &Options,
    reasons: &BTreeSet<i64>,
) -> Result<(), TraceError> {
    // The clock that user space has too, the same on all CPUs.
    instance.write("trace_clock", "mono")?;
    // Until all events are on and vmstat has been read: to switch an event on takes a while.
    instance.write("tracing_on", "0")?;
    // So that a process that has exited is known by its threads; kernels before 4.13 lack it.
    let _ = instance.write("options/record-tgid", "1");
    if let Some(buffer) = options.buffer {
        instance.write("buffer_size_kb", &(buffer.get() / 1024).max(8).to_string())?;
    }
    if options.stacks {
        instance.write(Path::new("events").join(END).join("trigger"), "stacktrace")?;
    }
    if !reasons.is_empty() {
        let any: Vec<_> = reasons.iter().map(|reason| format!("reason == {reason}")).collect();
        for event in [END, START] {
            instance.write(Path::new("events").join(event).join("filter"), &any.join(" || "))?;
        }
    }
    Ok(())
}
