//! The feed: turns planned ranges into batches, each for one destination, in address order.
//!
//! In move_pages(2) a page that is home already, that fails, or that is bound for another node ends
//! the kernel's batch and costs most of its speed (behaviour spec 3.4). So pages are looked up just
//! before their turn, and a batch holds only pages that are elsewhere, one address a folio, of one
//! size, for one node; shared pages travel apart. The feed moves nothing and holds at most
//! [`READ_AHEAD_PAGES`] beyond the batches that it has handed out.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;

use linux::ReadError;
use machine::{AddrRange, BASE_PAGE_BYTES, NodeId};

use crate::few::Few;
use crate::filter::Filter;
use crate::memory::Memory;
use crate::placement::{Kind, Mapping, PageSize, Run};
use crate::plan::PlannedPass;
use crate::route::Destination;

/// Base pages that are looked up ahead of the batch at hand.
const READ_AHEAD_PAGES: u64 = 32768;
/// How often a page is tried before it counts as stayed.
pub(crate) const MAX_ROUNDS: u8 = 3;

/// Neighbouring pages to move, of the lane's page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Address of the first page.
    pub(crate) start: u64,
    /// Pages of the lane's size; each is one address for the kernel.
    pub(crate) count: u64,
    pub(crate) from: NodeId,
    pub(crate) kind: Kind,
}

impl Piece {
    /// Takes the first `count` pages off; the rest stays.
    fn split_off_front(&mut self, count: u64, size: PageSize) -> Self {
        let front = Self { count, ..*self };
        self.start += count * size.base_pages() * BASE_PAGE_BYTES;
        self.count -= count;
        front
    }
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
    pub(crate) pieces: Vec<Piece>,
}

impl Batch {
    /// Base pages of the batch.
    pub(crate) fn pages(&self) -> u64 {
        let count: u64 = self.pieces.iter().map(|piece| piece.count).sum();
        count * self.lane.size.base_pages()
    }

    /// Keeps the first `count` pages of the lane's size, and returns the others.
    pub(crate) fn cut_after(&mut self, count: u64) -> Vec<Piece> {
        let mut line = Line::default();
        self.pieces.drain(..).for_each(|piece| line.push(piece));
        self.pieces = line.take(count, self.lane.size);
        line.pieces.into()
    }

    /// Each page with the piece that it belongs to, in order.
    pub(crate) fn each_page(&self) -> impl Iterator<Item = (u64, &Piece)> {
        let step = self.lane.size.base_pages() * BASE_PAGE_BYTES;
        self.pieces
            .iter()
            .flat_map(move |piece| (0..piece.count).map(move |at| (piece.start + at * step, piece)))
    }
}

/// Pages that wait for their turn.
#[derive(Clone, Debug, Default)]
struct Line {
    pieces: VecDeque<Piece>,
    /// Pages of the lane's size in all of them.
    count: u64,
}

impl Line {
    fn push(&mut self, piece: Piece) {
        self.count += piece.count;
        self.pieces.push_back(piece);
    }

    fn take(&mut self, count: u64, size: PageSize) -> Vec<Piece> {
        let mut left = count.min(self.count);
        self.count -= left;
        let mut taken = Vec::new();
        while left > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            if piece.count > left {
                taken.push(piece.split_off_front(left, size));
                break;
            }
            left -= piece.count;
            taken.extend(self.pieces.pop_front());
        }
        taken
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
    passes: &'a [PlannedPass],
    /// Passes that have begun; the last of them is at work.
    begun: usize,
    /// What is left to look up in this pass.
    parts: VecDeque<(Mapping, AddrRange)>,
    lanes: Few<Lane, Line>,
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
            passes,
            begun: 0,
            parts: VecDeque::new(),
            lanes: Few::default(),
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

