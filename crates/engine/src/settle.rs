//! Settling a batch: what became of each of its pages, by the kernel's own word.
//!
//! The kernel leaves out the words of a batch in which any page failed, also for pages that moved
//! (behaviour spec 3.4). So whatever the status words leave open is asked once more. Called by the
//! mover after each call; it moves nothing.

use linux::PageStatus;

use crate::feed::{Batch, Candidate};
use crate::memory::{Memory, Sharing};
use crate::outcome::Cause;
use crate::placement::Kind;

/// What became of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is on its destination.
    Moved,
    /// The target has given it up, or it is in swap.
    Gone,
    /// Another try may move it; if none does, this is why.
    Retry(Cause),
    /// Another try would not help.
    Stayed(Cause),
}

/// One fate for each page of `batch`, from the `status` words of its call.
pub(crate) fn settle(
    memory: &dyn Memory,
    batch: &Batch,
    sharing: Sharing,
    status: &[i32],
) -> Vec<Fate> {
    let answers: Vec<Answer> = status
        .iter()
        .map(|&word| first_answer(PageStatus::from_word(word), batch, sharing))
        .collect();
    let open: Vec<u64> = batch
        .candidates
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| matches!(answer, Answer::Ask(_)))
        .map(|(candidate, _)| candidate.address)
        .collect();
    let mut words = vec![linux::UNWRITTEN; open.len()];
    if !open.is_empty() {
        // When the query fails as a whole its words stay unwritten, and the pages count as untold.
        let _ = memory.query_pages(&open, &mut words);
    }
    let mut words = words.into_iter().map(PageStatus::from_word);
    let mut fate = |candidate: &Candidate, answer: Answer| match answer {
        Answer::Fate(fate) => fate,
        Answer::Ask(cause) => {
            let now = words.next().unwrap_or(PageStatus::Unwritten);
            second_answer(memory, candidate, batch, now, cause)
        }
    };
    batch
        .candidates
        .iter()
        .zip(answers)
        .map(|(candidate, answer)| fate(candidate, answer))
        .collect()
}

#[derive(Clone, Copy)]
enum Answer {
    Fate(Fate),
    /// Where is it now? If it has not moved, this is the likely cause.
    Ask(Cause),
}

fn first_answer(status: PageStatus, batch: &Batch, sharing: Sharing) -> Answer {
    match status {
        PageStatus::On(node) if node == batch.lane.to => Answer::Fate(Fate::Moved),
        PageStatus::Shared if sharing == Sharing::OwnOnly => {
            Answer::Fate(Fate::Stayed(Cause::Shared))
        }
        PageStatus::NoMemory => Answer::Ask(Cause::NoMemory),
        PageStatus::Other(_) => Answer::Ask(Cause::Other),
        _ => Answer::Ask(Cause::PinnedOrBusy),
    }
}

fn second_answer(
    memory: &dyn Memory,
    candidate: &Candidate,
    batch: &Batch,
    now: PageStatus,
    cause: Cause,
) -> Fate {
    match now {
        PageStatus::On(node) if node == batch.lane.to => Fate::Moved,
        PageStatus::NotPresent | PageStatus::NotMapped if !memory.is_present(candidate.address) => {
            Fate::Gone
        }
        PageStatus::NotPresent | PageStatus::NotMapped => Fate::Stayed(Cause::OutOfReach),
        _ if cause == Cause::PinnedOrBusy && candidate.kind == Kind::File => {
            Fate::Retry(Cause::FileBusy)
        }
        _ => Fate::Retry(cause),
    }
}
