//! What a survey of a whole process saw, where one call could move all of it to one node.
//!
//! The planner keeps it in a plan that has just been made, and `sweep` uses it. It must not be used
//! when it is old or when it saw more than one call should move: [`Look::is_fit`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use machine::{AddrRange, Bytes, NodeId, NodeSet};

use crate::placement::Run;

/// The most that one call may move: a quarter of a second's work on a computer of today, in which no
/// progress is seen, no Ctrl-C heard, and in which Linux 6.1 lets the target change no mapping.
pub(crate) const LARGEST: Bytes = Bytes::new(288 << 20);
/// How old a look may be: some milliseconds pass before the call. A plan that somebody has thought about
/// is older, and so much only passes where a computer stands still.
pub(crate) const FRESH: Duration = Duration::from_secs(10);

/// The pages of a process, mapping by mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) taken: Instant,
    /// Where all of it could go.
    pub(crate) to: NodeId,
    /// Base pages in all runs.
    pub(crate) pages: u64,
    pub(crate) parts: Vec<Part>,
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    range: AddrRange,
    /// Pages on a source node.
    pub(crate) away: Vec<Run>,
    /// Base pages on the destination.
    pub(crate) home_pages: u64,
}

impl Look {
    /// A look that has seen nothing yet.
    pub(crate) fn begin(to: NodeId) -> Self {
        Self { taken: Instant::now(), to, pages: 0, parts: Vec::new() }
    }

    /// Goes on with the next mapping.
    pub(crate) fn enter(&mut self, range: AddrRange) {
        self.parts.push(Part { range, away: Vec::new(), home_pages: 0 });
    }

    /// Takes in a run of that mapping. More than a sweep could move is counted, and not kept.
    pub(crate) fn add(&mut self, run: &Run, from: &NodeSet) {
        let Some(part) = self.parts.last_mut() else { return };
        if run.node == self.to {
            part.home_pages += run.pages;
        } else if from.contains(run.node) {
            self.pages += run.pages;
            if self.pages <= LARGEST.pages() {
                part.away.push(*run);
            }
        }
    }

    /// Whether one call may follow.
    pub(crate) fn is_fit(&self) -> bool {
        (1..=LARGEST.pages()).contains(&self.pages) && self.taken.elapsed() < FRESH
    }

    pub(crate) fn part(&self, range: AddrRange) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&range, |part| part.range).ok()?;
        Some(&self.parts[at])
    }
}

impl Part {
    /// Whether the kernel counts, on the destination alone, as many pages as there were.
    pub(crate) fn has_arrived(
        &self,
        counts: &BTreeMap<NodeId, u64>,
        to: NodeId,
        from: &NodeSet,
    ) -> bool {
        let away_pages: u64 = self.away.iter().map(|run| run.pages).sum();
        counts.get(&to) == Some(&(self.home_pages + away_pages))
            && !counts.keys().any(|&node| from.contains(node))
    }
}
