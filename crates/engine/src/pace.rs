//! The pace: how many pages one call of the mover may take, how many of them the kernel may hold at once,
//! and how long to rest after the call.
//!
//! A call first drains the LRU caches of all CPUs, whatever its size (kernel, mm/swap.c,
//! `lru_cache_disable`), so a large chunk is cheap. It then takes pages in batches, and whoever touches a
//! page of a batch waits until the batch is done. So with `--max-stall` a chunk is cut into portions, each a
//! batch of its own (`portion.rs`). How many pages a portion may have is found while moving, as TCP
//! finds its window: begin small, grow fast until near the limit, then creep, and shrink at each miss by as
//! much as it missed. The creep is chosen so that at rest one call in two hundred misses.
//!
//! Nobody tells how long a portion took. It counts as its share of the call, the drain included, so that it
//! took less rather than more. A call that is much shorter than it might be is nearly all drain, and teaches
//! nothing; the first is told to the user all the same.
//!
//! Pure: time comes in as an argument.

use std::time::Duration;

use machine::{BASE_PAGE_BYTES, Bytes};

/// Base pages of a chunk without a limit on the stall: 128 MiB.
const LARGE_CHUNK: f64 = 32768.0;
/// With a limit on the stall a call is to take so long, in seconds: a Ctrl-C waits for its end.
const CALL_SECONDS: f64 = 0.2;
/// What a base page is thought to cost before the first chunk has told, in seconds: about what an
/// emulated machine takes, so that the first chunk is small on a real one.
const PAGE_SECONDS: f64 = 20e-6;
/// What a portion that missed by a hair is multiplied with; one that missed by more shrinks by more.
const SHRINK: f64 = 0.9;
/// Growth a call, once near the limit: two hundred of them undo a miss.
const CREEP: f64 = 1.000_53;
/// With a rate, a chunk is at most what a tenth of a second allows.
const CHUNKS_PER_SECOND: f64 = 10.0;

/// Wishes of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second, over all threads.
    pub rate_per_s: Option<Bytes>,
    /// The longest that pages may be held.
    pub stall_max: Option<Duration>,
}

/// Chooses the size of each chunk, and of its portions, from how long those before it took.
#[derive(Clone, Debug)]
pub struct Pace {
    limits: Limits,
    /// Base pages of a portion, before it is cut to whole pages.
    portion_pages: f64,
    near_limit: bool,
    /// What a base page took in the last call that counted, in seconds.
    page_seconds: f64,
    longest_hold: Option<Duration>,
    calls_over_limit: u64,
}

impl Pace {
    /// A pace that keeps `limits`.
    pub fn new(limits: Limits) -> Self {
        let first = |limit: Duration| limit.as_secs_f64() / PAGE_SECONDS;
        Self {
            limits,
            portion_pages: limits.stall_max.map_or(LARGE_CHUNK, first).clamp(1.0, LARGE_CHUNK),
            near_limit: false,
            page_seconds: PAGE_SECONDS,
            longest_hold: None,
            calls_over_limit: 0,
        }
    }

    /// Base pages of the next chunk; at least one.
    pub fn chunk_pages(&self) -> u64 {
        let by_rate =
            self.limits.rate_per_s.map_or(LARGE_CHUNK, |rate| pages_in(rate) / CHUNKS_PER_SECOND);
        let by_time =
            self.limits.stall_max.map_or(LARGE_CHUNK, |_| CALL_SECONDS / self.page_seconds);
        whole_pages(by_time.max(self.portion_pages).min(by_rate))
    }

    /// Base pages of each of its portions; at least one.
    pub fn portion_pages(&self) -> u64 {
        whole_pages(self.portion_pages)
    }

    /// Learns how long a chunk of `pages` base pages took, `held` of them at a time.
    pub fn learn(&mut self, pages: u64, held: u64, took: Duration) {
        let Some(limit) = self.limits.stall_max else { return };
        let is_short = pages * 2 < self.chunk_pages();
        if is_short && self.longest_hold.is_some() {
            return;
        }
        let hold = took.mul_f64(share(held, pages));
        self.longest_hold = self.longest_hold.max(Some(hold));
        self.calls_over_limit += u64::from(hold > limit);
        if is_short {
            return;
        }
        self.page_seconds = took.as_secs_f64().max(f64::MIN_POSITIVE) * share(1, pages);
        if held > self.portion_pages() {
            // One huge page: a smaller portion would not have it any smaller.
            return;
        }
        let used = hold.as_secs_f64() / limit.as_secs_f64();
        if hold > limit {
            self.near_limit = true;
            self.portion_pages = (self.portion_pages * (SHRINK / used).max(0.5)).max(1.0);
        } else {
            self.grow(used);
        }
    }

