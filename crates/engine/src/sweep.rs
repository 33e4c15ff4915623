//! The sweep: moves a whole process by one call of migrate_pages(2), where that is what the plan
//! comes to.
//!
//! For the same pages that call takes less than move_pages(2), which walks to the page table for
//! each address (docs/performance.md). But it takes every page of the process, cannot be stopped, and
//! says nothing of single pages. So it is made only for a plan that leaves no page out and has just
//! been made, and for no more than [`LARGEST`](crate::look::LARGEST). What the plan's survey saw is compared with the
//! kernel's counts afterwards; only where those differ is every page looked at again. Where pages are
//! left, the mover goes on page by page, and finds out why. The journal has what the call may move
//! before it is made, and what it has moved afterwards.
//!
//! Called by the mover before its first chunk. Source:
//! behaviour spec 2.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use linux::ReadError;
use linux::calls::MoveError;
use machine::{AddrRange, NodeId};

use crate::feed::{Lane, Piece};
use crate::journal::Journal;
use crate::look::{Look, Part};
use crate::memory::Memory;
use crate::outcome::Outcome;
use crate::placement::{PageSize, Run};
use crate::plan::{Plan, PlannedPass, PlannedRange};
use crate::survey::for_each_run;

/// What a sweep did. Counts are base pages.
pub(crate) struct Sweep {
    to: NodeId,
    /// Pages that arrived: base pages, whatever moved as one.
    arrived: Vec<Piece>,
    /// Pages on a source node before.
    pub(crate) found_pages: u64,
    /// The ranges in which pages are left.
    pub(crate) rest: Vec<PlannedPass>,
    /// How long the call took.
    pub(crate) took: Duration,
    /// Pages on a source node before that are on one now.
    left_pages: u64,
    already_there_pages: u64,
    /// Where the pages of all ranges lie that are not in the rest.
    placement: BTreeMap<NodeId, u64>,
}

/// Makes the sweep of `plan`; `None` when the plan does not come to one, the kernel would not have it,
/// or it cannot be put on record, and nothing has moved.
///
/// # Errors
///
/// What reading the target gave.
pub(crate) fn sweep(
    memory: &dyn Memory,
    plan: &Plan,
    mut journal: Option<&mut Journal>,
) -> Result<Option<Sweep>, ReadError> {
    let ([pass], Some(look)) = (plan.passes.as_slice(), &plan.look) else { return Ok(None) };
    if !look.is_fit() || !memory.is_alive() {
        return Ok(None);
    }
    let lane = Lane { round: 1, shared: false, to: look.to, size: PageSize::Base };
    if let Some(journal) = &mut journal {
        let away = look.parts.iter().flat_map(|part| &part.away);
        journal.begin_sweep(&lane, &away.map(whole).collect::<Vec<_>>());
        if journal.has_failed() {
            return Ok(None);
        }
    }
    let began = Instant::now();
    let result = memory.migrate_pages(&pass.from, look.to, plan.sharing);
    let took = began.elapsed();
    let swept = match result {
        // How many pages stayed is not exact on any kernel, and which is not said.
        Ok(()) | Err(MoveError::NoMemory { .. } | MoveError::TargetGone { .. }) => {
            Some(Sweep::find_out(memory, look, pass, took)?)
        }
        Err(_) => None,
    };
    if let Some(journal) = journal {
        journal.end_sweep(&lane, swept.as_ref().map_or(&[], |swept| &swept.arrived));
    }
    Ok(swept)
}

impl Sweep {
    fn new(look: &Look, pass: &PlannedPass, took: Duration) -> Self {
        Self {
            to: look.to,
            arrived: Vec::new(),
            found_pages: look.pages,
            left_pages: 0,
            already_there_pages: 0,
            rest: vec![PlannedPass { ranges: Vec::new(), ..pass.clone() }],
            placement: BTreeMap::new(),
            took,
        }
    }

    /// Holds what the look saw against where the pages are after the call.
    fn find_out(
        memory: &dyn Memory,
        look: &Look,
        pass: &PlannedPass,
        took: Duration,
    ) -> Result<Self, ReadError> {
        let mut sweep = Self::new(look, pass, took);
        // Without the counts every page is looked at.
        let counts = memory.pages_by_node().unwrap_or_default();
        for (mapping, range) in pass.parts(&memory.mappings()?) {
            let Some(part) = look.part(range) else { continue };
            match counts.get(&range.start()) {
                Some(counts) if part.has_arrived(counts, look.to, &pass.from) => {
                    sweep.close(part, counts)
                }
                _ => {
                    let mut left_pages = 0;
                    for_each_run(memory, &mapping, range, |run| {
                        left_pages += sweep.look_at(&run, part, pass);
                    })?;
                    let (mapping, file) = (mapping.name, mapping.file);
                    sweep.leave(PlannedRange { range, mapping, file, pages: left_pages });
                }
            }
        }
        Ok(sweep)
    }

