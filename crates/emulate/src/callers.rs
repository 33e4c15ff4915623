//! Who calls, which changes how calls are best received and answered. The loop tells it of each wait and
//! of each call; it makes none.
//!
//! - **One behind the other.** A poll of the listener walks all open notifications, those included whose
//!   callers were answered and have not run yet, and stops where it has met both a call that waits and
//!   one that was received and not answered (kernel, kernel/seccomp.c, `seccomp_notify_poll`, 6.18). So
//!   where another caller may wait, the loop polls before it answers.
//! - **Woken here or elsewhere.** A caller sleeps until it is answered, and most often we do until it
//!   calls: so each is best woken on the other's CPU, which nobody needs just then. To wake an idle CPU
//!   takes several times as long as a call. But who has called while we were at work for another is on
//!   another CPU. If it were woken on ours, that other would stand in its way while its own CPU idles, until
//!   the kernel balances them: 4 ms, as a trace of a Rust build on two CPUs has shown. And in a crowd we do
//!   not sleep at all, so that those we wake would take turns with us.

use std::time::Duration;

/// A wait that takes longer has slept. One that finds a call takes 1 us, and to sleep, be called and wake
/// takes at least twice this.
const SLEPT: Duration = Duration::from_nanos(2500);

/// So many calls in a row with another one waiting behind make a crowd: more than a few callers give
/// who are woken on one CPU.
const CROWD: u32 = 8;

#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// The thread that called last.
    last: u32,
    /// Whether it made the call before that, too.
    is_same: bool,
    /// Whether we slept until its call.
    slept: bool,
    /// Calls in a row behind which another one waited.
    queued: u32,
}

impl Callers {
    /// The loop has waited so long for the call that comes now.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.slept = time > SLEPT;
    }

    /// This thread has called.
    pub(crate) const fn called(&mut self, tid: u32) {
        self.is_same = std::mem::replace(&mut self.last, tid) == tid;
    }

    /// Whether who called last is best woken on the supervisor's CPU: it is there, or nobody else is.
    pub(crate) const fn is_best_woken_here(&self) -> bool {
        (self.slept || self.is_same) && !self.are_crowd()
    }

    /// Whether there are so many that the supervisor does not sleep.
    pub(crate) const fn are_crowd(&self) -> bool {
        self.queued >= CROWD
    }

    /// Whether another may wait behind the last call.
    pub(crate) const fn may_wait_behind(&self) -> bool {
        self.queued > 0 || !self.is_same
    }

    /// Whether one does.
    pub(crate) const fn waits_behind(&mut self, waits: bool) {
        self.queued = if waits { self.queued.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(1);

    fn calls(callers: &mut Callers, tid: u32, waited: Duration) {
        callers.waited(waited);
        callers.called(tid);
    }

    #[test]
    fn nobody_waits_behind_a_caller_that_calls_alone() {
        let mut callers = Callers::default();
        callers.called(7);
        assert!(callers.may_wait_behind());
        callers.waits_behind(false);
        callers.called(7);
        assert!(!callers.may_wait_behind());
    }

    #[test]
    fn where_one_has_waited_another_may_wait() {
        let mut callers = Callers::default();
        callers.called(7);
        callers.waits_behind(true);
        callers.called(7);
        assert!(callers.may_wait_behind());
        callers.waits_behind(false);
        assert!(!callers.may_wait_behind());
    }

    #[test]
    fn who_has_called_while_we_were_at_work_for_another_is_elsewhere() {
        let mut callers = Callers::default();
        for (tid, waited, is_here) in [
            (7, LONG, true),
            (8, Duration::ZERO, false),
            (8, Duration::ZERO, true),
            (7, Duration::ZERO, false),
            (8, LONG, true),
        ] {
            calls(&mut callers, tid, waited);
            assert_eq!(callers.is_best_woken_here(), is_here);
        }
    }

    #[test]
    fn a_crowd_begins_after_some_calls_in_a_row_and_ends_when_nobody_waits() {
        let mut callers = Callers::default();
        calls(&mut callers, 7, LONG);
        let begins = (1..100).find(|_| {
            callers.waits_behind(true);
            callers.are_crowd()
        });
        assert_eq!(begins, Some(CROWD));
        assert!(!callers.is_best_woken_here());
        callers.waits_behind(false);
        assert!(!callers.are_crowd() && callers.is_best_woken_here());
    }
}
