//! The mover: carries out a plan in paced chunks, and says what became of every page.
//!
//! A sweep goes first where one may. Then each worker takes a batch from the feed, gives it to the
//! kernel in one call, and settles every page by what the kernel said. Called by `move` and its undo. It never touches a
//! process other than the one that was opened, sends no page twice at a time, and leaves the feed's
//! lock before it calls the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use linux::ReadError;
use linux::calls::MoveError;
use machine::Bytes;

use crate::feed::{Batch, Feed, MAX_ROUNDS, Next, Piece};
use crate::journal::Journal;
use crate::memory::Memory;
use crate::outcome::{Cause, End, Outcome, nanoseconds};
use crate::pace::{Limits, Pace};
use crate::plan::Plan;
use crate::portion::Portions;
use crate::settle::{Fate, Settled, settle};
use crate::sweep::sweep;
use crate::verify::verify;

/// How a plan is to be carried out.
#[derive(Clone, Copy, Debug)]
pub struct MoveOptions {
    /// Rate and stall.
    pub limits: Limits,
    /// Threads that call the kernel; at least one.
    pub threads: u32,
}

/// What a move looks like after a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Base pages that are on their destination.
    pub moved_pages: u64,
    /// Base pages of this chunk.
    pub chunk_pages: u64,
    /// The longest call so far.
    pub longest_call: Duration,
    /// Time since the first chunk began.
    pub elapsed: Duration,
}

/// Carries out one [`Plan`].
pub struct Mover<'a> {
    memory: &'a dyn Memory,
    plan: &'a Plan,
    options: MoveOptions,
    stop: &'a AtomicBool,
    on_progress: &'a (dyn Fn(&Progress) + Sync),
}

/// What the workers share. Held only between calls of the kernel.
struct Books<'a> {
    feed: Feed<'a>,
    outcome: Outcome,
    /// Base pages that each pass of the plan has moved.
    arrived: Vec<u64>,
    journal: Option<&'a mut Journal>,
    /// The first error that ends the whole move.
    error: Option<ReadError>,
}

impl<'a> Mover<'a> {
    /// A mover of `plan` that calls `on_progress` after each chunk, from any of its threads, and
    /// ends at a chunk's end once `stop` is set.
    pub fn new(
        memory: &'a dyn Memory,
        plan: &'a Plan,
        options: MoveOptions,
        stop: &'a AtomicBool,
        on_progress: &'a (dyn Fn(&Progress) + Sync),
    ) -> Self {
        Self { memory, plan, options, stop, on_progress }
    }

    /// Moves the pages, asks the kernel again where they are, and accounts for each. What moved is
    /// written to `journal`, for undo.
    ///
    /// # Errors
    ///
    /// When the target's memory could not be read. What the kernel refuses is no error but an
    /// [`End`] of the outcome.
    pub fn run(&self, mut journal: Option<&mut Journal>) -> Result<Outcome, ReadError> {
        let began = Instant::now();
        let mut outcome = Outcome::new(self.memory.pid());
        let mut swept = None;
        if self.may_sweep() {
            swept = sweep(self.memory, self.plan, journal.as_deref_mut())?;
            self.stop_without_record(journal.as_deref());
        }
        if let Some(swept) = &swept {
            swept.book(&mut outcome);
            self.report(&outcome, swept.found_pages, began);
        }
        let filter = &self.plan.filter;
        let passes = swept.as_ref().map_or(&self.plan.passes, |swept| &swept.rest);
        let books = Mutex::new(Books {
            feed: Feed::new(self.memory, filter, passes),
            outcome,
            arrived: vec![0; passes.len()],
            journal,
            error: None,
        });
        let returned = Condvar::new();
        let worker = Worker { mover: self, books: &books, returned: &returned, began };
        thread::scope(|scope| {
            for _ in 1..self.options.threads {
                scope.spawn(|| worker.work());
            }
            worker.work();
        });
        let books = books.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = books.error {
            return Err(error);
        }
        let counts = books.feed.counts();
        let mut outcome = books.outcome;
        outcome.found_pages += counts.found;
        if swept.is_none() {
            outcome.already_there_pages = counts.already_there;
        }
        outcome.stay(Cause::NoMemory, counts.no_memory);
        outcome.elapsed_ns = nanoseconds(began.elapsed());
        verify(self.memory, filter, passes, &books.arrived, &mut outcome)?;
        if let Some(swept) = &swept {
            swept.add_placement(&mut outcome);
        }
        Ok(outcome)
    }

