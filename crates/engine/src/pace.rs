//! The pace: how many pages one call of the mover may take, and how long to rest after it.
//!
//! A call holds pages of the target while it copies them, and first drains the LRU caches of all
//! CPUs, whatever its size (kernel, mm/swap.c, `lru_cache_disable`). So a large chunk is cheap and a
//! small one is gentle. Without a wish of the user's the chunk is large. With `--max-stall` it is
//! found while moving, as TCP finds its window: begin small, grow fast until near the limit, then
//! creep, and shrink at each miss by as much as it missed. The creep is chosen so that at rest one
//! chunk in two hundred misses.
//!
//! On a busy machine the drain alone can take longer than the limit, since it waits its turn on every
//! CPU. No chunk is small enough then, and a small one only makes the move longer. So a chunk does not
//! shrink below the size at which its pages take a twentieth of the limit; where that still misses, the
//! limit is given up for the call as a whole and kept for the pages, which is when the target waits.
//!
//! Pure: time comes in as an argument.

use std::time::Duration;

use machine::{BASE_PAGE_BYTES, Bytes};

/// Base pages of a chunk without a limit on the stall: 128 MiB.
const LARGE_CHUNK: f64 = 32768.0;
/// What a base page is thought to cost before the first chunk has told, in seconds: about what an
/// emulated machine takes, so that the first chunk is small on a real one.
const PAGE_SECONDS: f64 = 20e-6;
/// What a chunk that missed by a hair is multiplied with; one that missed by more shrinks by more.
const SHRINK: f64 = 0.9;
/// Growth a chunk, once near the limit: two hundred of them undo a miss.
const CREEP: f64 = 1.000_53;
/// A chunk does not shrink below the size at which its pages take this part of the limit.
const FLOOR: f64 = 0.05;
/// Misses at the floor before the limit is given up, if they are more than a fifth of all there.
const HOPELESS_MISSES: u32 = 8;
/// With a rate, a chunk is at most what a tenth of a second allows.
const CHUNKS_PER_SECOND: f64 = 10.0;

/// Wishes of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second, over all threads.
    pub rate_per_s: Option<Bytes>,
    /// The longest that one call may take.
    pub stall_max: Option<Duration>,
}

/// Chooses the size of each chunk from how long those before it took.
#[derive(Clone, Debug)]
pub struct Pace {
    limits: Limits,
    /// Base pages of the next chunk, before it is cut to whole pages.
    chunk_pages: f64,
    near_limit: bool,
    /// The least that a base page took in any chunk, in seconds; the drain has a small share in it.
    page_seconds: f64,
    /// Chunks at the floor, those of them that missed the limit, and how long all of them took.
    floor_chunks: u32,
    floor_missed: u32,
    floor_seconds: f64,
    /// How long the drain takes, once the limit is given up for it; 0 before.
    drain_seconds: f64,
}

impl Pace {
    /// A pace that keeps `limits`.
    pub fn new(limits: Limits) -> Self {
        let first = |limit: Duration| limit.as_secs_f64() / PAGE_SECONDS;
        let chunk_pages = limits.stall_max.map_or(LARGE_CHUNK, first).clamp(1.0, LARGE_CHUNK);
        Self {
            limits,
            chunk_pages,
            near_limit: false,
            page_seconds: f64::INFINITY,
            floor_chunks: 0,
            floor_missed: 0,
            floor_seconds: 0.0,
            drain_seconds: 0.0,
        }
    }

