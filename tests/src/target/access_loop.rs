//! `loop AREA PASSES BEAT_MS MODE ACCESS THREAD...`: threads that use memory pass by pass, while the
//! kernel's NUMA balancing watches.
//!
//! ```text
//! pagetide-target loop a=anon:16M,node=0 50 20 1 read 2:0-4096
//! ```
//!
//! A thread is `CPU:FROM-UPTO`: it is bound to that CPU, and a pass of it reads (or writes) one word
//! of each base page `FROM..UPTO`, in order. Passes are counted, and begin on a beat: pass `k` of
//! thread `i` of `n` at `(k + i/n) * BEAT_MS`. What is left of its part of the beat the thread burns,
//! since the kernel scans on behalf of threads that do; then it sleeps. So one thread runs at a
//! time: which of two touches a page first is no matter of luck, and who changes a page table need
//! not wait for the other CPU, which takes an emulated one milliseconds.
//!
//! The first thread is the main thread, for the kernel treats an address space with one user
//! differently. The area is filled by a thread that has ended by then, and the main thread begins when
//! it has run for [`HEAD_START`]: a thread scans by the time that it ran, so its scans are due at
//! times that can be told beforehand.
//!
//! `kernel.numa_balancing` is MODE from after the area is filled until the last pass is over, and 0
//! then. Pages that wait in a per-CPU batch could not be isolated: the batches are emptied first.
//!
//! It prints, one line each: `elapsed_ms=N`, `node=N pages=N`, what changed in /proc/vmstat,
//! and `migrated reason=R succeeded=N failed=N` for each reason that the event
//! `migrate:mm_migrate_pages` gave meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::hint;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::area::Area;
use crate::error::{Error, Result, Tried};
use crate::spec::{AreaSpec, parse_id};
use crate::sys::{self, Mapping};

const SWITCH: &str = "/proc/sys/kernel/numa_balancing";
const EVENTS: &str = "/sys/kernel/tracing/instances/pagetide-target";
/// Room for an event of each page that may move, on each CPU.
const EVENTS_KIB: &str = "1024";

/// The first scan is put off by `scan_delay_ms` when a thread starts; that has passed when the loop
/// begins.
const SCAN_DELAY_MAX: Duration = Duration::from_millis(100);

/// For how long the main thread has run when the loop begins.
const HEAD_START: Duration = Duration::from_millis(545);

/// Time for the other threads to go to sleep until the loop begins.
const READY: Duration = Duration::from_millis(10);

/// What is to be done, as asked for.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) area: AreaSpec,
    pub(crate) passes: u32,
    pub(crate) beat: Duration,
    /// `kernel.numa_balancing` meanwhile.
    pub(crate) mode: u32,
    pub(crate) is_writing: bool,
    pub(crate) threads: Vec<Thread>,
}

/// One thread of the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) cpu: u32,
    /// Base pages of the area.
    pub(crate) pages: Range<usize>,
}

/// Reads `CPU:FROM-UPTO`.
pub(crate) fn parse_thread(text: &str) -> Result<Thread> {
    let wrong = || Error::Usage(format!("thread {text:?}: expected CPU:FROM-UPTO"));
    let (cpu, pages) = text.split_once(':').ok_or_else(wrong)?;
    let (from, upto) = pages.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<usize>().map_err(|_| wrong());
    let pages = number(from)?..number(upto)?;
    if pages.is_empty() {
        return Err(wrong());
    }
    Ok(Thread { cpu: parse_id(cpu).map_err(Error::Usage)?, pages })
}

