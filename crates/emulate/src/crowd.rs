//! Whether callers queue up, which changes how they are best received and woken. The loop tells it of
//! each call; it makes none.
//!
//! - **One behind the other.** A poll of the listener walks all open notifications, those included whose
//!   callers were answered and have not run yet, and stops where it has met both a call that waits and
//!   one that was received and not answered (kernel, kernel/seccomp.c, `seccomp_notify_poll`, 6.18). So
//!   where another caller may wait, the loop polls before it answers.
//! - **Woken anywhere.** A caller that is alone is best woken on the supervisor's CPU, which is about to
//!   sleep. In a crowd the supervisor does not sleep: those that it wakes there would take turns with
//!   it while other CPUs idle.

/// So many calls in a row with another one waiting behind make a crowd: more than a few callers give
/// who are woken on one CPU.
const CROWD: u32 = 8;

#[derive(Debug, Default)]
pub(crate) struct Crowd {
    last_caller: u32,
    in_a_row: u32,
}

impl Crowd {
    /// A call of this thread was received: whether another may wait behind it.
    pub(crate) fn may_wait_behind(&mut self, tid: u32) -> bool {
        let last = std::mem::replace(&mut self.last_caller, tid);
        self.in_a_row > 0 || last != tid
    }

    /// Whether one did wait. True: [`is_crowd`](Self::is_crowd) says something else than before.
    pub(crate) fn waits_behind(&mut self, waits: bool) -> bool {
        let was = self.is_crowd();
        self.in_a_row = if waits { self.in_a_row.saturating_add(1) } else { 0 };
        self.is_crowd() != was
    }

    /// Whether callers are best woken on any CPU.
    pub(crate) fn is_crowd(&self) -> bool {
        self.in_a_row >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_behind_a_caller_that_calls_alone() {
        let mut crowd = Crowd::default();
        assert!(crowd.may_wait_behind(7));
        assert!(!crowd.waits_behind(false));
        assert!((0..100).all(|_| !crowd.may_wait_behind(7)));
    }

    #[test]
    fn a_crowd_begins_after_some_calls_in_a_row_and_ends_when_nobody_waits() {
        let mut crowd = Crowd::default();
        let changes: Vec<bool> = (0..CROWD + 2).map(|_| crowd.waits_behind(true)).collect();
        assert_eq!(changes.iter().filter(|&&change| change).count(), 1);
        assert!(crowd.is_crowd() && crowd.may_wait_behind(0));
        assert!(crowd.waits_behind(false) && !crowd.is_crowd());
        assert!(!crowd.waits_behind(false));
    }
}
