//! What the kernel answers when a page is asked to move: it is moved to another node, and back.
//!
//! Two calls of move_pages(2) for one page, as its owner would make them (`MPOL_MF_MOVE`: shared pages
//! are left alone). The whole folio goes along. What is in the page does not change; the process
//! waits for the two copies if it touches the page meanwhile. Where no move can be tried, because
//! there is no page on a node or no node to go to, the kernel is only asked where the page is.

use linux::PageStatus;
use machine::{BASE_PAGE_BYTES, NodeId};
use serde::Serialize;

use super::{Destination, PageReport, PageState, run_at};
use crate::memory::{LinuxMemory, Memory, Sharing};
use crate::placement::{Mapping, PageSize};

/// What became of a page that was asked to move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The way there; none when only a query was made.
    pub there: Option<Step>,
    /// The way back; none when it did not move.
    pub back: Option<Step>,
    /// The node on which it is now.
    pub node: Option<NodeId>,
    /// What to know beyond that: why only a query was made, that a THP was split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One call of move_pages for one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it was to go.
    pub to: NodeId,
    /// Whether the kernel says that it is there now.
    pub moved: bool,
    /// The kernel's answer, in words.
    pub answer: String,
}

impl Trial {
    /// Whether it moved, there and back.
    pub fn has_moved(&self) -> bool {
        [&self.there, &self.back].into_iter().all(|step| step.as_ref().is_some_and(|s| s.moved))
    }
}

/// Tries to move the page of `report` to `to`, or else to the nearest node that is open to it.
pub(super) fn run(
    memory: &LinuxMemory,
    report: &PageReport,
    mapping: Option<&Mapping>,
    to: Option<NodeId>,
) -> Trial {
    let open = report.destinations.iter().find(|node| node.is_open());
    let target = to.or_else(|| open.or(report.destinations.first()).map(|d: &Destination| d.node));
    let page_bytes = match report.size {
        // On 6.1 the address of a tail of a hugetlb page is refused.
        Some(PageSize::Hugetlb(size)) => size.get(),
        _ => BASE_PAGE_BYTES,
    };
    let address = report.address / page_bytes * page_bytes;
    let (Some(from), Some(to), PageState::Present) = (report.node, target, report.state) else {
        return query(memory, address, report);
    };
    let mut trial = there_and_back(memory, address, from, to);
    let size_now = mapping.and_then(|mapping| run_at(memory, mapping, report.address).ok()?.0);
    if let (Some(PageSize::Thp), Some(PageSize::Base)) = (report.size, size_now.map(|run| run.size))
    {
        trial.note = Some("the THP was split on the way: khugepaged may join it again".to_owned());
    }
    trial
}

/// Asks where the page is, and moves nothing.
fn query(memory: &dyn Memory, address: u64, report: &PageReport) -> Trial {
    let status = node_of(memory, address);
    let why = if report.state == PageState::Present {
        "no other node to go to"
    } else {
        "no page on a node"
    };
    let note = format!(
        "{why}: nothing was moved, and to the question where it is the kernel answers {}",
        words(status)
    );
    Trial { there: None, back: None, node: status.node(), note: Some(note) }
}

fn there_and_back(memory: &dyn Memory, address: u64, from: NodeId, to: NodeId) -> Trial {
    let there = step(memory, address, to);
    let back = there.moved.then(|| step(memory, address, from));
    let node = node_of(memory, address).node();
    let note = node.filter(|&node| node != from).map(|node| {
        format!("it is on node {node} now, and was on node {from}: `pagetide move --range` brings it back")
    });
    Trial { there: Some(there), back, node, note }
}

fn step(memory: &dyn Memory, address: u64, to: NodeId) -> Step {
    let failed = |answer: String| Step { to, moved: false, answer };
    if !memory.is_alive() {
        return failed("not asked: the process has exited".to_owned());
    }
    let mut status = [linux::UNWRITTEN];
    if let Err(error) = memory.move_pages(&[address], to, Sharing::OwnOnly, &mut status) {
        return failed(error.to_string());
    }
    let said = PageStatus::from_word(status[0]);
    // The kernel leaves out the word of a page that it took off its list and could not move.
    let now = node_of(memory, address);
    if now.node() == Some(to) {
        return Step { to, moved: true, answer: words(now) };
    }
    failed(match said {
        PageStatus::Unwritten => {
            "no word for it, which is how move_pages reports a page that it took and could not move: pinned, or busy".to_owned()
        }
        said => words(said),
    })
}

fn node_of(memory: &dyn Memory, address: u64) -> PageStatus {
    let mut status = [linux::UNWRITTEN];
    // A refusal leaves the word unwritten.
    let _ = memory.query_pages(&[address], &mut status);
    PageStatus::from_word(status[0])
}

/// A status word in words, with the kernel's own name for it.
fn words(status: PageStatus) -> String {
    match status {
        PageStatus::On(node) => format!("node {node}"),
        PageStatus::Shared => "EACCES: shared with another mapping".to_owned(),
        PageStatus::Busy => "EBUSY: it could not be isolated just now".to_owned(),
        PageStatus::NotPresent => "ENOENT: no page there".to_owned(),
        PageStatus::NotMapped => {
            "EFAULT: no page that could be moved there (the zero page, or none)".to_owned()
        }
        PageStatus::NoMemory => "ENOMEM: no memory on the node".to_owned(),
        PageStatus::Unwritten => "nothing".to_owned(),
        PageStatus::Other(word) => format!("{}", linux::Errno::from(word.wrapping_neg())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::memory::fake::FakeMemory;

    fn node(raw: u16) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn try_first_page(memory: &FakeMemory) -> Trial {
        let address = memory.mappings().unwrap()[0].range.start();
        there_and_back(memory, address, node(0), node(1))
    }

    #[test]
    fn a_page_goes_there_and_comes_back() {
        let memory = FakeMemory::new("00");
        let trial = try_first_page(&memory);
        assert!(trial.has_moved() && trial.note.is_none(), "{trial:?}");
        assert_eq!((trial.node, memory.nodes().as_str()), (Some(node(0)), "00"));
    }

    #[test]
    fn a_pinned_page_stays_and_no_way_back_is_gone() {
        let memory = FakeMemory::new("00").with_page(0, |page| page.pinned_calls = 9);
        let trial = try_first_page(&memory);
        let there = trial.there.clone().unwrap();
        assert!(!there.moved && there.answer.contains("pinned"), "{trial:?}");
        assert_eq!((trial.has_moved(), trial.back, trial.node), (false, None, Some(node(0))));
    }

    #[test]
    fn a_page_that_cannot_come_back_is_told_with_where_it_is() {
        let memory = FakeMemory::new("00");
        memory.room_pages.lock().unwrap().insert(node(0), 0);
        let trial = try_first_page(&memory);
        assert!(trial.there.as_ref().unwrap().moved && !trial.has_moved(), "{trial:?}");
        assert_eq!(trial.node, Some(node(1)));
        assert!(trial.note.unwrap().contains("on node 1 now"));
    }

    #[test]
    fn a_process_that_has_exited_is_not_asked() {
        let memory = FakeMemory::new("0");
        memory.alive.store(false, Ordering::Relaxed);
        let trial = try_first_page(&memory);
        assert!(trial.there.unwrap().answer.contains("exited"));
    }
}
