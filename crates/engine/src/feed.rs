//! The feed: turns planned ranges into batches, each for one destination, in address order.
//!
//! In move_pages(2) a page that is home already, that fails, or that is bound for another node ends
//! the kernel's batch and costs most of its speed (behaviour spec 3.4). So pages are looked up just
//! before their turn, and a batch holds only pages that are elsewhere, one address a folio, of one
//! size, for one node; shared pages travel apart. The feed moves nothing and holds at most
//! [`READ_AHEAD_PAGES`] beyond the batches that it has handed out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use linux::ReadError;
use machine::{AddrRange, NodeId};

use crate::filter::Filter;
use crate::memory::Memory;
use crate::placement::{Kind, Mapping, PageSize, Run};
use crate::plan::PlannedPass;

/// Base pages that are looked up ahead of the batch at hand.
const READ_AHEAD_PAGES: u64 = 32768;
/// How often a page is tried before it counts as stayed.
pub(crate) const MAX_ROUNDS: u8 = 3;

/// A page to move: a folio, by its first mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: u64,
    pub(crate) from: NodeId,
    pub(crate) kind: Kind,
}

/// What the pages of one batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    /// 1 for the first try.
    pub(crate) round: u8,
    /// Other page table entries map them too.
    pub(crate) shared: bool,
    pub(crate) to: NodeId,
    pub(crate) size: PageSize,
}

/// Pages for one call of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) lane: Lane,
    pub(crate) candidates: Vec<Candidate>,
}

impl Batch {
    /// Base pages of the batch.
    pub(crate) fn pages(&self) -> u64 {
        self.candidates.len() as u64 * self.lane.size.base_pages()
    }
}

/// What the feed has for a worker.
#[derive(Debug)]
pub(crate) enum Next {
    /// Move these.
    Batch(Batch),
    /// Nothing now; batches in work may yet come back for a retry.
    Wait,
    /// Nothing more.
    Done,
}

/// Pages that the feed itself accounts for. Base pages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) found: u64,
    pub(crate) already_there: u64,
    /// Found, and left where they are since their destination is full.
    pub(crate) no_memory: u64,
}

