//! The outcome: every page of a move accounted for, and nothing unexplained.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use machine::NodeId;
use serde::Serialize;

use crate::pace::Pace;

/// Why a page that was asked to move did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another page table entry maps it too, and shared pages were not to be moved.
    Shared,
    /// Somebody holds an extra reference (I/O, io_uring, vmsplice), or it was locked at each try.
    PinnedOrBusy,
    /// A page of a file that its filesystem did not let go: no migration support, or I/O on it.
    FileBusy,
    /// The kernel cannot look it up: on 6.1 a page without access rights, be it by mprotect(2) or
    /// marked by NUMA balancing (behaviour spec 3.3).
    OutOfReach,
    /// The destination had no free page for it.
    NoMemory,
    /// The cpuset of the target does not allow the destination.
    NotAllowed,
    /// The move was stopped before its turn came.
    NotTried,
    /// The kernel gave an answer that pagetide has no name for.
    Other,
}

impl Cause {
    /// The cause in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Shared => "shared with another process or mapping",
            Self::PinnedOrBusy => "pinned or busy",
            Self::FileBusy => "file pages in use by I/O, or without migration support",
            Self::OutOfReach => "out of reach: no access rights, or marked by NUMA balancing",
            Self::NoMemory => "no memory on the destination",
            Self::NotAllowed => "destination not allowed by the target's cpuset",
            Self::NotTried => "not tried: the move was stopped first",
            Self::Other => "for a reason that the kernel did not explain",
        }
    }

    /// What would help.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Shared => "--include-shared moves them for everybody (needs CAP_SYS_NICE)",
            Self::PinnedOrBusy => {
                "they move once the I/O or the pin (io_uring, vmsplice, RDMA) is over: run the move again"
            }
            Self::FileBusy => "run the move again when the file is idle (after sync)",
            Self::OutOfReach => "migrate_pages(2) reaches them: `migratepages PID FROM TO`",
            Self::NoMemory => "free memory there, or move less with --limit",
            Self::NotAllowed => "widen cpuset.mems of its cgroup",
            Self::NotTried => "run the same move again to finish it",
            Self::Other => "`dmesg` may say more",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

/// How a move ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every planned page had its turn.
    Completed,
    /// The user stopped it at the end of a chunk.
    Interrupted,
    /// The target exited.
    TargetGone,
    /// The caller may not move pages of the target (`EPERM`).
    NotPermitted,
    /// The kernel refused for another reason; what was moved before stays moved.
    Refused(String),
}

/// What became of every page of a move. All counts are base pages.
///
/// `found_pages` = `moved_pages` + `gone_pages` + the sum of `stayed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The target.
    pub pid: u32,
    /// Pages found on a source node when their turn came.
    pub found_pages: u64,
    /// Pages that the kernel says are on their destination now.
    pub moved_pages: u64,
    /// Pages found on their destination already.
    pub already_there_pages: u64,
    /// Pages that the target gave up meanwhile.
    pub gone_pages: u64,
    /// Pages that did not move, by cause.
    pub stayed: BTreeMap<Cause, u64>,
    /// How it ended.
    pub end: End,
    /// Where the pages of the planned ranges lie, asked again at the end; `None` when the target has
    /// gone.
    pub placement: Option<BTreeMap<NodeId, u64>>,
    /// Pages that, asked again at the end, still are where the plan wanted them gone from.
    pub left_pages: u64,
    /// Calls of move_pages(2), and of migrate_pages(2).
    pub calls: u64,
    /// Time in those calls, all threads together.
    pub calls_ns: u64,
    /// The longest of them.
    pub longest_call_ns: u64,
    /// The longest that pages were held at a time, where the user limits it: each portion's share of its
    /// call.
    pub longest_hold_ns: Option<u64>,
    /// Calls that held pages longer than the user wished.
    pub calls_over_limit: u64,
    /// From the first page to the last.
    pub elapsed_ns: u64,
}

impl Outcome {
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            pid,
            found_pages: 0,
            moved_pages: 0,
            already_there_pages: 0,
            gone_pages: 0,
            stayed: BTreeMap::new(),
            end: End::Completed,
            placement: None,
            left_pages: 0,
            calls: 0,
            calls_ns: 0,
            longest_call_ns: 0,
            longest_hold_ns: None,
            calls_over_limit: 0,
            elapsed_ns: 0,
        }
    }

    pub(crate) fn stay(&mut self, cause: Cause, pages: u64) {
        if pages > 0 {
            *self.stayed.entry(cause).or_default() += pages;
        }
    }

    pub(crate) fn count_call(&mut self, took: Duration) {
        self.calls += 1;
        self.calls_ns += nanoseconds(took);
        self.longest_call_ns = self.longest_call_ns.max(nanoseconds(took));
    }

    /// Adds what a worker's pace knows at its end.
    pub(crate) fn count_holds(&mut self, pace: &Pace) {
        self.longest_hold_ns = self.longest_hold_ns.max(pace.longest_hold().map(nanoseconds));
        self.calls_over_limit += pace.calls_over_limit();
    }

    /// Pages that did not move, for any cause.
    pub fn stayed_pages(&self) -> u64 {
        self.stayed.values().sum()
    }

    /// Pages on a source node at the end that nothing above explains: they came, or came back, while
    /// the move went on.
    pub fn came_back_pages(&self) -> u64 {
        self.left_pages.saturating_sub(self.stayed_pages())
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
