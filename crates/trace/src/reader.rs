//! Reads the ring buffers of all CPUs, and brings their events into the order of time.
//!
//! A buffer is in order; two buffers are not read at the same moment. So events are given out up to
//! the time at which a round of reading began, less a little: whatever is older has been seen then.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::time::Duration;

use linux::tracefs::ring::{BadPage, Lost, Page, PageLayout};
use linux::tracefs::{Instance, TraceError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::decode::{Decoder, Seen, What};
use crate::event::Gap;

/// A writer that was interrupted between taking its time stamp and its place is not waited for longer.
const SLACK_NS: u64 = 1_000_000;

/// While a CPU has no buffer, no wait is longer: it may have got one.
const NEWS_OF_CPUS: Duration = Duration::from_secs(1);

/// The way to the buffer of a CPU.
#[derive(Debug)]
struct Pipe {
    cpu: u32,
    file: File,
    /// A CPU gets its buffer when it is first online, and a poll of a pipe without one ends at once.
    has_buffer: bool,
    /// The time of the last event that was read.
    last_ns: u64,
}

impl Pipe {
    const fn new(cpu: u32, file: File) -> Self {
        Self { cpu, file, has_buffer: true, last_ns: 0 }
    }

    /// Reads a page of the buffer; `None` when there is none.
    fn read(&mut self, page: &mut [u8]) -> io::Result<Option<usize>> {
        let result = self.file.read(page);
        // ENODEV: kernel, kernel/trace/ring_buffer.c, `ring_buffer_alloc_read_page`, 6.1 to 7.3.
        self.has_buffer =
            !result.as_ref().is_err_and(|e| Errno::from_io_error(e) == Some(Errno::NODEV));
        match result {
            Ok(bytes) => Ok(Some(bytes).filter(|&bytes| bytes > 0)),
            Err(_) if !self.has_buffer => Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The open buffers, and events that are too young to be given out.
#[derive(Debug)]
pub(crate) struct Reader {
    pipes: Vec<Pipe>,
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
        let open = |cpu| Ok(Pipe::new(cpu, instance.open_pipe(cpu)?));
        let pipes = instance.cpus()?.into_iter().map(open).collect::<Result<_, TraceError>>()?;
        Ok(Self { pipes, layout, page: vec![0; layout.page_bytes], young: Vec::new() })
    }

    /// Waits until a buffer is as full as the instance's `buffer_percent` says, a signal comes, or the
    /// time is over; gives whether a buffer is.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let is_whole = self.pipes.iter().all(|pipe| pipe.has_buffer);
        let timeout = if is_whole { timeout } else { timeout.min(NEWS_OF_CPUS) };
        let files = self.pipes.iter().filter(|pipe| pipe.has_buffer).map(|pipe| &pipe.file);
        wait_for(files, timeout)
    }

    /// Whether an event waits until it is old enough to be given out.
    pub(crate) fn has_young(&self) -> bool {
        !self.young.is_empty()
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
        let Self { pipes, layout, page, young } = self;
        let pipe = &mut pipes[at];
        let Some(bytes) = pipe.read(page)? else { return Ok(None) };
        let lost_at = |time_ns| Seen { time_ns, cpu: pipe.cpu, tid: 0, what: What::Lost };
        let page = match Page::parse(layout, &page[..bytes]) {
            Ok(page) => page,
            Err(bad) => {
                young.push(lost_at(pipe.last_ns));
                round.bad_pages.push(bad);
                return Ok(Some(0));
            }
        };
        if let Some(lost) = page.lost {
            young.extend([pipe.last_ns, page.time_ns].map(lost_at));
            let events = match lost {
                Lost::Events(events) => Some(events),
                Lost::Uncounted => None,
            };
            round.gaps.push(Gap { cpu: Some(pipe.cpu), events });
        }
        let mut last_ns = 0;
        for record in page.records() {
            match record {
                Ok(record) => {
                    last_ns = record.time_ns;
                    young.extend(decoder.decode(record.time_ns, pipe.cpu, record.event));
                }
                Err(bad) => {
                    young.push(lost_at(last_ns.max(pipe.last_ns)));
                    round.bad_pages.push(bad);
                }
            }
        }
        pipe.last_ns = pipe.last_ns.max(last_ns);
        Ok(Some(last_ns))
    }

    /// Events up to this time.
    fn take(&mut self, upto_ns: u64) -> Vec<Seen> {
        self.young.sort_by_key(|seen| seen.time_ns);
        let old = self.young.partition_point(|seen| seen.time_ns <= upto_ns);
        self.young.drain(..old).collect()
    }
}

/// Waits until one of the files can be read, a signal comes, or the time is over; gives whether one can.
pub(crate) fn wait_for<'a, F: AsFd + 'a>(
    files: impl IntoIterator<Item = &'a F>,
    timeout: Duration,
) -> io::Result<bool> {
    let mut fds: Vec<_> = files.into_iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The time of a clock.
pub(crate) fn now_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::Root;
    use linux::tracefs::format;
    use std::io::{Seek as _, Write as _};

    const PAGES: u64 = 300;
    const HEADER: usize = 16;

    /// The events of 6.12: the layout of pages, and the format of the end of a migration.
    fn formats() -> (PageLayout, format::Format) {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../linux/tests/fixtures/6.12");
        let events = Root::new(fixtures);
        let text = |file| events.read(format!("sys/kernel/tracing/events/{file}")).unwrap();
        let layout = PageLayout::parse(&text("header_page")).unwrap();
        (layout, format::parse(&text("migrate/mm_migrate_pages/format")).unwrap())
    }

    fn event_bytes(end: &format::Format) -> usize {
        end.fields.iter().map(|field| field.offset + field.bytes).max().unwrap()
    }

    /// A page of so many ends of migrations, one every 100 ns, the first at `first_ns`.
    fn page(
        layout: &PageLayout,
        end: &format::Format,
        first_ns: u64,
        records: usize,
        flags: u64,
    ) -> Vec<u8> {
        let bytes = event_bytes(end);
        let mut event = vec![0; bytes];
        event[..2].copy_from_slice(&end.id.to_ne_bytes());
        let commit = (records * (4 + bytes)) as u64 | flags;
        let mut page = [first_ns.to_ne_bytes(), commit.to_ne_bytes()].concat();
        for record in 0..records {
            let delta = if record == 0 { 0 } else { 100 };
            let words = u32::try_from(bytes / 4).unwrap();
            page.extend_from_slice(&(words | delta << 5).to_ne_bytes());
            page.extend_from_slice(&event);
        }
        page.resize(layout.page_bytes, 0);
        page
    }

    /// Full pages, the first event at `first_ns`; gives how many events there are.
    fn storm(layout: &PageLayout, end: &format::Format, first_ns: u64) -> (Vec<Vec<u8>>, u64) {
        let per_page = (layout.page_bytes - HEADER) / (4 + event_bytes(end));
        let page_ns = |at: u64| first_ns + at * per_page as u64 * 100;
        let pages = (0..PAGES).map(|at| page(layout, end, page_ns(at), per_page, 0));
        (pages.collect(), PAGES * per_page as u64)
    }

    /// Reads pages, by CPU, to their end.
    fn read(layout: PageLayout, end: &format::Format, by_cpu: Vec<Vec<Vec<u8>>>) -> Round {
        let pipe = |(cpu, pages): (u32, Vec<Vec<u8>>)| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&pages.concat()).unwrap();
            file.rewind().unwrap();
            Pipe::new(cpu, file)
        };
        let pipes = (0..).zip(by_cpu).map(pipe).collect();
        let page = vec![0; layout.page_bytes];
        let mut reader = Reader { pipes, layout, page, young: Vec::new() };
        reader.read_all(&Decoder::new(end).unwrap()).unwrap()
    }

    #[test]
    fn a_storm_on_two_cpus_is_read_whole_and_in_the_order_of_time() {
        let (layout, end) = formats();
        let (pages, counts): (Vec<_>, Vec<_>) =
            [7, 57].map(|first_ns| storm(&layout, &end, first_ns)).into_iter().unzip();
        let round = read(layout, &end, pages);
        assert_eq!((round.gaps.len(), round.bad_pages.len()), (0, 0));
        let times: Vec<u64> = round.seen.iter().map(|seen| seen.time_ns).collect();
        let expected: Vec<u64> = (0..counts.iter().sum()).map(|event| 7 + event * 50).collect();
        assert_eq!(times, expected);
    }
    #[test]
    fn a_gap_has_its_beginning_and_its_end_among_the_events_of_all_cpus() {
        const EVENTS_LOST: u64 = 1 << 31;
        let (layout, end) = formats();
        let by_cpu = [
            vec![page(&layout, &end, 100, 2, 0), page(&layout, &end, 500, 1, EVENTS_LOST)],
            vec![page(&layout, &end, 300, 1, 0)],
        ];
        let round = read(layout, &end, by_cpu.into());
        assert_eq!(round.gaps, [Gap { cpu: Some(0), events: None }]);
        let seen = round.seen.iter().map(|seen| (seen.time_ns, seen.cpu, seen.what == What::Lost));
        let expected =
            [(100, 0, false), (200, 0, false), (200, 0, true), (300, 1, false), (500, 0, true)];
        assert_eq!(seen.collect::<Vec<_>>(), [&expected[..], &[(500, 0, false)]].concat());
    }

    #[test]
    fn a_page_that_makes_no_sense_is_a_gap() {
        let (layout, end) = formats();
        let mut bad = page(&layout, &end, 300, 1, 0);
        bad[HEADER..HEADER + 4].copy_from_slice(&28_u32.to_ne_bytes());
        let pages = vec![page(&layout, &end, 100, 1, 0), bad, page(&layout, &end, 500, 1, 0)];
        let round = read(layout, &end, vec![pages]);
        assert_eq!(round.bad_pages.len(), 1);
        let lost: Vec<bool> = round.seen.iter().map(|seen| seen.what == What::Lost).collect();
        assert_eq!(lost, [false, true, false]);
    }
}