    /// What cannot be put on record cannot be undone: nothing more is moved then.
    fn stop_without_record(&self, journal: Option<&Journal>) {
        if journal.is_some_and(Journal::has_failed) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// A sweep is one long call, on one thread.
    fn may_sweep(&self) -> bool {
        let is_paced = self.options.limits != Limits::default();
        self.options.threads == 1 && !is_paced && !self.stop.load(Ordering::Relaxed)
    }

    fn report(&self, outcome: &Outcome, chunk_pages: u64, began: Instant) {
        (self.on_progress)(&Progress {
            moved_pages: outcome.moved_pages,
            chunk_pages,
            longest_call: Duration::from_nanos(outcome.longest_call_ns),
            elapsed: began.elapsed(),
        });
    }
}

struct Worker<'a, 'b> {
    mover: &'b Mover<'a>,
    books: &'b Mutex<Books<'a>>,
    /// Told whenever a batch has been booked, for workers that wait for retries or the next pass.
    returned: &'b Condvar,
    began: Instant,
}

impl<'a> Worker<'a, '_> {
    fn work(&self) {
        let mut pace = Pace::new(self.mover.options.limits);
        let mut portions = Portions::default();
        while let Some(mut batch) = self.next(pace.chunk_pages()) {
            let size_pages = batch.lane.size.base_pages();
            let portion = (pace.portion_pages() / size_pages).max(1);
            let pages = batch.each_page().map(|(address, _)| address);
            portions.fill(pages, usize::try_from(portion).unwrap_or(usize::MAX));
            let memory = self.mover.memory;
            let sharing = self.mover.plan.sharing;
            let (addresses, status) = portions.for_call();
            let called = Instant::now();
            let result = memory.move_pages(addresses, batch.lane.to, sharing, status);
            let took = called.elapsed();
            let status = portions.status();
            let untried = batch.cut_after(status.len() as u64);
            pace.learn(batch.pages(), portion * size_pages, took);
            let settled = settle(memory, &batch, sharing, status);
            let moved_pages = self.book(&batch, &settled, untried, result, took);
            self.rest(pace.rest(Bytes::from_pages(moved_pages), self.began.elapsed()));
        }
        self.lock().outcome.count_holds(&pace);
        self.returned.notify_all();
    }

    /// The next batch; `None` when the move has ended.
    fn next(&self, chunk_pages: u64) -> Option<Batch> {
        let mut books = self.lock();
        loop {
            if let Some(end) = self.early_end(&books) {
                books.outcome.end = end;
                return None;
            }
            match books.feed.next(chunk_pages) {
                Ok(Next::Batch(batch)) => return Some(batch),
                Ok(Next::Done) => return None,
                Ok(Next::Wait) => {
                    books = self.returned.wait(books).unwrap_or_else(PoisonError::into_inner);
                }
                Err(error) => {
                    books.error.get_or_insert(error);
                    return None;
                }
            }
        }
    }

    /// Why no further batch may begin.
    fn early_end(&self, books: &Books<'_>) -> Option<End> {
        if books.outcome.end != End::Completed {
            return Some(books.outcome.end.clone());
        }
        if books.error.is_some() || self.mover.stop.load(Ordering::Relaxed) {
            return Some(End::Interrupted);
        }
        (!self.mover.memory.is_alive()).then_some(End::TargetGone)
    }

    /// Enters what became of a batch; returns the base pages that moved since the beginning.
    fn book(
        &self,
        batch: &Batch,
        settled: &Settled,
        untried: Vec<Piece>,
        result: Result<(), MoveError>,
        took: Duration,
    ) -> u64 {
        let mut books = self.lock();
        let books = &mut *books;
        books.outcome.count_call(took);
        if let Err(error) = result {
            books.refused(batch, error);
        }
        books.settled(batch, settled, untried);
        if let Some(journal) = &mut books.journal {
            journal.record(&batch.lane, &settled.moved);
            self.mover.stop_without_record(Some(journal));
        }
        self.mover.report(&books.outcome, batch.pages(), self.began);
        self.returned.notify_all();
        books.outcome.moved_pages
    }

