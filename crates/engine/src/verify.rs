//! Verifying a move: asks the kernel once more where the pages of the planned ranges are, and closes
//! the accounts of the [`Outcome`].
//!
//! Called by the mover when its last batch is settled. It reads, and moves nothing.

use std::collections::BTreeSet;

use linux::ReadError;
use machine::{Bytes, NodeId};

use crate::filter::Filter;
use crate::memory::Memory;
use crate::outcome::{Cause, End, Outcome};
use crate::placement::{Run, Tally};
use crate::plan::PlannedPass;
use crate::route::Destination;
use crate::survey::for_each_run;

/// Fills in the placement and the pages that are left. `arrived` are the base pages that each of the
/// passes moved.
///
/// # Errors
///
/// What reading the target gave.
pub(crate) fn verify(
    memory: &dyn Memory,
    filter: &Filter,
    passes: &[PlannedPass],
    arrived: &[u64],
    outcome: &mut Outcome,
) -> Result<(), ReadError> {
    let mut placement = Tally::default();
    let mut looked_at = BTreeSet::new();
    for (at, pass) in passes.iter().enumerate() {
        let mut left_pages = 0;
        for (mapping, range) in pass.parts(&memory.mappings()?) {
            // Passes of one plan speak of the same ranges, or of disjoint ones.
            let is_new = looked_at.insert(range);
            for_each_run(memory, &mapping, range, |run| {
                if filter.accepts(&run) {
                    left_pages += left_in(pass, &run);
                    if is_new {
                        placement.add(&run);
                    }
                }
            })?;
        }
        let later = passes.iter().zip(arrived).skip(at + 1);
        let refilled = later.filter(|(later, _)| refills(later, pass)).map(|(_, pages)| pages);
        outcome.left_pages += left_pages.saturating_sub(refilled.sum());
    }
    if let Some(limit) = filter.limit {
        // What lies beyond the limit was not to leave.
        let settled = outcome.moved_pages + outcome.gone_pages;
        outcome.left_pages = outcome.left_pages.min(limit.pages().saturating_sub(settled));
    }
    if !memory.is_alive() {
        if outcome.end == End::Completed {
            outcome.end = End::TargetGone;
        }
        outcome.left_pages = 0;
    } else {
        outcome.placement = Some(placement.by_node());
    }
    account_for_the_untried(outcome, filter.limit);
    Ok(())
}

/// Pages of a run that the pass wanted elsewhere.
fn left_in(pass: &PlannedPass, run: &Run) -> u64 {
    if !pass.from.contains(run.node) {
        return 0;
    }
    if let Destination::Node(to) = pass.to {
        return if to == run.node { 0 } else { run.pages };
    }
    let wanted_elsewhere =
        run.page_starts().filter(|&address| pass.to.node_for(address, run) != run.node).count();
    wanted_elsewhere as u64 * run.size.base_pages()
}

/// Whether `later` brings pages to where `pass` takes them away, within the same ranges: node 1, when
/// pages go from 1 to 2 and then from 0 to 1.
fn refills(later: &PlannedPass, pass: &PlannedPass) -> bool {
    let is_source = |node: NodeId| pass.from.contains(node);
    later.to.nodes().iter().any(is_source)
        && later.ranges.iter().any(|range| pass.touches(range.range))
}

/// After an early end: what is left beyond the stayed pages never had its turn; what was found and
/// has no fate was in line for one.
fn account_for_the_untried(outcome: &mut Outcome, limit: Option<Bytes>) {
    let settled = outcome.moved_pages + outcome.gone_pages + outcome.stayed_pages();
    match outcome.end {
        End::Completed => {}
        End::TargetGone => outcome.gone_pages += outcome.found_pages.saturating_sub(settled),
        End::Interrupted | End::NotPermitted | End::Refused(_) => {
            let untried = outcome.left_pages.saturating_sub(outcome.stayed_pages());
            let allowed = limit.map_or(u64::MAX, |limit| limit.pages().saturating_sub(settled));
            outcome.stay(Cause::NotTried, untried.min(allowed));
        }
    }
    outcome.found_pages = outcome.moved_pages + outcome.gone_pages + outcome.stayed_pages();
}