    fn grow(&mut self, used: f64) {
        self.near_limit |= used >= 0.5;
        let growth = match used {
            _ if self.near_limit => CREEP,
            used if used < 0.25 => 2.0,
            _ => 1.25,
        };
        self.portion_pages = (self.portion_pages * growth).min(LARGE_CHUNK);
    }

    /// The longest that a portion took, in the calls that counted.
    pub fn longest_hold(&self) -> Option<Duration> {
        self.longest_hold
    }

    /// Calls whose portions took longer than the user wished.
    pub fn calls_over_limit(&self) -> u64 {
        self.calls_over_limit
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

/// The part of a call of `of` pages that `pages` of them take: all of it, where it has no more.
#[expect(clippy::cast_precision_loss, reason = "a chunk has far fewer pages than 2^53")]
fn share(pages: u64, of: u64) -> f64 {
    (pages as f64 / of.max(1) as f64).min(1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and LARGE_CHUNK"
)]
fn whole_pages(pages: f64) -> u64 {
    pages.clamp(1.0, LARGE_CHUNK) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A host where a call costs `drain_us` and each page `page_us`, and every tenth call half more: the
    /// calls of which the pages of a portion took longer than the limit, and the pages of a portion.
    fn misses(limit: Duration, drain_us: f64, page_us: f64, calls: u32) -> (u32, u64) {
        let mut pace = Pace::new(Limits { stall_max: Some(limit), rate_per_s: None });
        let mut missed = 0;
        for call in 0..calls {
            let noise = if call % 10 == 9 { 1.5 } else { 1.0 };
            let (pages, portion) = (pace.chunk_pages(), pace.portion_pages());
            let pages_us = page_us * pages as f64 * noise;
            missed +=
                u32::from(Duration::from_secs_f64(page_us * portion as f64 * noise / 1e6) > limit);
            pace.learn(pages, portion, Duration::from_secs_f64((drain_us + pages_us) / 1e6));
        }
        (missed, pace.portion_pages())
    }

    #[test]
    fn without_limits_a_chunk_is_large_from_the_first() {
        assert_eq!(Pace::new(Limits::default()).chunk_pages(), 32768);
    }

    #[test]
    fn a_drain_that_takes_longer_than_the_limit_is_shared_by_many_portions() {
        let (missed, pages) = misses(Duration::from_millis(2), 20_000.0, 1.0, 2000);
        assert_eq!(missed, 0);
        assert!(pages > 600, "{pages} of the 2000 pages that take 2 ms");
    }

    #[test]
    fn a_short_call_teaches_nothing_and_is_told_of_only_if_it_is_the_first() {
        let mut pace =
            Pace::new(Limits { stall_max: Some(Duration::from_millis(10)), rate_per_s: None });
        let before = (pace.portion_pages(), pace.chunk_pages());
        for _ in 0..2 {
            pace.learn(16, 16, Duration::from_millis(20));
            assert_eq!((pace.portion_pages(), pace.chunk_pages()), before);
            assert_eq!(pace.longest_hold(), Some(Duration::from_millis(20)));
            assert_eq!(pace.calls_over_limit(), 1);
        }
    }

    #[test]
    fn a_huge_page_that_misses_makes_the_portions_of_others_no_smaller() {
        let mut pace =
            Pace::new(Limits { stall_max: Some(Duration::from_millis(2)), rate_per_s: None });
        let before = pace.portion_pages();
        pace.learn(10_240, 512, Duration::from_millis(200));
        assert_eq!((pace.portion_pages(), pace.calls_over_limit()), (before, 1));
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
        fn ninety_nine_calls_in_a_hundred_keep_the_limit(limit_ms in 2u64..50, drain_us in 0.0..30_000.0f64, page_us in 0.2..20.0f64) {
            let (missed, pages) = misses(Duration::from_millis(limit_ms), drain_us, page_us, 2000);
            prop_assert!(missed <= 20, "{missed} of 2000 calls missed");
            let call_pages = ((CALL_SECONDS * 1e6 - drain_us) / page_us).min(LARGE_CHUNK);
            let full = limit_ms as f64 * 1000.0 / (1.5 * page_us + drain_us / call_pages);
            prop_assert!(pages as f64 > (full / 2.5).min(32768.0 / 2.5) - 1.0, "{pages} of {full} pages used");
        }
    }
}