pub(crate) struct Feed<'a> {
    memory: &'a dyn Memory,
    filter: &'a Filter,
    passes: std::slice::Iter<'a, PlannedPass>,
    pass: Option<&'a PlannedPass>,
    /// What is left to look up in this pass.
    parts: VecDeque<(Mapping, AddrRange)>,
    lanes: BTreeMap<Lane, VecDeque<Candidate>>,
    queued_pages: u64,
    batches_out: u32,
    /// Base pages that the limit still allows.
    allowed_pages: u64,
    full: BTreeSet<(NodeId, PageSize)>,
    counts: Counts,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(
        memory: &'a dyn Memory,
        filter: &'a Filter,
        passes: &'a [PlannedPass],
    ) -> Self {
        Self {
            memory,
            filter,
            passes: passes.iter(),
            pass: None,
            parts: VecDeque::new(),
            lanes: BTreeMap::new(),
            queued_pages: 0,
            batches_out: 0,
            allowed_pages: filter.limit.map_or(u64::MAX, |limit| limit.pages()),
            full: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The next batch, of at most `chunk_pages` base pages, but at least one page.
    pub(crate) fn next(&mut self, chunk_pages: u64) -> Result<Next, ReadError> {
        loop {
            self.look_ahead(chunk_pages)?;
            if let Some(batch) = self.take(chunk_pages) {
                self.batches_out += 1;
                return Ok(Next::Batch(batch));
            }
            if self.batches_out > 0 {
                return Ok(Next::Wait);
            }
            let Some(pass) = self.passes.next() else { return Ok(Next::Done) };
            self.begin(pass)?;
        }
    }

    /// Takes a batch back: `retry` are its pages that are worth another try.
    pub(crate) fn give_back(&mut self, lane: Lane, retry: Vec<Candidate>) {
        self.batches_out -= 1;
        if retry.is_empty() {
            return;
        }
        let lane = Lane { round: lane.round + 1, ..lane };
        self.queued_pages += retry.len() as u64 * lane.size.base_pages();
        self.lanes.entry(lane).or_default().extend(retry);
    }

    /// Sends no more pages of this size to a node that had no memory for one.
    pub(crate) fn mark_full(&mut self, node: NodeId, size: PageSize) {
        self.full.insert((node, size));
        for (lane, candidates) in &mut self.lanes {
            if lane.to == node && lane.size == size {
                let pages = candidates.len() as u64 * size.base_pages();
                candidates.clear();
                self.queued_pages -= pages;
                self.counts.no_memory += pages;
            }
        }
    }

    /// Whether pages of this size have no room on `node`.
    pub(crate) fn is_full(&self, node: NodeId, size: PageSize) -> bool {
        self.full.contains(&(node, size))
    }

    fn begin(&mut self, pass: &'a PlannedPass) -> Result<(), ReadError> {
        self.pass = Some(pass);
        self.parts = pass.parts(&self.memory.mappings()?).into();
        Ok(())
    }

    /// Looks pages up until enough wait in line for full batches.
    fn look_ahead(&mut self, chunk_pages: u64) -> Result<(), ReadError> {
        let Some(pass) = self.pass else { return Ok(()) };
        let enough = chunk_pages.max(READ_AHEAD_PAGES);
        while self.queued_pages < enough
            && let Some((mapping, range)) = self.parts.pop_front()
        {
            let memory = self.memory;
            let mut resume = range.end();
            memory.runs(&mapping, range, &mut |run| match self.queue(pass, &run, enough) {
                None => ControlFlow::Continue(()),
                Some(address) => {
                    resume = address;
                    ControlFlow::Break(())
                }
            })?;
            let rest = range.starting_at(resume);
            if !rest.is_empty() {
                self.parts.push_front((mapping, rest));
            }
        }
        Ok(())
    }

    /// Puts the pages of a run in line; returns the address to go on from when the lines are full.
    fn queue(&mut self, pass: &PlannedPass, run: &Run, enough: u64) -> Option<u64> {
        if !self.filter.accepts(run) {
            return None;
        }
        let is_source = pass.from.contains(run.node);
        let pages = run.size.base_pages();
        for address in run.page_starts() {
            let to = pass.to.node_for(address, run);
            if to == run.node {
                self.counts.already_there += pages;
                continue;
            }
            if !is_source {
                continue;
            }
            if self.queued_pages >= enough {
                return Some(address);
            }
            if self.allowed_pages < pages {
                self.allowed_pages = 0;
                self.parts.clear();
                return Some(u64::MAX);
            }
            self.allowed_pages -= pages;
            self.counts.found += pages;
            if self.full.contains(&(to, run.size)) {
                self.counts.no_memory += pages;
                continue;
            }
            let lane = Lane { round: 1, shared: run.shared, to, size: run.size };
            let candidate = Candidate { address, from: run.node, kind: run.kind };
            self.lanes.entry(lane).or_default().push_back(candidate);
            self.queued_pages += pages;
        }
        None
    }

    /// The first lane with a full chunk; when all is looked up, the first lane with anything. First
    /// tries come before retries, since what was busy then may not be later.
    fn take(&mut self, chunk_pages: u64) -> Option<Batch> {
        let more_to_come = !self.parts.is_empty() && self.queued_pages < READ_AHEAD_PAGES;
        let wanted = |lane: &Lane| (chunk_pages / lane.size.base_pages()).max(1);
        let full_lane = self.lanes.iter().find(|(lane, line)| line.len() as u64 >= wanted(lane));
        let any_lane = || self.lanes.iter().find(|(_, line)| !line.is_empty());
        let (&lane, _) = match full_lane {
            Some(lane) => lane,
            None if more_to_come => return None,
            None => any_lane()?,
        };
        let line = self.lanes.get_mut(&lane)?;
        let length = usize::try_from(wanted(&lane)).unwrap_or(usize::MAX).min(line.len());
        let batch = Batch { lane, candidates: line.drain(..length).collect() };
        self.queued_pages -= batch.pages();
        Some(batch)
    }
}
