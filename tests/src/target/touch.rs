//! The thread that keeps writing to an area while others move it.
//!
//! It counts in one word of every page: pass `n` finds `n - 1` there and leaves `n`. A page that
//! comes back from a move without its last write is lost, and is reported. The time between two
//! touches is what the area's owner would have waited: faults on migration entries, copies of the
//! page, and the scheduler alike.
//!
//! Pages are visited in scattered order, as a database would. One who walks in address order, as the
//! mover does, falls into step with it: then each page waits for the one before, both are slowed to a
//! crawl, and the longest wait says nothing about either.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::pattern::COUNTER_WORD;
use crate::sys::Mapping;

/// No page was lost.
const NO_PAGE: usize = usize::MAX;

/// A running touch thread; ends on drop.
pub(crate) struct Toucher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    is_over: AtomicBool,
    stall_ns_max: AtomicU64,
    lost_page: AtomicUsize,
}

impl Toucher {
    /// Returns when the thread has made its first pass: what it needs to run is there then.
    pub(crate) fn start(name: &str, mapping: Arc<Mapping>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            is_over: AtomicBool::new(false),
            stall_ns_max: AtomicU64::new(0),
            lost_page: AtomicUsize::new(NO_PAGE),
        });
        let theirs = Arc::clone(&shared);
        let (passed, first_pass) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(format!("touch-{name}"))
            .spawn(move || touch(&mapping, &theirs, &passed))?;
        // It ends when told so, and not before its first pass.
        let _ = first_pass.recv();
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The longest gap between two touches since the last call, or since the start.
    pub(crate) fn take_stall_ns(&self) -> u64 {
        self.shared.stall_ns_max.swap(0, Ordering::Relaxed)
    }

    /// A page that came back without the last write to it.
    pub(crate) fn lost_page(&self) -> Option<usize> {
        Some(self.shared.lost_page.load(Ordering::Relaxed)).filter(|page| *page != NO_PAGE)
    }
}

impl Drop for Toucher {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn touch(mapping: &Mapping, shared: &Shared, passed: &Sender<()>) {
    let pages = mapping.pages();
    let stride = scattering_stride(pages);
    let mut last = Instant::now();
    for pass in 1.. {
        for page in (0..pages).map(|step| step * stride % pages) {
            if shared.is_over.load(Ordering::Relaxed) {
                return;
            }
            let found = mapping.page(page)[COUNTER_WORD].swap(pass, Ordering::Relaxed);
            let now = Instant::now();
            let gap_ns = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
            shared.stall_ns_max.fetch_max(gap_ns, Ordering::Relaxed);
            last = now;
            if found != pass - 1 {
                shared.lost_page.store(page, Ordering::Relaxed);
            }
        }
        if pass == 1 {
            // Who started it waits for this.
            let _ = passed.send(());
        }
    }
}

/// A stride that visits each of `pages` pages once, neighbours long after each other: near the golden
/// section, and without a common divisor.
fn scattering_stride(pages: usize) -> usize {
    let golden = pages * 618 / 1000;
    (golden.max(1)..).find(|stride| greatest_common_divisor(*stride, pages) == 1).unwrap_or(1)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Backing;

    #[test]
    fn each_page_is_visited_once_in_a_pass() {
        for pages in [1, 2, 3, 4, 7, 512, 1000, 65536] {
            let stride = scattering_stride(pages);
            let mut visited: Vec<usize> = (0..pages).map(|step| step * stride % pages).collect();
            visited.sort_unstable();
            assert!(visited.into_iter().eq(0..pages), "{pages} pages, stride {stride}");
        }
    }

    fn mapping() -> Arc<Mapping> {
        let backing = Backing::Anon { is_shared: false };
        Arc::new(Mapping::new(&backing, 16 << 10, 4 << 10).unwrap())
    }

    fn until(done: impl Fn() -> bool) {
        while !done() {
            thread::yield_now();
        }
    }

    #[test]
    fn every_page_is_counted_up_and_nothing_is_lost() {
        let mapping = mapping();
        let toucher = Toucher::start("t", Arc::clone(&mapping)).unwrap();
        until(|| (0..4).all(|page| mapping.page(page)[COUNTER_WORD].load(Ordering::Relaxed) > 2));
        assert_eq!(toucher.lost_page(), None);
        assert!(toucher.take_stall_ns() > 0);
    }

    #[test]
    fn a_write_that_is_undone_is_a_lost_page() {
        let mapping = mapping();
        let toucher = Toucher::start("t", Arc::clone(&mapping)).unwrap();
        until(|| {
            mapping.page(2)[COUNTER_WORD].store(u64::MAX / 2, Ordering::Relaxed);
            toucher.lost_page() == Some(2)
        });
    }
}
