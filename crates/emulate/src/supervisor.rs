//! The loop: receives calls, answers each at once, and sees processes end.
//!
//! One thread, and no call is ever parked: the kernel walks the list of all open notifications for
//! each of its operations, so a thousand that wait would make every call forty times dearer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};

use crate::call::{Answer, Call};
use crate::callers::Callers;
use crate::calls;
use crate::explain::Explain;
use crate::keeper::Keeper;
use crate::launch::Child;
use crate::report::Recorder;
use crate::shown::Shown;
use crate::signals::Signals;
use crate::tracers::Tracers;
use crate::world::World;

// What an event is about; larger numbers are process ids of the world.
const SIGNALS: u64 = u64::MAX;
const SHOWN: u64 = u64::MAX - 1;
const TRACERS: u64 = u64::MAX - 2;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What a poll has seen.
#[derive(Debug)]
struct Ready {
    listener: PollFlags,
    others: bool,
}

/// Everything that takes part.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) world: World,
    pub(crate) shown: Shown,
    pub(crate) explain: Option<Explain>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) tracers: Option<Tracers>,
    pub(crate) watch: OwnedFd,
    pub(crate) signals: Signals,
    pub(crate) child: Child,
    pub(crate) callers: Callers,
    pub(crate) keeper: Keeper,
    pub(crate) status: Option<WaitStatus>,
}

impl Supervisor {
    /// Serves until the last process of the tree has ended; the wait status of the first.
    ///
    /// # Errors
    ///
    /// What poll and epoll say.
    pub(crate) fn serve(&mut self) -> io::Result<Option<WaitStatus>> {
        crate::process::allow_many();
        let add = |file: &dyn AsFd, number| {
            epoll::add(&self.watch, file.as_fd(), EventData::new_u64(number), EventFlags::IN)
        };
        add(&self.signals, SIGNALS)?;
        if let Some(file) = self.shown.poll_fd() {
            add(&file, SHOWN)?;
        }
        if let Some(tracers) = &self.tracers {
            add(&tracers.poll_fd(), TRACERS)?;
        }
        self.keep_events_if_wanted();
        self.world.process_of(self.child.pid);
        // The program is not there yet: the calls until then are of our own making.
        self.world.execs(self.child.pid, self.child.pid);
        self.shown.started(&mut self.world, self.child.pid, self.child.entered);
        let mut seen = None;
        loop {
            let ready = self.wait(seen.take())?;
            if ready.others {
                self.asides()?;
            }
            if ready.listener.contains(PollFlags::IN) {
                seen = self.next_call()?;
            } else if ready.listener.contains(PollFlags::HUP) {
                break;
            }
        }
        // The listener may tell before the descriptors of the last processes do.
        for pid in self.world.processes.keys().copied().collect::<Vec<_>>() {
            self.end(pid);
        }
        self.shown.close();
        self.keeper.end();
        self.wait_for_first();
        self.reap();
        Ok(self.status)
    }

    /// What is ready: what was seen already, or comes next.
    fn wait(&mut self, seen: Option<Ready>) -> io::Result<Ready> {
        let began = Instant::now();
        let ready = seen.map_or_else(|| self.ready(None), Ok)?;
        self.callers.waited(began.elapsed());
        Ok(ready)
    }