    /// All of a part has arrived.
    fn close(&mut self, part: &Part, counts: &BTreeMap<NodeId, u64>) {
        self.arrived.extend(part.away.iter().map(whole));
        self.already_there_pages += part.home_pages;
        for (node, pages) in counts {
            *self.placement.entry(*node).or_default() += pages;
        }
    }

    /// Looks at a run of a part that the counts leave open. Returns the base pages that are left.
    fn look_at(&mut self, now: &Run, part: &Part, pass: &PlannedPass) -> u64 {
        let known = overlaps(&part.away, now.range());
        let known_pages: u64 = known.clone().map(|(_, range)| range.pages()).sum();
        if now.node == self.to {
            self.arrived.extend(known.map(|(run, range)| piece(run, range)));
            self.already_there_pages += now.pages.saturating_sub(known_pages);
        }
        if !pass.from.contains(now.node) {
            return 0;
        }
        self.left_pages += known_pages;
        now.pages
    }

    /// Leaves a range to the mover, which also asks where its pages are in the end.
    fn leave(&mut self, range: PlannedRange) {
        self.rest.iter_mut().for_each(|pass| pass.ranges.push(range.clone()));
    }

    /// Enters what became of the pages that the mover will not meet.
    pub(crate) fn book(&self, outcome: &mut Outcome) {
        outcome.count_call(self.took);
        outcome.moved_pages = self.arrived.iter().map(|piece| piece.count).sum();
        outcome.gone_pages = self.found_pages.saturating_sub(outcome.moved_pages + self.left_pages);
        outcome.found_pages = outcome.moved_pages + outcome.gone_pages;
        outcome.already_there_pages = self.already_there_pages;
    }

    /// Adds to the placement of the rest that of all other ranges.
    pub(crate) fn add_placement(&self, outcome: &mut Outcome) {
        let Some(placement) = &mut outcome.placement else { return };
        for (node, pages) in &self.placement {
            *placement.entry(*node).or_default() += pages;
        }
    }
}

fn whole(run: &Run) -> Piece {
    piece(run, run.range())
}

fn piece(run: &Run, range: AddrRange) -> Piece {
    Piece { start: range.start(), count: range.pages(), from: run.node, kind: run.kind }
}

