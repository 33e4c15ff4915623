//! Tiering: which pages of a slower tier are hot enough to be promoted, and how many a second.
//!
//! Source: behaviour spec 10.6; kernel/sched/fair.c, `should_numa_migrate_memory`,
//! `numa_promotion_adjust_threshold`, `numa_promotion_rate_limit`.

use crate::Machine;
use crate::memory::frames::Pfn;
use crate::memory::node::Slot;
use crate::observe::vmstat::Counter;

/// Bits of a marking time.
const TIME_BITS: u32 = 21;
/// Free pages that make promotion free for all: 1 GiB.
const PLENTY_PAGES: u64 = 1 << 18;
/// Steps in which the threshold moves.
const THRESHOLD_STEPS: u64 = 16;

/// Promotion to one node.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct PromotionState {
    /// 0: the setting counts.
    threshold_ms: u64,
    window_start_ms: u64,
    candidates: u64,
    candidates_at_window: u64,
    rate_start_ms: u64,
    candidates_at_rate: u64,
}

/// The time of a marking, as the page keeps it.
pub(crate) const fn time_word(now_ms: u64) -> u32 {
    (now_ms & ((1 << TIME_BITS) - 1)) as u32
}

impl Machine {
    pub(crate) fn should_promote(&mut self, head: Pfn, target: Slot) -> bool {
        let pages = u64::from(self.frames.pages(head));
        let plenty = self.nodes[target].zones.iter().any(|zone| {
            let managed = u64::from(zone.pages);
            zone.free >= zone.watermarks.promo + PLENTY_PAGES.max(managed / 16)
        });
        let (now, settings) = (self.balancing.now_ms, self.balancing.settings);
        let limit_pages = settings.promote_rate_limit_mib * 256;
        let state = self.balancing.promotion.entry(target).or_default();
        if plenty {
            state.threshold_ms = 0;
            if self.behaviour.counts_free_promotions {
                self.counters.add(Counter::PgpromoteCandidateNrl, pages);
            }
            return true;
        }
        let hot = settings.hot_threshold_ms;
        state.adjust(now, hot, settings.scan_period_max_ms, limit_pages);
        let threshold = if state.threshold_ms == 0 { hot } else { state.threshold_ms };
        let marked = self.frames.cpupid(head);
        let latency = time_word(now).wrapping_sub(marked) & ((1 << TIME_BITS) - 1);
        self.frames.set_cpupid(head, time_word(now));
        if u64::from(latency) >= threshold {
            return false;
        }
        self.counters.add(Counter::PgpromoteCandidate, pages);
        state.candidates += pages;
        if now > state.rate_start_ms + 1000 {
            state.rate_start_ms = now;
            state.candidates_at_rate = state.candidates;
        }
        state.candidates - state.candidates_at_rate < limit_pages
    }
}

impl PromotionState {
    /// Too many candidates in a window: be stricter; too few: be milder.
    fn adjust(&mut self, now: u64, hot: u64, window_ms: u64, limit_pages: u64) {
        if now <= self.window_start_ms + window_ms {
            return;
        }
        let reference = limit_pages * window_ms / 1000;
        let found = self.candidates - self.candidates_at_window;
        let step = hot * 2 / THRESHOLD_STEPS;
        let threshold = if self.threshold_ms == 0 { hot } else { self.threshold_ms };
        self.threshold_ms = if found > reference * 11 / 10 {
            threshold.saturating_sub(step).max(step)
        } else if found < reference * 9 / 10 {
            (threshold + step).min(hot * 2)
        } else {
            threshold
        };
        self.window_start_ms = now;
        self.candidates_at_window = self.candidates;
    }
}