/// Performs the loop and prints what it led to.
pub(crate) fn run(wanted: Loop) -> Result<()> {
    let area = thread::scope(|scope| {
        let filled = scope.spawn(|| Area::make(wanted.area.clone())).join();
        filled.unwrap_or_else(|_| Err(Error::Unmet("the filling thread panicked".to_owned())))
    })?;
    let mapping = &*area.mapping;
    if let Some(thread) = wanted.threads.iter().find(|thread| thread.pages.end > mapping.pages()) {
        return Err(Error::Usage(format!("{thread:?}: the area has {} pages", mapping.pages())));
    }
    let first = wanted.threads.first().ok_or_else(|| Error::usage("loop: give a thread"))?;
    bind_to(first.cpu)?;
    write("/proc/sys/vm/stat_refresh", "1")?;

    let events = Events::record()?;
    let before = vmstat()?;
    let (start, performed) = perform_all(&wanted, mapping)?;
    let elapsed = start.elapsed();
    write(SWITCH, "0")?;
    performed?;
    write("/proc/sys/vm/stat_refresh", "1")?;
    let after = vmstat()?;
    let migrated = events.finish()?;

    let path = "/proc/self/numa_maps";
    let numa_maps = fs::read_to_string(path).tried(|| format!("cannot read {path}"))?;
    let mut out = io::stdout().lock();
    let mut text = format!("elapsed_ms={}\n", elapsed.as_millis());
    for (node, pages) in pages_by_node(&numa_maps, mapping.start()) {
        text += &format!("node={node} pages={pages}\n");
    }
    for (name, value) in &after {
        let change = value - before.get(name).copied().unwrap_or(0);
        if change != 0 && is_told(name) {
            text += &format!("{name}={change}\n");
        }
    }
    for (reason, (succeeded, failed)) in migrated {
        text += &format!("migrated reason={reason} succeeded={succeeded} failed={failed}\n");
    }
    out.write_all(text.as_bytes()).tried(|| "cannot write to stdout".to_owned())
}

/// `N0=123 N1=45` of the mapping that starts at `start`. Unlike move_pages(2), numa_maps sees pages
/// that are marked for a hint fault on every kernel.
fn pages_by_node(numa_maps: &str, start: usize) -> Vec<(u32, u64)> {
    let head = format!("{start:x} ");
    let line = numa_maps.lines().find_map(|line| line.strip_prefix(&head)).unwrap_or_default();
    line.split(' ')
        .filter_map(|word| {
            let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
            Some((node.parse().ok()?, pages.parse().ok()?))
        })
        .collect()
}