    /// Which of the passes is at work, from 0. All batches that are out belong to it.
    pub(crate) fn pass_number(&self) -> usize {
        self.begun.saturating_sub(1)
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
            let Some(pass) = self.passes.get(self.begun) else { return Ok(Next::Done) };
            self.begin(pass)?;
        }
    }

    /// Takes a batch back: `retry` are its pages that are worth another try, `untried` those that have not
    /// had theirs.
    pub(crate) fn give_back(&mut self, lane: Lane, retry: Vec<Piece>, untried: Vec<Piece>) {
        self.batches_out -= 1;
        for (lane, pieces) in [(Lane { round: lane.round + 1, ..lane }, retry), (lane, untried)] {
            for piece in pieces {
                self.queued_pages += piece.count * lane.size.base_pages();
                self.lanes.entry(lane).push(piece);
            }
        }
    }

    /// Sends no more pages of this size to a node that had no memory for one.
    pub(crate) fn mark_full(&mut self, node: NodeId, size: PageSize) {
        self.full.insert((node, size));
        for (lane, line) in self.lanes.iter_mut() {
            if lane.to == node && lane.size == size {
                let pages = std::mem::take(line).count * size.base_pages();
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
        self.begun += 1;
        self.parts = pass.parts(&self.memory.mappings()?).into();
        Ok(())
    }

    /// Looks pages up until enough wait in line for full batches.
    fn look_ahead(&mut self, chunk_pages: u64) -> Result<(), ReadError> {
        let Some(pass) = self.begun.checked_sub(1).and_then(|at| self.passes.get(at)) else {
            return Ok(());
        };
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
        match &pass.to {
            Destination::Node(to) => {
                self.queue_piece(pass, run, *to, run.start, run.count(), enough)
            }
            Destination::Interleave(_) => run.page_starts().find_map(|address| {
                let to = pass.to.node_for(address, run);
                self.queue_piece(pass, run, to, address, 1, enough)
            }),
        }
    }

    /// Puts `count` neighbouring pages of a run, all for one node, in line.
    fn queue_piece(
        &mut self,
        pass: &PlannedPass,
        run: &Run,
        to: NodeId,
        start: u64,
        count: u64,
        enough: u64,
    ) -> Option<u64> {
        let size_pages = run.size.base_pages();
        if to == run.node {
            if !self.was_touched_before(to, start) {
                self.counts.already_there += count * size_pages;
            }
            return None;
        }
        if !pass.from.contains(run.node) {
            return None;
        }
        let space = enough.saturating_sub(self.queued_pages).div_ceil(size_pages);
        let allowed = self.allowed_pages / size_pages;
        let taken = count.min(space).min(allowed);
        let pages = taken * size_pages;
        self.allowed_pages -= pages;
        self.counts.found += pages;
        if self.full.contains(&(to, run.size)) {
            self.counts.no_memory += pages;
        } else if taken > 0 {
            let lane = Lane { round: 1, shared: run.shared, to, size: run.size };
            let piece = Piece { start, count: taken, from: run.node, kind: run.kind };
            self.lanes.entry(lane).push(piece);
            self.queued_pages += pages;
        }
        if taken == count {
            return None;
        }
        if taken == allowed {
            // The limit is reached: this pass has nothing more to look up, and neither have others.
            self.allowed_pages = 0;
            self.parts.clear();
            return Some(u64::MAX);
        }
        Some(start + pages * BASE_PAGE_BYTES)
    }

    /// Whether an earlier pass has taken pages from `node` or brought some there, around `address`:
    /// what lies there now has its fate already.
    fn was_touched_before(&self, node: NodeId, address: u64) -> bool {
        let page = AddrRange::from_pages(address, 1);
        self.passes[..self.pass_number()].iter().any(|pass| {
            (pass.from.contains(node) || pass.to.nodes().contains(node)) && pass.touches(page)
        })
    }

    /// The first lane with a full chunk; when all is looked up, the first lane with anything. First
    /// tries come before retries, since what was busy then may not be later.
    fn take(&mut self, chunk_pages: u64) -> Option<Batch> {
        let more_to_come = !self.parts.is_empty() && self.queued_pages < READ_AHEAD_PAGES;
        let wanted = |lane: &Lane| (chunk_pages / lane.size.base_pages()).max(1);
        let full_lane = self.lanes.iter().find(|(lane, line)| line.count >= wanted(lane));
        let any_lane = || self.lanes.iter().find(|(_, line)| line.count > 0);
        let &(lane, _) = match full_lane {
            Some(lane) => lane,
            None if more_to_come => return None,
            None => any_lane()?,
        };
        let pieces = self.lanes.entry(lane).take(wanted(&lane), lane.size);
        let batch = Batch { lane, pieces };
        self.queued_pages -= batch.pages();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(raw: u16) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn piece(page: u64, count: u64) -> Piece {
        Piece { start: page * 4096, count, from: node(0), kind: Kind::Anon }
    }

    #[test]
    fn a_line_gives_out_exactly_what_is_asked_for_and_cuts_a_piece_if_need_be() {
        let mut line = Line::default();
        line.push(piece(0, 3));
        line.push(piece(10, 5));
        assert_eq!(line.take(4, PageSize::Base), [piece(0, 3), piece(10, 1)]);
        assert_eq!(line.take(100, PageSize::Base), [piece(11, 4)]);
        assert_eq!((line.count, line.take(1, PageSize::Base)), (0, vec![]));
    }

    #[test]
    fn a_batch_names_each_huge_page_once() {
        let lane = Lane { round: 1, shared: false, to: node(1), size: PageSize::Thp };
        let batch = Batch { lane, pieces: vec![piece(512, 2)] };
        let starts: Vec<u64> = batch.each_page().map(|(start, _)| start).collect();
        assert_eq!(starts, [512 * 4096, 1024 * 4096]);
        assert_eq!(batch.pages(), 1024);
    }
}
