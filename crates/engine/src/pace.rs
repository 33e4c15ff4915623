//! The pace: how many pages one call of the mover may take, and how long to rest after it.
//!
//! A call holds pages of the target while it copies them, and first drains the LRU caches of all
//! CPUs, whatever its size (kernel, mm/swap.c, `lru_cache_disable`). So a large chunk is cheap and a
//! small one is gentle. Without a wish of the user's the chunk is large. With `--max-stall` it is
//! found while moving, as TCP finds its window: begin small, grow fast until near the limit, then
//! creep, and shrink at each miss by as much as it missed. The creep is chosen so that at rest one
//! chunk in two hundred misses. Where even single pages miss, smaller chunks would only make the move
//! longer: the pace gives the limit up.
//!
//! Pure: time comes in as an argument.

use std::time::Duration;

use machine::{BASE_PAGE_BYTES, Bytes};

/// Base pages of a chunk without a limit on the stall: 128 MiB.
const LARGE_CHUNK: f64 = 32768.0;
/// What a base page is thought to cost before the first chunk has told, in seconds: more than on any
/// machine seen, emulated ones included.
const PAGE_SECONDS: f64 = 20e-6;
/// What a chunk that missed by a hair is multiplied with; one that missed by more shrinks by more.
const SHRINK: f64 = 0.9;
/// Growth a chunk, once near the limit: two hundred of them undo a miss.
const CREEP: f64 = 1.000_53;
/// Misses in a row with single pages that tell that the limit is out of reach.
const HOPELESS_MISSES: u32 = 8;
/// Base pages of a chunk when the limit is out of reach: what a call costs at any size is then shared
/// by some pages, and the call is hardly longer.
const HOPELESS_CHUNK: f64 = 64.0;
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
    /// Misses in a row with single pages.
    single_misses: u32,
}

impl Pace {
    /// A pace that keeps `limits`.
    pub fn new(limits: Limits) -> Self {
        let first = |limit: Duration| limit.as_secs_f64() / PAGE_SECONDS;
        let chunk_pages = limits.stall_max.map_or(LARGE_CHUNK, first).clamp(1.0, LARGE_CHUNK);
        Self { limits, chunk_pages, near_limit: false, single_misses: 0 }
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
        if self.is_hopeless() {
            return;
        }
        let used = took.as_secs_f64() / limit.as_secs_f64();
        if used > 1.0 {
            self.near_limit = true;
            self.single_misses += u32::from(pages == 1);
            let smaller = (self.chunk_pages * (SHRINK / used).max(0.5)).max(1.0);
            self.chunk_pages = if self.is_hopeless() { HOPELESS_CHUNK } else { smaller };
            return;
        }
        self.single_misses = 0;
        // A chunk that was cut short by the end of a mapping says nothing about a full one.
        if pages * 2 < self.chunk_pages() {
            return;
        }
        let growth = match used {
            _ if self.near_limit => CREEP,
            used if used < 0.25 => 2.0,
            used if used < 0.5 => 1.25,
            _ => {
                self.near_limit = true;
                CREEP
            }
        };
        self.chunk_pages = (self.chunk_pages * growth).min(LARGE_CHUNK);
    }

    /// Whether even single pages take longer than the limit here.
    pub fn is_hopeless(&self) -> bool {
        self.single_misses >= HOPELESS_MISSES
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
    fn a_limit_that_no_page_can_meet_is_given_up_after_single_pages_were_tried() {
        let (missed, pages) = misses(Duration::from_micros(10), 100.0, 1.0, 100);
        assert_eq!((missed, pages), (100, 64));
    }

    #[test]
    fn a_limit_that_only_single_pages_meet_is_kept_with_single_pages() {
        let (missed, pages) = misses(Duration::from_micros(160), 100.0, 5.0, 2000);
        assert!(missed <= 20 && pages <= 2, "{missed} missed, {pages} pages a chunk");
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
