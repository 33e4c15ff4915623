//! Reads the ring buffers of all CPUs, and brings their events into the order of time.
//!
//! A buffer is in order; two buffers are not read at the same moment. So events are given out up to
//! the time at which a round of reading began, less a little: whatever is older has been seen then.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use linux::tracefs::ring::{BadPage, Lost, Page, PageLayout};
use linux::tracefs::{Instance, TraceError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::decode::{Decoder, Seen};
use crate::event::Gap;

/// A writer that was interrupted between taking its time stamp and its place is not waited for longer.
const SLACK_NS: u64 = 1_000_000;

/// The open buffers, and events that are too young to be given out.
#[derive(Debug)]
pub(crate) struct Reader {
    pipes: Vec<(u32, File)>,
    layout: PageLayout,
    page: Vec<u8>,
    young: Vec<Seen>,
}

/// What a round of reading found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// In the order of time.
    pub(crate) seen: Vec<Seen>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) bad_pages: Vec<BadPage>,
}

impl Reader {
    /// Opens the buffers of an instance.
    pub(crate) fn open(instance: &Instance, layout: PageLayout) -> Result<Self, TraceError> {
        let open = |cpu| Ok((cpu, instance.open_pipe(cpu)?));
        let pipes = instance.cpus()?.into_iter().map(open).collect::<Result<_, TraceError>>()?;
        Ok(Self { pipes, layout, page: vec![0; layout.page_bytes], young: Vec::new() })
    }

    /// Waits until a buffer is half full, a signal comes, or the time is over.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut fds: Vec<_> =
            self.pipes.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what there is, and gives what is old enough to be in order.
    pub(crate) fn read(&mut self, decoder: &Decoder) -> io::Result<Round> {
        let began_ns = now_ns(ClockId::Monotonic);
        let mut round = Round::default();
        for at in 0..self.pipes.len() {
            while self.read_page(at, decoder, &mut round)?.is_some_and(|last| last < began_ns) {}
        }
        round.seen = self.take(began_ns.saturating_sub(SLACK_NS));
        Ok(round)
    }

    /// Reads everything. Tracing must be off, or this may never end.
    pub(crate) fn read_all(&mut self, decoder: &Decoder) -> io::Result<Round> {
        let mut round = Round::default();
        for at in 0..self.pipes.len() {
            while self.read_page(at, decoder, &mut round)?.is_some() {}
        }
        round.seen = self.take(u64::MAX);
        Ok(round)
    }

    /// Reads one page of a buffer, and gives the time of its last event; `None` when there is none.
    fn read_page(
        &mut self,
        at: usize,
        decoder: &Decoder,
        round: &mut Round,
    ) -> io::Result<Option<u64>> {
        let (cpu, pipe) = &mut self.pipes[at];
        let bytes = match pipe.read(&mut self.page) {
            Ok(0) => return Ok(None),
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let page = match Page::parse(&self.layout, &self.page[..bytes]) {
            Ok(page) => page,
            Err(bad) => {
                round.bad_pages.push(bad);
                return Ok(Some(0));
            }
        };
        round.gaps.extend(page.lost.map(|lost| Gap {
            cpu: *cpu,
            events: match lost {
                Lost::Events(events) => Some(events),
                Lost::Uncounted => None,
            },
        }));
        let mut last_ns = 0;
        for record in page.records() {
            match record {
                Ok(record) => {
                    last_ns = record.time_ns;
                    self.young.extend(decoder.decode(record.time_ns, *cpu, record.event));
                }
                Err(bad) => round.bad_pages.push(bad),
            }
        }
        Ok(Some(last_ns))
    }

    /// Events up to this time.
    fn take(&mut self, upto_ns: u64) -> Vec<Seen> {
        self.young.sort_by_key(|seen| seen.time_ns);
        let old = self.young.partition_point(|seen| seen.time_ns <= upto_ns);
        self.young.drain(..old).collect()
    }
}

/// The time of a clock.
pub(crate) fn now_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
