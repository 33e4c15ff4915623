//! Who traces inside the run, and what each is still to be told.
//!
//! A tracer (`pagetide trace` under `pagetide run`) connects to a socket of ours, in the abstract
//! namespace: so it is there however files are shown, needs no right, and is gone when we are. Whoever
//! is no process of the run is hung up on. [`trace::stream`] is what both sides say.
//!
//! Nothing here waits for a tracer. What its socket does not take is kept, up to the size that it asked
//! for; what is beyond is lost, counted, and told as lost when there is room again.
//!
//! The supervisor calls [`Tracers::serve`] when [`Tracers::poll_fd`] is readable, and
//! [`Tracers::tell`] for each call while [`Tracers::is_any`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{SystemTime, UNIX_EPOCH};

use linux::Root;
use linux::proc::status;
use model::{Counter, Machine, MigrateCounts, MigrateReason};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use trace::event::{Counts, Migration, Occasion, Owner};
use trace::stream::{Asked, TIMES_MAX, Told};

use crate::call::Call;
use crate::sys::peer;
use crate::target;
use crate::world::World;

/// What an event of the epoll is about; other numbers are those of tracers.
const LISTENER: u64 = 0;
/// The longest question.
const QUESTION: usize = 4096;
/// Nobody is kept more for.
const BUFFER_MAX: usize = 1 << 30;

/// Everybody who traces.
#[derive(Debug)]
pub(crate) struct Tracers {
    name: String,
    listener: UnixListener,
    poll: OwnedFd,
    tracers: BTreeMap<u64, Tracer>,
    last: u64,
}

/// One who traces.
#[derive(Debug)]
struct Tracer {
    stream: UnixStream,
    stage: Stage,
    pending: VecDeque<u8>,
    lost: usize,
}

/// Migrations that are one line.
struct Line {
    times: usize,
    text: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// It has said this much of what it wants.
    Asks(Vec<u8>),
    /// It is told what happens, and this much is kept for it.
    Follows { buffer: usize },
    /// It needs no more than what is pending.
    Leaves,
}

impl Tracers {
    /// Nobody yet.
    ///
    /// # Errors
    ///
    /// No socket is to be had.
    pub(crate) fn new() -> io::Result<Self> {
        let (pid, now_ns) = (std::process::id(), now_ns());
        let name = format!("pagetide-run-{pid}-{now_ns:x}");
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { name, listener, poll, tracers: BTreeMap::new(), last: LISTENER })
    }

    /// The socket's name in the abstract namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// Whether somebody follows.
    pub(crate) fn is_any(&self) -> bool {
        self.tracers.values().any(Tracer::follows)
    }

    /// Takes in who connects, asks or leaves, and sends on what was kept.
    pub(crate) fn serve(&mut self, world: &mut World) {
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok(count) = epoll::wait(&self.poll, &mut events, Some(&at_once)) else { return };
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => self.accept(world),
                number => self.advance(number, |tracer| tracer.listen(&world.machine)),
            }
        }
    }

    fn accept(&mut self, world: &mut World) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let peer = peer::pid(&stream).ok().flatten();
        if peer.and_then(|pid| world.process_of(pid)).is_none() {
            return;
        }
        self.last += 1;
        let data = EventData::new_u64(self.last);
        if epoll::add(&self.poll, &stream, data, EventFlags::IN).is_ok() {
            let stage = Stage::Asks(Vec::new());
            let tracer = Tracer { stream, stage, pending: VecDeque::new(), lost: 0 };
            self.tracers.insert(self.last, tracer);
        }
    }

    /// Tells what a call moved, before its caller goes on.
    pub(crate) fn tell(&mut self, world: &mut World, call: &Call, events: &[model::Event]) {
        let is_end = |event: &&model::Event| matches!(event, model::Event::MigratePages { .. });
        let ended: Vec<_> = events.iter().filter(is_end).collect();
        if ended.is_empty() {
            return;
        }
        let whose = Whose::of(world, call);
        let alike = ended.chunk_by(|one, next| one == next);
        let few = alike.flat_map(|alike| alike.chunks(TIMES_MAX));
        let lines: Vec<_> = few.filter_map(|few| whose.line(few)).collect();
        for number in self.tracers.keys().copied().collect::<Vec<_>>() {
            self.advance(number, |tracer| tracer.tell(&lines));
        }
    }

    /// Lets one go on, by what `step` does, and hangs up on who has gone or has all.
    fn advance(&mut self, number: u64, step: impl FnOnce(&mut Tracer) -> io::Result<()>) {
        let Some(tracer) = self.tracers.get_mut(&number) else { return };
        let stays = step(tracer).and_then(|()| tracer.send()).and_then(|()| {
            Ok(epoll::modify(
                &self.poll,
                &tracer.stream,
                EventData::new_u64(number),
                tracer.waits_for(),
            )?)
        });
        let has_all = matches!(tracer.stage, Stage::Leaves) && tracer.pending.is_empty();
        if stays.is_err() || has_all {
            self.tracers.remove(&number);
        }
    }
}