    /// Sleeps, but wakes up soon after a stop.
    fn rest(&self, mut time: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        while !time.is_zero() && !self.mover.stop.load(Ordering::Relaxed) {
            thread::sleep(time.min(STEP));
            time = time.saturating_sub(STEP);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books<'a>> {
        // A worker that panicked fails the move when its thread is joined.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books<'_> {
    /// A call failed as a whole. A full node closes its lane; anything else ends the move.
    fn refused(&mut self, batch: &Batch, error: MoveError) {
        match error {
            MoveError::NoMemory { .. } => self.feed.mark_full(batch.lane.to, batch.lane.size),
            MoveError::TargetGone { .. } | MoveError::NoAddressSpace { .. } => {
                self.outcome.end = End::TargetGone;
            }
            MoveError::NotPermitted { .. } | MoveError::NotPrivileged { .. } => {
                self.outcome.end = End::NotPermitted;
            }
            error => self.outcome.end = End::Refused(error.to_string()),
        }
    }

    fn settled(&mut self, batch: &Batch, settled: &Settled, mut untried: Vec<Piece>) {
        let size_pages = batch.lane.size.base_pages();
        let full = self.feed.is_full(batch.lane.to, batch.lane.size);
        let mut moved_pages: u64 = settled.moved.iter().map(|piece| piece.count * size_pages).sum();
        let mut retry = Vec::new();
        for (piece, fate) in &settled.rest {
            let pages = piece.count * size_pages;
            match *fate {
                Fate::Moved => moved_pages += pages,
                Fate::Gone => self.outcome.gone_pages += pages,
                Fate::Stayed(cause) => self.outcome.stay(cause, pages),
                Fate::Retry(_) if full => self.outcome.stay(Cause::NoMemory, pages),
                Fate::Retry(_) if batch.lane.round < MAX_ROUNDS => retry.push(*piece),
                Fate::Retry(cause) => self.outcome.stay(cause, pages),
            }
        }
        self.outcome.moved_pages += moved_pages;
        self.arrived[self.feed.pass_number()] += moved_pages;
        if full {
            let pages = untried.drain(..).map(|piece| piece.count * size_pages).sum();
            self.outcome.stay(Cause::NoMemory, pages);
        }
        self.feed.give_back(batch.lane, retry, untried);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::filter::Filter;
    use crate::memory::Sharing;
    use crate::memory::fake::{FakeMemory, node};
    use crate::plan::draft;
    use crate::plan::tests::{plan_of, two_nodes};
    use crate::route::Route;

    fn plan(memory: &FakeMemory, route: &Route, filter: Filter, sharing: Sharing) -> Plan {
        let draft = draft(memory, &two_nodes(), route, &filter, sharing).unwrap();
        Plan { filter, sharing, look: draft.look, ..plan_of(draft.passes) }
    }

    fn to_node_one(memory: &FakeMemory) -> Plan {
        plan(memory, &Route::To(node(1)), Filter::default(), Sharing::OwnOnly)
    }

    fn options(threads: u32) -> MoveOptions {
        MoveOptions { limits: Limits::default(), threads }
    }

    fn run(memory: &FakeMemory, plan: &Plan) -> Outcome {
        let stop = AtomicBool::new(false);
        Mover::new(memory, plan, options(1), &stop, &|_| ()).run(None).unwrap()
    }

    #[test]
    fn only_pages_that_are_elsewhere_are_sent_and_all_are_accounted_for() {
        let memory = FakeMemory::new("0101-0");
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!(memory.nodes(), "1111-1");
        assert_eq!(memory.calls.lock().unwrap()[0].pages, [16 << 12, 18 << 12, 21 << 12]);
        assert_eq!((outcome.found_pages, outcome.moved_pages), (3, 3));
        assert_eq!(outcome.already_there_pages, 2);
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(1), 5)])));
        assert_eq!(outcome.stayed, BTreeMap::new());
    }

    #[test]
    fn a_pinned_page_hides_the_words_of_its_batch_but_the_others_count_as_moved() {
        let memory = FakeMemory::new("00000").with_page(2, |page| page.pinned_calls = u32::MAX);
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!(memory.nodes(), "11011");
        assert_eq!(outcome.moved_pages, 4);
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::PinnedOrBusy, 1)]));
        assert_eq!(outcome.left_pages, 1);
    }

    #[test]
    fn a_page_that_is_busy_once_is_tried_again_and_moves() {
        let memory = FakeMemory::new("000").with_page(1, |page| page.pinned_calls = 1);
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (3, 0));
        assert_eq!(memory.calls.lock().unwrap()[1].pages, [17 << 12], "only that one again");
    }

    #[test]
    fn shared_pages_stay_with_their_cause_and_do_not_break_the_batch_of_others() {
        let memory = FakeMemory::new("0000").with_page(1, |page| page.shared = true);
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!(memory.nodes(), "1011");
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::Shared, 1)]));
        assert_eq!(memory.calls.lock().unwrap()[0].pages.len(), 3);
    }

    #[test]
    fn shared_pages_move_when_asked_for() {
        let memory = FakeMemory::new("0000").with_page(1, |page| page.shared = true);
        let filter = Filter::default();
        let plan = plan(&memory, &Route::To(node(1)), filter, Sharing::IncludeShared);
        assert_eq!(run(&memory, &plan).moved_pages, 4);
    }

    #[test]
    fn a_node_that_fills_up_takes_what_fits_and_the_rest_stays_for_lack_of_memory() {
        let memory = FakeMemory::new("000000");
        memory.room_pages.lock().unwrap().insert(node(1), 4);
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!(outcome.moved_pages, 4);
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::NoMemory, 2)]));
        assert_eq!(outcome.end, End::Completed);
    }

    #[test]
    fn a_target_that_exits_midway_ends_the_move_and_is_no_error() {
        let mut memory = FakeMemory::new("000000");
        memory.dies_at_call = Some(1);
        let outcome = run(&memory, &to_node_one(&memory));
        assert_eq!(outcome.end, End::TargetGone);
        assert_eq!(outcome.placement, None);
        assert_eq!(outcome.gone_pages, outcome.found_pages);
    }

    #[test]
    fn a_stop_before_the_first_chunk_leaves_every_page_and_says_that_none_was_tried() {
        let memory = FakeMemory::new("0000");
        let plan = to_node_one(&memory);
        let stop = AtomicBool::new(true);
        let outcome = Mover::new(&memory, &plan, options(1), &stop, &|_| ()).run(None).unwrap();
        assert_eq!(outcome.end, End::Interrupted);
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::NotTried, 4)]));
        assert_eq!(memory.nodes(), "0000");
    }

    #[test]
    fn a_limit_counts_pages_that_were_sent() {
        let memory = FakeMemory::new("000000");
        let filter = Filter { limit: Some(Bytes::from_pages(4)), ..Filter::default() };
        let plan = plan(&memory, &Route::To(node(1)), filter, Sharing::OwnOnly);
        assert_eq!(run(&memory, &plan).moved_pages, 4);
        assert_eq!(memory.nodes(), "111100");
    }

    #[test]
    fn what_is_beyond_a_limit_was_not_left_behind() {
        let memory = FakeMemory::new("000000").with_page(1, |page| page.pinned_calls = u32::MAX);
        let filter = Filter { limit: Some(Bytes::from_pages(4)), ..Filter::default() };
        let outcome = run(&memory, &plan(&memory, &Route::To(node(1)), filter, Sharing::OwnOnly));
        assert_eq!(memory.nodes(), "101100");
        assert_eq!((outcome.moved_pages, outcome.stayed_pages(), outcome.left_pages), (3, 1, 1));
    }

    fn from_to(memory: &FakeMemory, from: &str, to: &str) -> Plan {
        let machine = machine::load("four-socket").unwrap();
        let route = Route::FromTo { from: from.parse().unwrap(), to: to.parse().unwrap() };
        let (filter, sharing) = (Filter::default(), Sharing::OwnOnly);
        plan_of(draft(memory, &machine, &route, &filter, sharing).unwrap().passes)
    }

    #[test]
    fn a_node_that_is_emptied_and_then_filled_is_accounted_for_once() {
        let memory = FakeMemory::new("00112").with_page(2, |page| page.pinned_calls = u32::MAX);
        let outcome = run(&memory, &from_to(&memory, "0,1", "1,2"));
        assert_eq!(memory.nodes(), "11122");
        assert_eq!((outcome.found_pages, outcome.moved_pages), (4, 3));
        assert_eq!((outcome.already_there_pages, outcome.left_pages), (1, 1));
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(1), 3), (node(2), 2)])));
    }

    #[test]
    fn a_page_that_an_earlier_pass_brought_was_not_there_already() {
        let memory = FakeMemory::new("0213");
        let outcome = run(&memory, &from_to(&memory, "0,2", "1"));
        assert_eq!(memory.nodes(), "1113");
        assert_eq!((outcome.moved_pages, outcome.already_there_pages), (2, 1));
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(1), 3), (node(3), 1)])));
    }

    #[test]
    fn a_move_is_undone_page_by_page_and_what_changed_since_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let memory = FakeMemory::new("0010");
        let plan = to_node_one(&memory);
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        let stop = AtomicBool::new(false);
        Mover::new(&memory, &plan, options(1), &stop, &|_| ()).run(Some(&mut journal)).unwrap();
        journal.finish().unwrap();
        assert_eq!(memory.nodes(), "1111");

        memory.pages.lock().unwrap().remove(&17);
        let record = crate::journal::Record::last_of(folder.path(), &plan.target).unwrap();
        let back = Plan { passes: record.passes_back(), ..plan };
        let outcome = run(&memory, &back);
        assert_eq!(memory.nodes(), "0-10", "page 2 was on node 1 before and stays");
        assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (2, 0));
    }

    proptest! {
        #[test]
        fn every_page_has_one_fate_whatever_is_pinned_shared_or_full(
            nodes in "[01-]{1,60}",
            pinned in prop::collection::vec((0u64..60, 1u32..6), 0..8),
            shared in prop::collection::vec(0u64..60, 0..8),
            room in prop::option::of(0u64..40),
            threads in 1u32..4,
            can_migrate: bool,
            stall_us in prop::option::of(20u64..400),
        ) {
            let memory = FakeMemory { can_migrate, ..FakeMemory::new(&nodes) };
            {
                let mut pages = memory.pages.lock().unwrap();
                for (at, calls) in pinned {
                    if let Some(page) = pages.get_mut(&(16 + at)) { page.pinned_calls = calls; }
                }
                for at in shared {
                    if let Some(page) = pages.get_mut(&(16 + at)) { page.shared = true; }
                }
                if let Some(room) = room {
                    memory.room_pages.lock().unwrap().insert(node(1), room);
                }
            }
            let sources = nodes.matches('0').count() as u64;
            let plan = to_node_one(&memory);
            let stop = AtomicBool::new(false);
            let limits = Limits { stall_max: stall_us.map(Duration::from_micros), rate_per_s: None };
            let options = MoveOptions { limits, threads };
            let outcome = Mover::new(&memory, &plan, options, &stop, &|_| ()).run(None).unwrap();
            prop_assert_eq!(outcome.found_pages, sources);
            prop_assert_eq!(outcome.moved_pages + outcome.stayed_pages(), sources);
            prop_assert_eq!(outcome.left_pages, outcome.stayed_pages());
            let left = memory.nodes().matches('0').count() as u64;
            prop_assert_eq!(outcome.stayed_pages(), left);
        }

        #[test]
        fn in_portions_all_pages_move_but_those_that_are_pinned_for_good(
            pinned in prop::collection::btree_set(0u64..60, 0..20),
            stall_us in 20u64..400,
        ) {
            let memory = FakeMemory::new(&"0".repeat(60));
            for at in &pinned {
                let mut pages = memory.pages.lock().unwrap();
                pages.entry(16 + at).and_modify(|page| page.pinned_calls = u32::MAX);
            }
            let stop = AtomicBool::new(false);
            let limits = Limits { stall_max: Some(Duration::from_micros(stall_us)), rate_per_s: None };
            let options = MoveOptions { limits, threads: 1 };
            let plan = to_node_one(&memory);
            let outcome = Mover::new(&memory, &plan, options, &stop, &|_| ()).run(None).unwrap();
            let pinned = pinned.len() as u64;
            prop_assert_eq!(outcome.moved_pages, 60 - pinned);
            prop_assert_eq!(outcome.stayed_pages(), pinned);
            prop_assert!(outcome.longest_hold_ns.is_some());
        }
    }
}
