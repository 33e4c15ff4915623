//! Who calls and how often, which changes how calls are best received and answered. The loop tells it of
//! each call; it makes none.
//!
//! - **One behind the other.** A poll of the listener walks all open notifications, those included whose
//!   callers were answered and have not run yet, and stops where it has met both a call that waits and
//!   one that was received and not answered (kernel, kernel/seccomp.c, `seccomp_notify_poll`, 6.18). So
//!   where another caller may wait, the loop polls before it answers.
//! - **Woken here or anywhere.** Where calls come one after the other, the supervisor and its caller are
//!   best woken on each other's CPU: one of them sleeps at any time, and to wake an idle CPU takes
//!   several times as long as a call. Where calls are rare, or many queue up, they are woken where the
//!   scheduler wants them. Programs that have all CPUs to do would else take turns on one while another idles
//!   (a Rust build on two CPUs took 4% longer); and in a crowd the supervisor does not sleep, so that those it
//!   wakes would take turns with it.

use std::time::{Duration, Instant};

/// With less than this between them, calls come one after the other: several times what it takes to
/// wake an idle CPU.
const OFTEN: Duration = Duration::from_micros(200);
/// Calls that the mean is of.
const MANY: u32 = 64;
/// A longer pause counts as this.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// So many calls in a row with another one waiting behind make a crowd: more than a few callers give
/// who are woken on one CPU.
const CROWD: u32 = 8;

#[derive(Debug)]
pub(crate) struct Callers {
    last: u32,
    last_at: Instant,
    /// Between one call and the next, of late.
    mean: Duration,
    /// Calls in a row behind which another one waited.
    queued: u32,
}

impl Default for Callers {
    fn default() -> Self {
        Self { last: 0, last_at: Instant::now(), mean: PAUSE_MAX, queued: 0 }
    }
}

impl Callers {
    /// A call is received.
    pub(crate) fn received(&mut self, now: Instant) {
        let pause = now.duration_since(std::mem::replace(&mut self.last_at, now));
        self.mean = (self.mean * (MANY - 1) + pause.min(PAUSE_MAX)) / MANY;
    }

    /// Whether they are best woken on the supervisor's CPU, and it on theirs.
    pub(crate) fn are_best_woken_here(&self) -> bool {
        self.mean < OFTEN && self.queued < CROWD
    }

    /// Whether another may wait behind a call of this thread.
    pub(crate) fn may_wait_behind(&mut self, tid: u32) -> bool {
        let last = std::mem::replace(&mut self.last, tid);
        self.queued > 0 || last != tid
    }

    /// Whether one does.
    pub(crate) const fn waits_behind(&mut self, waits: bool) {
        self.queued = if waits { self.queued.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_behind_a_caller_that_calls_alone() {
        let mut callers = Callers::default();
        assert!(callers.may_wait_behind(7));
        callers.waits_behind(false);
        assert!((0..100).all(|_| !callers.may_wait_behind(7)));
    }

    #[test]
    fn where_one_has_waited_another_may_wait() {
        let mut callers = Callers::default();
        callers.may_wait_behind(7);
        callers.waits_behind(true);
        assert!(callers.may_wait_behind(7));
        callers.waits_behind(false);
        assert!(!callers.may_wait_behind(7));
    }

    #[test]
    fn calls_are_frequent_after_many_and_rare_again_after_some_pauses() {
        let mut callers = Callers::default();
        let mut now = callers.last_at;
        let mut calls_until = |often: bool, pause| {
            let is_so = |_: &u32| {
                now += pause;
                callers.received(now);
                callers.are_best_woken_here() == often
            };
            (1..1000).find(is_so)
        };
        let quick = Duration::from_micros(10);
        assert!(calls_until(true, quick).is_some_and(|calls| calls > MANY));
        assert!(calls_until(false, Duration::from_secs(1)).is_some_and(|calls| calls < MANY));
        assert_eq!(calls_until(true, OFTEN), None);
    }

    #[test]
    fn a_crowd_begins_after_some_calls_in_a_row_and_ends_when_nobody_waits() {
        let mut callers = Callers { mean: Duration::ZERO, ..Callers::default() };
        let is_crowd = |callers: &mut Callers, waits| {
            callers.waits_behind(waits);
            !callers.are_best_woken_here()
        };
        assert_eq!((1..100).find(|_| is_crowd(&mut callers, true)), Some(CROWD));
        assert!(!is_crowd(&mut callers, false));
    }
}