    /// Waits for the listener or for any other, at most for `timeout`.
    ///
    /// The listener is polled itself, beside an epoll of the others: the kernel then wakes us on the CPU
    /// of the caller, which is about to sleep. Through an epoll it would look for an idle CPU, and caller
    /// and supervisor would change places at each call.
    fn ready(&self, timeout: Option<&Timespec>) -> io::Result<Ready> {
        let files = [self.child.listener.as_fd(), self.watch.as_fd()];
        let mut files = files.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN));
        retry_on_intr(|| poll(&mut files, timeout))?;
        Ok(Ready { listener: files[0].revents(), others: !files[1].revents().is_empty() })
    }

    /// Everything but calls. It comes first: a number of a process that has ended may be in use
    /// again.
    fn asides(&mut self) -> io::Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        let count = retry_on_intr(|| epoll::wait(&self.watch, &mut events, Some(&NOW)))?;
        events[..count].iter().for_each(|event| self.aside(event.data.u64()));
        Ok(())
    }

    fn aside(&mut self, number: u64) {
        match number {
            SIGNALS => self.signals.forward(&self.child),
            SHOWN => self.shown.serve(&mut self.world),
            TRACERS => {
                if let Some(tracers) = &mut self.tracers {
                    tracers.serve(&mut self.world);
                    self.keep_events_if_wanted();
                }
            }
            pid => {
                let Ok(pid) = u32::try_from(pid) else { return };
                self.end(pid);
            }
        }
    }

    /// A process has ended.
    fn end(&mut self, pid: u32) {
        self.shown.gone(&self.world, pid);
        self.world.end_process(pid);
        if let Some(recorder) = &mut self.recorder {
            recorder.ended(pid);
        }
        self.reap();
    }

    /// Receives a call and answers it. What was seen meanwhile, if another call waits.
    fn next_call(&mut self) -> io::Result<Option<Ready>> {
        // ENOENT: the caller went away meanwhile.
        let Ok(call) = self.child.listener.receive() else { return Ok(None) };
        self.callers.called(call.tid);
        let seen = self.look_behind()?;
        self.child.listener.wake_here(self.callers.is_best_woken_here());
        if let Some(recorder) = &mut self.recorder {
            recorder.received(&mut self.world, &call);
        }
        let shown = self.shown.answer(&mut self.world, &self.child.listener, &call);
        let answer = shown.unwrap_or_else(|| calls::answer(&mut self.world, &call));
        while let Some(pid) = self.world.news.pop_first() {
            self.shown.known(&mut self.world, pid);
        }
        while let Some(pid) = self.world.ended.pop_first() {
            self.end(pid);
        }
        if self.world.machine.is_traced() {
            self.tell(&call, answer);
        }
        // A caller that has gone needs no answer.
        let _ = self.child.listener.send(call.id, answer);
        // Who calls next wakes us by the same flag.
        self.child.listener.wake_here(!self.callers.are_crowd());
        Ok(seen)
    }

    /// What there is besides the last call, which is not answered yet, if another call waits.
    fn look_behind(&mut self) -> io::Result<Option<Ready>> {
        if !self.callers.may_wait_behind() {
            return Ok(None);
        }
        let seen = Some(self.ready(Some(&NOW))?).filter(|it| it.listener.contains(PollFlags::IN));
        self.callers.waits_behind(seen.is_some());
        Ok(seen)
    }

    fn tell(&mut self, call: &Call, answer: Answer) {
        let events = self.world.machine.take_events();
        if let Some(tracers) = &mut self.tracers {
            tracers.tell(&mut self.world, call, &events);
        }
        let moves = model::explain(&events);
        if let Some(explain) = &mut self.explain
            && answer != Answer::Continue
            && calls::is_numa_call(call)
            && let Err(error) = explain.call(call, answer, &moves)
        {
            // The program goes on.
            crate::say(&format!("from here on calls are not told: cannot write them: {error}"));
            self.explain = None;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.answered(&mut self.world, call, answer, &moves);
        }
    }

    /// The machine keeps its events while somebody wants them, and no longer.
    fn keep_events_if_wanted(&mut self) {
        let is_told = self.explain.is_some() || self.recorder.is_some();
        let is_wanted = is_told || self.tracers.as_ref().is_some_and(Tracers::is_any);
        let machine = &mut self.world.machine;
        match (machine.is_traced(), is_wanted) {
            (false, true) => machine.trace_on(),
            (true, false) => machine.trace_off(),
            _ => {}
        }
    }

    /// Takes the status of children that have ended: the first, and those whose parents ended
    /// before them, whatever process groups they have made.
    fn reap(&mut self) {
        let first = Pid::from_raw(self.child.pid.cast_signed());
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == first {
                self.status = Some(status);
            }
        }
    }

    /// Waits for the first process, which has ended or is about to. There may be children that have
    /// not: those of the program that became us by its exec.
    fn wait_for_first(&mut self) {
        if self.status.is_none() {
            let first = Pid::from_raw(self.child.pid.cast_signed());
            let ended = retry_on_intr(|| waitpid(first, WaitOptions::empty()));
            self.status = ended.ok().flatten().map(|(_, status)| status);
        }
    }
}