    /// Base pages of the next chunk; at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and LARGE_CHUNK"
    )]
    pub fn chunk_pages(&self) -> u64 {
        let by_rate =
            self.limits.rate_per_s.map_or(LARGE_CHUNK, |rate| pages_in(rate) / CHUNKS_PER_SECOND);
        self.chunk_pages.min(by_rate).clamp(1.0, LARGE_CHUNK) as u64
    }

    /// Learns how long a chunk of `pages` base pages took.
    pub fn learn(&mut self, pages: u64, took: Duration) {
        let Some(limit) = self.limits.stall_max else { return };
        let (limit, call) = (limit.as_secs_f64(), took.as_secs_f64());
        self.page_seconds = self.page_seconds.min(call / pages_in(Bytes::from_pages(pages.max(1))));
        let floor = (limit * FLOOR / self.page_seconds).clamp(1.0, LARGE_CHUNK);
        if self.chunk_pages <= floor && !self.is_hopeless() {
            self.learn_at_floor(call, limit);
        }
        if self.is_hopeless() {
            self.learn_beside_drain((call - self.drain_seconds) / limit, floor);
        } else if call > limit {
            self.near_limit = true;
            self.chunk_pages = (self.chunk_pages * (SHRINK * limit / call).max(0.5)).max(floor);
        } else if pages * 2 >= self.chunk_pages() {
            // A chunk that was cut short by the end of a mapping says nothing about a full one.
            self.grow(call / limit);
        }
    }

    /// The drain varies by more than the pages take, so single calls say little: the chunk goes to
    /// and fro around the size at which half of them seem to take half of the limit.
    fn learn_beside_drain(&mut self, used: f64, floor: f64) {
        let factor = match used {
            used if used > 1.0 => SHRINK,
            used if used < 0.5 => 1.0 / SHRINK,
            _ => 1.0,
        };
        self.chunk_pages = (self.chunk_pages * factor).clamp(floor, LARGE_CHUNK);
    }

    fn learn_at_floor(&mut self, call: f64, limit: f64) {
        self.floor_chunks += 1;
        self.floor_missed += u32::from(call > limit);
        self.floor_seconds += call;
        if self.floor_missed >= HOPELESS_MISSES && self.floor_missed * 5 > self.floor_chunks {
            self.drain_seconds = self.floor_seconds / f64::from(self.floor_chunks);
        }
    }

    fn grow(&mut self, used: f64) {
        self.near_limit |= used >= 0.5;
        let growth = match used {
            _ if self.near_limit => CREEP,
            used if used < 0.25 => 2.0,
            _ => 1.25,
        };
        self.chunk_pages = (self.chunk_pages * growth).min(LARGE_CHUNK);
    }

    /// Whether calls take longer than the limit here however few pages they move.
    pub fn is_hopeless(&self) -> bool {
        self.drain_seconds > 0.0
    }

    /// How long to wait so that `moved` within `elapsed` keeps the rate.
    pub fn rest(&self, moved: Bytes, elapsed: Duration) -> Duration {
        let Some(rate) = self.limits.rate_per_s.filter(|rate| *rate > Bytes::ZERO) else {
            return Duration::ZERO;
        };
        let due = Duration::from_secs_f64(pages_in(moved) / pages_in(rate));
        due.saturating_sub(elapsed)
    }
}

/// Base pages as a number to calculate with; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a pace needs no more than 53 bits")]
fn pages_in(bytes: Bytes) -> f64 {
    bytes.get() as f64 / BASE_PAGE_BYTES as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A host where a call costs `fixed_us` and each page `page_us`, and every tenth call half more.
    fn misses(limit: Duration, fixed_us: f64, page_us: f64, chunks: u32) -> (u32, u64) {
        let mut pace = Pace::new(Limits { stall_max: Some(limit), rate_per_s: None });
        let mut missed = 0;
        for chunk in 0..chunks {
            let noise = if chunk % 10 == 9 { 1.5 } else { 1.0 };
            let pages = pace.chunk_pages();
            let took = Duration::from_secs_f64((fixed_us + page_us * pages as f64) * noise / 1e6);
            missed += u32::from(took > limit);
            pace.learn(pages, took);
        }
        (missed, pace.chunk_pages())
    }

    #[test]
    fn without_limits_a_chunk_is_large_from_the_first() {
        assert_eq!(Pace::new(Limits::default()).chunk_pages(), 32768);
    }

    #[test]
    fn where_the_drain_alone_misses_the_limit_is_kept_for_the_pages() {
        let (missed, pages) = misses(Duration::from_millis(2), 5000.0, 1.0, 500);
        assert_eq!(missed, 500);
        assert!(pages > 300, "{pages} of the 2000 pages that take 2 ms");
    }

    #[test]
    fn a_limit_that_leaves_little_beside_the_drain_is_kept_by_small_chunks() {
        let (missed, pages) = misses(Duration::from_micros(1600), 1000.0, 1.0, 2000);
        assert!(missed <= 20, "{missed} of 2000 missed");
        assert!(pages < 70, "{pages} pages");
    }

    #[test]
    fn a_rate_bounds_the_chunk_and_asks_for_rest() {
        let rate = Some(Bytes::new(40 << 20));
        let pace = Pace::new(Limits { rate_per_s: rate, stall_max: None });
        assert_eq!(pace.chunk_pages(), 1024);
        assert_eq!(
            pace.rest(Bytes::new(4 << 20), Duration::from_millis(40)),
            Duration::from_millis(60)
        );
        assert_eq!(pace.rest(Bytes::new(4 << 20), Duration::from_secs(1)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn ninety_nine_chunks_in_a_hundred_keep_the_limit(limit_ms in 2u64..50, fixed_us in 0.0..500.0f64, page_us in 0.2..20.0f64) {
            let (missed, pages) = misses(Duration::from_millis(limit_ms), fixed_us, page_us, 2000);
            prop_assert!(missed <= 20, "{missed} of 2000 chunks missed");
            let full = (limit_ms as f64 * 1000.0 / 1.5 - fixed_us) / page_us;
            prop_assert!(pages as f64 > (full / 2.5).min(32768.0 / 2.5) - 1.0, "{pages} of {full} pages used");
        }
    }
}