fn is_told(name: &str) -> bool {
    ["numa_", "pgmigrate_", "pgpromote_", "pgdemote_", "thp_migration_"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn bind_to(cpu: u32) -> Result<()> {
    sys::set_affinity(&[cpu]).tried(|| format!("cannot run on CPU {cpu}"))
}

/// Starts the other threads, turns balancing on, and performs all passes; gives when they began.
fn perform_all(wanted: &Loop, mapping: &Mapping) -> Result<(Instant, Result<()>)> {
    let start = OnceLock::new();
    let performed = thread::scope(|scope| {
        let begin = &start;
        let other = |index| scope.spawn(move || perform(wanted, index, mapping, *begin.wait()));
        let others: Vec<_> = (1..wanted.threads.len()).map(other).collect();
        let ready = make_ready(wanted.mode);
        let begin = *start.get_or_init(|| Instant::now() + READY);
        let mut results = vec![ready.and_then(|()| perform(wanted, 0, mapping, begin))];
        results.extend(others.into_iter().map(|other| {
            other.join().unwrap_or_else(|_| Err(Error::Unmet("a thread panicked".to_owned())))
        }));
        results.into_iter().collect::<Result<()>>()
    });
    let start = start.into_inner().ok_or_else(|| Error::Unmet("the loop never began".into()))?;
    Ok((start, performed))
}

/// No page waits in a batch, the main thread has run for [`HEAD_START`], and balancing is on.
fn make_ready(mode: u32) -> Result<()> {
    sys::empty_lru_batches().tried(|| "cannot empty the LRU batches".to_owned())?;
    let ran = || sys::thread_cpu_time().tried(|| "cannot read the thread's clock".to_owned());
    let ready = ran()?;
    if ready + SCAN_DELAY_MAX > HEAD_START {
        return Err(Error::Unmet(format!("making ready took {ready:?} of the thread's time")));
    }
    while ran()? < HEAD_START {
        burn();
    }
    write(SWITCH, &mode.to_string())
}

/// The passes of thread number `index`.
fn perform(wanted: &Loop, index: usize, mapping: &Mapping, start: Instant) -> Result<()> {
    let Thread { cpu, pages } = wanted.threads[index].clone();
    bind_to(cpu)?;
    let count = u32::try_from(wanted.threads.len()).unwrap_or(1);
    let part = wanted.beat / count;
    let offset = part * u32::try_from(index).unwrap_or(0);
    for pass in 0..wanted.passes {
        let begin = start + offset + wanted.beat * pass;
        thread::sleep(begin.saturating_duration_since(Instant::now()));
        for page in pages.clone() {
            let word = &mapping.page(page)[0];
            if wanted.is_writing {
                word.store(u64::from(pass), Ordering::Relaxed);
            } else {
                hint::black_box(word.load(Ordering::Relaxed));
            }
        }
        while Instant::now() < begin + part {
            burn();
        }
    }
    Ok(())
}

/// Some microseconds.
fn burn() {
    for spin in 0..1000 {
        hint::black_box(spin);
    }
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, text).tried(|| format!("cannot write {text} to {}", path.display()))
}

fn vmstat() -> Result<BTreeMap<String, i64>> {
    let path = "/proc/vmstat";
    let text = fs::read_to_string(path).tried(|| format!("cannot read {path}"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}

/// An instance of tracefs that records migrations; removed on drop.
struct Events;

impl Events {
    fn record() -> Result<Self> {
        fs::create_dir(EVENTS).tried(|| format!("cannot create {EVENTS} (is tracefs mounted?)"))?;
        let events = Self;
        write(Path::new(EVENTS).join("buffer_size_kb"), EVENTS_KIB)?;
        write(Path::new(EVENTS).join("events/migrate/mm_migrate_pages/enable"), "1")?;
        Ok(events)
    }

    /// Pages that moved and that failed to, by reason.
    fn finish(self) -> Result<BTreeMap<String, (u64, u64)>> {
        write(Path::new(EVENTS).join("tracing_on"), "0")?;
        let path = Path::new(EVENTS).join("trace");
        let text = fs::read_to_string(&path).tried(|| format!("cannot read {}", path.display()))?;
        Ok(by_reason(&text))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(fs::remove_dir(EVENTS));
    }
}

fn by_reason(trace: &str) -> BTreeMap<String, (u64, u64)> {
    let mut reasons = BTreeMap::<String, (u64, u64)>::new();
    for line in trace.lines().filter(|line| line.contains(" mm_migrate_pages: ")) {
        let field = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str| field(name).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let sums = reasons.entry(field("reason").unwrap_or("unknown").to_owned()).or_default();
        sums.0 += number("nr_succeeded");
        sums.1 += number("nr_failed");
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_a_cpu_and_a_range_of_pages() {
        assert_eq!(parse_thread("2:0-4096").unwrap(), Thread { cpu: 2, pages: 0..4096 });
        for text in ["", "2", "2:5", "2:5-5", "2:6-5", "x:0-1", "2:0-x"] {
            assert!(parse_thread(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pages_are_those_of_the_mapping_that_starts_there() {
        let numa_maps = "7f00 default anon=9 N0=9 kernelpagesize_kB=4\n\
                         7f0000 default anon=5 dirty=5 active=0 N0=3 N2=2 kernelpagesize_kB=4\n";
        assert_eq!(pages_by_node(numa_maps, 0x7f_0000), [(0, 3), (2, 2)]);
        assert_eq!(pages_by_node(numa_maps, 0x7f), []);
    }

    #[test]
    fn migrations_are_summed_by_reason() {
        let trace = "# tracer: nop\n\
            x-1 [002] ..... 1.0: mm_migrate_pages: nr_succeeded=1 nr_failed=0 nr_thp_succeeded=0 \
            nr_thp_failed=0 nr_thp_split=0 nr_split=0 mode=MIGRATE_ASYNC reason=numa_misplaced\n\
            x-1 [002] ..... 1.0: mm_migrate_pages: nr_succeeded=0 nr_failed=1 nr_thp_succeeded=0 \
            nr_thp_failed=0 nr_thp_split=0 nr_split=0 mode=MIGRATE_ASYNC reason=numa_misplaced\n\
            k-9 [000] ..... 1.0: mm_migrate_pages: nr_succeeded=32 nr_failed=0 nr_thp_succeeded=0 \
            nr_thp_failed=0 nr_thp_split=0 mode=MIGRATE_ASYNC reason=demotion\n";
        let sums = by_reason(trace);
        assert_eq!(sums["numa_misplaced"], (1, 1));
        assert_eq!(sums["demotion"], (32, 0));
    }
}