/// The runs, ascending, that a range cuts, each with what they have in common.
fn overlaps(runs: &[Run], range: AddrRange) -> impl Iterator<Item = (&Run, AddrRange)> + Clone {
    let behind = runs.partition_point(|run| run.range().end() <= range.start());
    runs[behind..].iter().map_while(move |run| Some((run, run.range().intersection(range)?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use machine::Bytes;

    use super::*;
    use crate::filter::Filter;
    use crate::journal::Record;
    use crate::look::{FRESH, LARGEST};
    use crate::memory::Sharing;
    use crate::memory::fake::{FakeMemory, node};
    use crate::mover::{MoveOptions, Mover};
    use crate::outcome::{Cause, End};
    use crate::pace::Limits;
    use crate::plan::draft;
    use crate::plan::tests::{plan_of, two_nodes};
    use crate::route::Route;

    fn fake(nodes: &str) -> FakeMemory {
        FakeMemory { can_migrate: true, ..FakeMemory::new(nodes) }
    }

    fn plan(memory: &FakeMemory, filter: Filter) -> Plan {
        let (route, sharing) = (Route::To(node(1)), Sharing::OwnOnly);
        let draft = draft(memory, &two_nodes(), &route, &filter, sharing).unwrap();
        Plan { filter, look: draft.look, ..plan_of(draft.passes) }
    }

    fn run(memory: &FakeMemory, plan: &Plan, journal: Option<&mut Journal>) -> Outcome {
        let options = MoveOptions { limits: Limits::default(), threads: 1 };
        Mover::new(memory, plan, options, &AtomicBool::new(false), &|_| ()).run(journal).unwrap()
    }

    /// How many addresses each call named; a sweep names none.
    fn calls(memory: &FakeMemory) -> Vec<usize> {
        memory.calls.lock().unwrap().iter().map(|call| call.pages.len()).collect()
    }

    #[test]
    fn a_whole_process_moves_by_one_call_and_every_page_is_accounted_for() {
        let memory = fake("0101-0");
        let outcome = run(&memory, &plan(&memory, Filter::default()), None);
        assert_eq!((memory.nodes(), calls(&memory)), ("1111-1".to_owned(), vec![0]));
        assert_eq!((outcome.found_pages, outcome.moved_pages), (3, 3));
        assert_eq!((outcome.already_there_pages, outcome.calls), (2, 1));
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(1), 5)])));
        assert_eq!((outcome.left_pages, outcome.end), (0, End::Completed));
    }

    #[test]
    fn what_the_call_leaves_is_tried_page_by_page_and_has_its_cause() {
        let memory = fake("00100")
            .with_page(1, |page| page.shared = true)
            .with_page(3, |page| page.pinned_calls = u32::MAX)
            .with_page(4, |page| page.pinned_calls = 1);
        let outcome = run(&memory, &plan(&memory, Filter::default()), None);
        assert_eq!(memory.nodes(), "10101");
        assert_eq!((outcome.found_pages, outcome.moved_pages), (4, 2));
        assert_eq!(outcome.already_there_pages, 1);
        let stayed = BTreeMap::from([(Cause::Shared, 1), (Cause::PinnedOrBusy, 1)]);
        assert_eq!((outcome.stayed, outcome.left_pages), (stayed, 2));
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(0), 2), (node(1), 3)])));
    }

    #[test]
    fn ranges_with_nothing_left_are_not_looked_at_again_but_placed() {
        let mut memory = fake("0000").with_page(3, |page| page.shared = true);
        let (first, second) = (memory.mappings[0].range.start(), 18 << 12);
        let mapping = |start, pages, name: &str| crate::placement::Mapping {
            range: AddrRange::from_pages(start, pages),
            name: name.to_owned(),
            ..memory.mappings[0].clone()
        };
        memory.mappings = vec![mapping(first, 2, "[heap]"), mapping(second, 2, "[anon]")];
        let plan = plan(&memory, Filter::default());
        let swept = sweep(&memory, &plan, None).unwrap().unwrap();
        let left: Vec<_> = swept.rest[0].ranges.iter().map(|range| &range.mapping).collect();
        assert_eq!(left, ["[anon]"]);
        assert_eq!(swept.placement, BTreeMap::from([(node(1), 2)]));
    }

    #[test]
    fn a_plan_that_leaves_pages_out_is_never_swept() {
        let memory = fake("000000");
        let first_half = AddrRange::from_pages(16 << 12, 3);
        for filter in [
            Filter { range: Some(first_half), ..Filter::default() },
            Filter { limit: Some(Bytes::from_pages(4)), ..Filter::default() },
        ] {
            assert!(sweep(&memory, &plan(&memory, filter), None).unwrap().is_none());
        }
        assert_eq!(memory.nodes(), "000000");
        assert!(calls(&memory).is_empty());
    }

    #[test]
    fn a_plan_from_a_file_or_an_old_one_is_never_swept() {
        let memory = fake("0000");
        let fresh = plan(&memory, Filter::default());
        let text = serde_json::to_string(&fresh).unwrap();
        let from_file: Plan = serde_json::from_str(&text).unwrap();
        let mut old = fresh;
        old.look = old.look.map(|look| Look { taken: look.taken - FRESH, ..look });
        for plan in [from_file, old] {
            assert!(sweep(&memory, &plan, None).unwrap().is_none());
        }
        assert!(calls(&memory).is_empty());
    }

    #[test]
    fn more_than_one_call_may_move_is_neither_kept_nor_swept() {
        let memory = fake("00");
        let plan = plan(&memory, Filter::default());
        let mut look = plan.look.clone().unwrap();
        let run = Run { pages: LARGEST.pages() - 1, ..look.parts[0].away[0] };
        look.add(&run, &plan.passes[0].from);
        assert!(!look.is_fit() && look.parts[0].away.len() == 1);
        assert!(sweep(&memory, &Plan { look: Some(look), ..plan }, None).unwrap().is_none());
    }

    #[test]
    fn a_mapping_that_changed_meanwhile_is_looked_at_page_by_page() {
        let memory = fake("0010");
        let plan = plan(&memory, Filter::default());
        memory.pages.lock().unwrap().remove(&17);
        let outcome = run(&memory, &plan, None);
        assert_eq!((outcome.found_pages, outcome.moved_pages, outcome.gone_pages), (3, 2, 1));
        assert_eq!((outcome.already_there_pages, outcome.left_pages), (1, 0));
        assert_eq!(outcome.placement, Some(BTreeMap::from([(node(1), 3)])));
    }

    #[test]
    fn a_paced_move_is_never_swept() {
        let memory = fake("0000");
        let limits = Limits { rate_per_s: Some(Bytes::new(1 << 30)), stall_max: None };
        let options = [
            MoveOptions { limits, threads: 1 },
            MoveOptions { limits: Limits::default(), threads: 2 },
        ];
        for options in options {
            let (plan, stop) = (plan(&memory, Filter::default()), AtomicBool::new(false));
            Mover::new(&memory, &plan, options, &stop, &|_| ()).run(None).unwrap();
        }
        assert_eq!(calls(&memory), [4]);
    }

    #[test]
    fn nothing_to_move_is_no_call() {
        let memory = fake("1111");
        assert!(sweep(&memory, &plan(&memory, Filter::default()), None).unwrap().is_none());
        assert!(calls(&memory).is_empty());
    }

    #[test]
    fn a_node_that_fills_up_takes_what_fits_and_the_rest_stays_for_lack_of_memory() {
        let memory = fake("000000");
        memory.room_pages.lock().unwrap().insert(node(1), 4);
        let outcome = run(&memory, &plan(&memory, Filter::default()), None);
        assert_eq!((outcome.found_pages, outcome.moved_pages), (6, 4));
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::NoMemory, 2)]));
    }

    #[test]
    fn a_target_that_exits_during_the_call_has_given_up_every_page() {
        let memory = FakeMemory { dies_at_call: Some(1), ..fake("0010") };
        let outcome = run(&memory, &plan(&memory, Filter::default()), None);
        assert_eq!((outcome.end, outcome.placement), (End::TargetGone, None));
        assert_eq!((outcome.found_pages, outcome.gone_pages), (3, 3));
    }

    #[test]
    fn a_stop_during_the_call_is_heard_after_it_and_what_is_left_was_not_tried() {
        let memory = fake("000").with_page(1, |page| page.pinned_calls = 1);
        let (plan, stop) = (plan(&memory, Filter::default()), AtomicBool::new(false));
        let seen = Mutex::new(Vec::new());
        let on_progress = |state: &crate::mover::Progress| {
            seen.lock().unwrap().push((state.moved_pages, state.chunk_pages));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let options = MoveOptions { limits: Limits::default(), threads: 1 };
        let outcome = Mover::new(&memory, &plan, options, &stop, &on_progress).run(None).unwrap();
        assert_eq!(*seen.lock().unwrap(), [(2, 3)]);
        assert_eq!(outcome.end, End::Interrupted);
        assert_eq!(outcome.stayed, BTreeMap::from([(Cause::NotTried, 1)]));
    }

    #[test]
    fn what_a_sweep_moved_is_on_record_and_what_was_home_before_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = fake("0010").with_page(3, |page| page.pinned_calls = 1);
        let plan = plan(&memory, Filter::default());
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        run(&memory, &plan, Some(&mut journal));
        journal.finish().unwrap();
        assert_eq!(memory.nodes(), "1111");
        let record = Record::last_of(folder.path(), &plan.target).unwrap();
        let back = Plan { passes: record.passes_back(), look: None, ..plan };
        assert_eq!(run(&memory, &back, None).moved_pages, 3);
        assert_eq!(memory.nodes(), "0010");
    }

    #[test]
    fn a_sweep_that_does_not_return_can_be_undone() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = fake("00-010");
        let plan = plan(&memory, Filter::default());
        let (path, copy) = (folder.path().to_owned(), folder.path().join("as killed"));
        let aside = copy.clone();
        memory.before_migration = Some(Box::new(move || {
            let record = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap();
            std::fs::create_dir(&aside).unwrap();
            std::fs::copy(record.path(), aside.join(record.file_name())).unwrap();
        }));
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        run(&memory, &plan, Some(&mut journal));
        assert_eq!(memory.nodes(), "11-111");
        let record = Record::last_of(&copy, &plan.target).unwrap();
        let back = Plan { passes: record.passes_back(), look: None, ..plan };
        run(&memory, &back, None);
        assert_eq!(memory.nodes(), "00-010");
    }

    #[test]
    fn a_sweep_that_cannot_be_put_on_record_is_not_made() {
        let memory = fake("0000");
        let plan = plan(&memory, Filter::default());
        let mut journal = Journal::that_fails();
        let outcome = run(&memory, &plan, Some(&mut journal));
        assert_eq!((memory.nodes().as_str(), calls(&memory).len()), ("0000", 0));
        assert_eq!((outcome.end, outcome.moved_pages), (End::Interrupted, 0));
        assert!(journal.finish().unwrap_err().to_string().contains("No space"));
    }

    #[test]
    fn a_sweep_that_the_kernel_would_not_have_leaves_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let memory = FakeMemory { can_migrate: false, ..fake("0000") };
        let plan = plan(&memory, Filter::default());
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        assert!(sweep(&memory, &plan, Some(&mut journal)).unwrap().is_none());
        journal.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