impl Tracer {
    const fn follows(&self) -> bool {
        matches!(self.stage, Stage::Follows { .. })
    }

    fn waits_for(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !matches!(self.stage, Stage::Leaves));
        flags.set(EventFlags::OUT, !self.pending.is_empty());
        flags
    }

    /// Hears what it wants, or that it wants no more.
    fn listen(&mut self, machine: &Machine) -> io::Result<()> {
        let mut bytes = [0; 256];
        let count = match recv(&self.stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match &mut self.stage {
            Stage::Asks(_) if count == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Stage::Asks(asked) => {
                asked.extend(&bytes[..count]);
                if asked.len() > QUESTION {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if asked.ends_with(b"\n") {
                    let Asked { buffer_bytes } = serde_json::from_slice(asked)?;
                    let buffer =
                        usize::try_from(buffer_bytes).map_or(BUFFER_MAX, |it| it.min(BUFFER_MAX));
                    self.stage = Stage::Follows { buffer };
                    let reasons = MigrateReason::ALL.iter().map(|it| it.name().to_owned());
                    self.say(&Told::Begun {
                        reasons: reasons.collect(),
                        counted: counted(machine),
                    });
                }
                Ok(())
            }
            Stage::Follows { .. } if count == 0 => {
                self.stage = Stage::Leaves;
                self.say_lost();
                self.say(&Told::Ended { counted: counted(machine) });
                Ok(())
            }
            Stage::Follows { .. } | Stage::Leaves => Ok(()),
        }
    }

    fn tell(&mut self, lines: &[Line]) -> io::Result<()> {
        let Stage::Follows { buffer } = self.stage else { return Ok(()) };
        for Line { times, text } in lines {
            if self.pending.len() + text.len() > buffer {
                self.send()?;
            }
            if self.pending.len() + text.len() > buffer {
                self.lost += times;
            } else {
                self.say_lost();
                self.pending.extend(text);
            }
        }
        Ok(())
    }

    fn say_lost(&mut self) {
        let events = std::mem::take(&mut self.lost);
        if events > 0 {
            self.say(&Told::Lost { events });
        }
    }

    fn say(&mut self, told: &Told) {
        self.pending.extend(line(told).unwrap_or_default());
    }

    /// Sends what its socket takes.
    fn send(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let (first, _) = self.pending.as_slices();
            match send(&self.stream, first, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Who called, and whose pages the call is about.
struct Whose {
    occasion: Occasion,
    caller: Owner,
    target: Owner,
}

impl Whose {
    fn of(world: &mut World, call: &Call) -> Self {
        let caller = owner(world.process_of_met(call.tid).unwrap_or(call.tid));
        let cpu = world.task(call.tid).and_then(|task| world.machine.cpu(task));
        let occasion = Occasion {
            time_ns: now_ns(),
            cpu: cpu.map_or(0, machine::CpuId::get),
            tid: call.tid,
            pid: Some(caller.pid),
            process: caller.name.clone(),
        };
        Self { occasion, caller, target: owner(target::process_about(world, call)) }
    }

    /// Tells migrations that are alike; `None` for anything else.
    fn line(&self, alike: &[&model::Event]) -> Option<Line> {
        let &&model::Event::MigratePages { counts, has_split_field, mode, reason, path } =
            alike.first()?
        else {
            return None;
        };
        let pages_of = match reason {
            MigrateReason::Syscall => Some(self.target.clone()),
            MigrateReason::MempolicyMbind => Some(self.caller.clone()),
            _ => None,
        };
        let mut stack: Vec<_> = path.names().map(str::to_owned).collect();
        stack.reverse();
        let migration = Migration {
            occasion: self.occasion.clone(),
            reason: reason.name().to_owned(),
            mode: mode.name().to_owned(),
            counts: as_told(&counts, has_split_field),
            duration_ns: None,
            pages_of,
            stack: stack.into(),
        };
        let times = alike.len();
        Some(Line { times, text: line(&Told::Migration { times, migration })? })
    }
}

fn owner(pid: u32) -> Owner {
    let name = status::read(&Root::default(), pid).map(|status| status.name);
    Owner { pid, name: name.unwrap_or_default() }
}

fn as_told(counts: &MigrateCounts, has_split_field: bool) -> Counts {
    Counts {
        succeeded_pages: counts.succeeded,
        failed_pages: counts.failed,
        thp_succeeded: counts.thp_succeeded,
        thp_failed: counts.thp_failed,
        thp_split: counts.thp_split,
        large_folio_split: has_split_field.then_some(counts.large_folio_split),
    }
}

/// What `/proc/vmstat` says.
fn counted(machine: &Machine) -> Counts {
    let count = |counter| machine.counters().get(counter);
    Counts {
        succeeded_pages: count(Counter::PgmigrateSuccess),
        failed_pages: count(Counter::PgmigrateFail),
        thp_succeeded: count(Counter::ThpMigrationSuccess),
        thp_failed: count(Counter::ThpMigrationFail),
        thp_split: count(Counter::ThpMigrationSplit),
        large_folio_split: None,
    }
}

fn line(told: &Told) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(told).ok()?;
    line.push(b'\n');
    Some(line)
}

/// Since 1970, UTC.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    const LINES: usize = 50_000;

    /// A tracer that keeps this much, and its reader.
    fn tracer(buffer: usize) -> (Tracer, UnixStream) {
        let (stream, reader) = UnixStream::pair().unwrap();
        let stage = Stage::Follows { buffer };
        (Tracer { stream, stage, pending: VecDeque::new(), lost: 0 }, reader)
    }

    fn lines(numbers: std::ops::Range<usize>) -> Vec<Line> {
        let line = |number| Line { times: 3, text: format!("migration {number}\n").into_bytes() };
        numbers.map(line).collect()
    }

    #[test]
    fn a_slow_reader_loses_what_does_not_fit_and_is_told_how_much_and_where() {
        let (mut tracer, mut reader) = tracer(100);
        tracer.tell(&lines(0..LINES)).unwrap();
        let lost = tracer.lost / 3;
        assert!(lost > 0 && tracer.pending.len() <= 100, "{lost}");
        // What it has read makes room for the next.
        let mut read = vec![0; 1 << 20];
        let mut count = reader.read(&mut read).unwrap();
        tracer.tell(&lines(LINES..LINES + 1)).unwrap();
        tracer.send().unwrap();
        drop(tracer);
        while let more @ 1.. = reader.read(&mut read[count..]).unwrap() {
            count += more;
        }
        let text = String::from_utf8(read[..count].to_vec()).unwrap();
        let mut expected: String = lines(0..LINES - lost)
            .into_iter()
            .map(|line| String::from_utf8(line.text).unwrap())
            .collect();
        expected += &format!("{{\"event\":\"lost\",\"events\":{}}}\nmigration {LINES}\n", 3 * lost);
        assert!(text == expected, "{lost} lost, {} of {} bytes", text.len(), expected.len());
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_no_signal() {
        let (mut tracer, reader) = tracer(100);
        drop(reader);
        let error = tracer.tell(&lines(0..100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
