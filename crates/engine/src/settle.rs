//! Settling a batch: what became of each of its pages, by the kernel's own word.
//!
//! The kernel leaves out the words of a batch in which any page failed, also for pages that moved
//! (behaviour spec 3.4). So whatever the status words leave open is asked once more. Called by the
//! mover after each call; it moves nothing.

use linux::PageStatus;
use machine::BASE_PAGE_BYTES;

use crate::feed::{Batch, Piece};
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

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Pages that are on their destination, joined to pieces.
    pub(crate) moved: Vec<Piece>,
    /// Every other page, with its fate.
    pub(crate) rest: Vec<(Piece, Fate)>,
}

/// Settles `batch` from the `status` words of its call.
pub(crate) fn settle(
    memory: &dyn Memory,
    batch: &Batch,
    sharing: Sharing,
    status: &[i32],
) -> Settled {
    let home = batch.lane.to.as_raw();
    if status.iter().all(|&word| word == home) {
        return Settled { moved: batch.pieces.clone(), rest: Vec::new() };
    }
    let answers: Vec<Answer> = status
        .iter()
        .map(|&word| first_answer(PageStatus::from_word(word), batch, sharing))
        .collect();
    let open: Vec<u64> = batch
        .each_page()
        .zip(&answers)
        .filter(|(_, answer)| matches!(answer, Answer::Ask(_)))
        .map(|((address, _), _)| address)
        .collect();
    let mut words = vec![linux::UNWRITTEN; open.len()];
    if !open.is_empty() {
        // When the query fails as a whole its words stay unwritten, and the pages count as untold.
        let _ = memory.query_pages(&open, &mut words);
    }
    let mut words = words.into_iter().map(PageStatus::from_word);
    let mut settled = Settled::default();
    for ((start, piece), answer) in batch.each_page().zip(answers) {
        let page = Piece { start, count: 1, ..*piece };
        let fate = match answer {
            Answer::Fate(fate) => fate,
            Answer::Ask(cause) => {
                let now = words.next().unwrap_or(PageStatus::Unwritten);
                second_answer(memory, &page, batch, now, cause)
            }
        };
        settled.add(page, fate, batch);
    }
    settled
}

impl Settled {
    fn add(&mut self, page: Piece, fate: Fate, batch: &Batch) {
        if fate != Fate::Moved {
            self.rest.push((page, fate));
            return;
        }
        let page_bytes = batch.lane.size.base_pages() * BASE_PAGE_BYTES;
        match self.moved.last_mut() {
            Some(last)
                if last.start + last.count * page_bytes == page.start
                    && (last.from, last.kind) == (page.from, page.kind) =>
            {
                last.count += 1;
            }
            _ => self.moved.push(page),
        }
    }
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
    page: &Piece,
    batch: &Batch,
    now: PageStatus,
    cause: Cause,
) -> Fate {
    match now {
        PageStatus::On(node) if node == batch.lane.to => Fate::Moved,
        PageStatus::NotPresent | PageStatus::NotMapped if !memory.has_page(page.start) => {
            Fate::Gone
        }
        PageStatus::NotPresent | PageStatus::NotMapped => Fate::Stayed(Cause::OutOfReach),
        _ if cause == Cause::PinnedOrBusy && page.kind == Kind::File => {
            Fate::Retry(Cause::FileBusy)
        }
        _ => Fate::Retry(cause),
    }
}
