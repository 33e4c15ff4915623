//! Whether a page would migrate if it were asked to, now; in sentences.
//!
//! Pure: a report comes in without its verdict. A verdict is what the facts say. What no file shows,
//! an extra reference above all, only a [trial](super::trial) tells.

use linux::proc::kpageflags::FrameFlags;
use machine::Bytes;
use serde::Serialize;

use super::{PageReport, PageState};
use crate::placement::{Kind, PageSize};

/// What would become of a page that is asked to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// Nothing that is known stands in its way.
    Move,
    /// Something does.
    Stay,
    /// What is known is not enough to say.
    #[default]
    Unknown,
}

/// A verdict: the word, and the sentences that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What would become of it.
    pub would: Would,
    /// Why it would stay, or what to know if it moves; the weightiest first.
    pub because: Vec<String>,
}

/// Judges a report. `pinned` is what the kernel has accounted as pinned for the process (VmPin).
pub(super) fn verdict(report: &PageReport, pinned: Bytes) -> Verdict {
    if let Some(text) = no_page(report) {
        return Verdict { would: Would::Stay, because: vec![text.to_owned()] };
    }
    let mut because: Vec<String> =
        [of_mapping(report), of_frame(report), sharing(report), destination(report)]
            .into_iter()
            .flatten()
            .collect();
    let would = match (because.is_empty(), &report.frame, report.is_shared()) {
        (false, ..) => Would::Stay,
        (true, Some(_), _) => Would::Move,
        // Seen by its owner without privileges: what may hold it on the frame's side is hidden.
        (true, None, Some(false)) => Would::Move,
        (true, None, _) => Would::Unknown,
    };
    because.extend(notes(report, pinned));
    Verdict { would, because }
}

/// Why there is nothing that could move.
fn no_page(report: &PageReport) -> Option<&'static str> {
    match report.state {
        PageState::Present => None,
        PageState::Absent => Some(
            "there is no page: it comes at the next access, on the node that the policy gives then",
        ),
        PageState::Swapped => Some(
            "it is in swap, or in flight to another node just now: when it comes back, the policy places it",
        ),
        PageState::Zero => Some(
            "it is the zero page, which all processes share: the first write gives a page of its own",
        ),
        PageState::Guard => Some("it is a guard, which has no page: an access faults"),
        PageState::OffNode => {
            Some("it is a frame of the kernel or of a device, which never migrates")
        }
        PageState::KernelsOwn => Some(
            "the mapping is the kernel's own: no policy places what is there, and it never migrates",
        ),
    }
}

fn of_mapping(report: &PageReport) -> Option<String> {
    let mapping = &report.mapping;
    (mapping.has_flag("io") || mapping.has_flag("pf"))
        .then(|| "the mapping is memory of a device, which never migrates".to_owned())
}

fn of_frame(report: &PageReport) -> Option<String> {
    let flags = report.frame.as_ref()?.flags;
    let text = if flags.contains(FrameFlags::HARDWARE_POISON) {
        "its memory is broken (hardware poison): it is never used again"
    } else if flags.contains(FrameFlags::ZERO_PAGE) {
        "it is the zero page, which never migrates"
    } else {
        return None;
    };
    Some(text.to_owned())
}

fn sharing(report: &PageReport) -> Option<String> {
    if report.is_shared() != Some(true) {
        return None;
    }
    let mut others: Vec<u32> = report.sharers.iter().map(|sharer| sharer.pid).collect();
    others.dedup();
    let who = match others.as_slice() {
        [] => "it is mapped more than once".to_owned(),
        [pid] if *pid == report.id.pid => "the process maps it more than once".to_owned(),
        [pid] => format!("it is shared with process {pid}"),
        [pid, more @ ..] => format!("it is shared with process {pid} and {} more", more.len()),
    };
    Some(format!(
        "{who}: MPOL_MF_MOVE leaves shared pages alone (EACCES), MPOL_MF_MOVE_ALL moves them for everybody (`pagetide move --include-shared`; CAP_SYS_NICE)"
    ))
}

/// Why no node would take it.
fn destination(report: &PageReport) -> Option<String> {
    let destinations = &report.destinations;
    if destinations.is_empty() {
        return Some("there is no other node with memory".to_owned());
    }
    if destinations.iter().any(super::Destination::is_open) {
        return None;
    }
    let allowed = destinations.iter().filter(|destination| destination.is_allowed).count();
    Some(if allowed == 0 {
        format!(
            "the cpuset allows memory of node {} only: the kernel answers EACCES for others, root or not",
            report.allowed_nodes
        )
    } else {
        format!(
            "no other node that the cpuset allows has room for {}: the kernel answers ENOMEM",
            report.folio_bytes()
        )
    })
}

/// What to know though it does not forbid the move.
fn notes(report: &PageReport, pinned: Bytes) -> Vec<String> {
    let is = |flag| report.frame.as_ref().is_some_and(|frame| frame.flags.contains(flag));
    let is_hugetlb = matches!(report.size, Some(PageSize::Hugetlb(_)));
    let known = report.frame.is_some();
    let mut notes = Vec::new();
    let mut note = |applies: bool, text: String| notes.extend(applies.then_some(text));
    let pages = report.folio_bytes().pages();
    note(
        pages > 1,
        format!("all {pages} base pages of its folio ({}) move as one", report.folio_bytes()),
    );
    note(
        is_hugetlb,
        "it is taken from the hugetlb pool of the destination, or the pool grows there".to_owned(),
    );
    note(
        known && !is(FrameFlags::LRU) && !is_hugetlb,
        "it is on no LRU list just now; the kernel empties the CPUs' batches first, and answers EBUSY if that did not help".to_owned(),
    );
    note(is(FrameFlags::LOCKED), "it is locked just now: a move waits".to_owned());
    note(is(FrameFlags::WRITEBACK), "it is being written: a move waits for the end".to_owned());
    note(
        report.mapping.has_flag("lo"),
        "mlock does not hold it on its node: it stays in memory, and moves".to_owned(),
    );
    note(
        report.mapping.kind == Some(Kind::File)
            && report.entry.is_none_or(|entry| entry.file_or_shared),
        "a page of a file moves if its file system lets it; while I/O runs on it, it does not"
            .to_owned(),
    );
    note(
        pinned > Bytes::ZERO,
        format!(
            "{pinned} of the process are pinned (VmPin), this page perhaps among them: a pinned page stays"
        ),
    );
    note(
        true,
        "a pin or other extra reference (io_uring, RDMA, vmsplice, VFIO) is shown in no file: only --try tells".to_owned(),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::sample::present;
    use super::*;

    fn judge(report: &PageReport) -> Verdict {
        verdict(report, Bytes::ZERO)
    }

    #[test]
    fn a_page_of_its_own_moves_and_the_verdict_says_what_it_cannot_know() {
        let verdict = judge(&present());
        assert_eq!(verdict.would, Would::Move);
        assert!(verdict.because.last().unwrap().contains("--try"), "{verdict:?}");
    }

    #[test]
    fn what_is_no_page_stays_with_one_sentence() {
        for state in [
            PageState::Absent,
            PageState::Swapped,
            PageState::Zero,
            PageState::Guard,
            PageState::OffNode,
            PageState::KernelsOwn,
        ] {
            let verdict = judge(&PageReport { state, ..present() });
            assert_eq!((verdict.would, verdict.because.len()), (Would::Stay, 1), "{state:?}");
        }
    }

    #[test]
    fn what_the_kernel_maps_for_itself_is_not_said_to_come_at_the_next_access() {
        let verdict = judge(&PageReport { state: PageState::KernelsOwn, ..present() });
        assert!(verdict.because[0].contains("the kernel's own"), "{verdict:?}");
        assert!(!verdict.because[0].contains("next access"), "{verdict:?}");
    }

    #[test]
    fn a_shared_page_stays_and_the_way_out_is_named() {
        let mut report = present();
        report.frame = report.frame.map(|frame| Frame { mapcount: Some(2), ..frame });
        let verdict = judge(&report);
        assert_eq!(verdict.would, Would::Stay);
        assert!(verdict.because[0].contains("--include-shared"), "{verdict:?}");
    }

    #[test]
    fn without_a_destination_the_verdict_gives_the_kernels_answer() {
        let mut report = present();
        report.destinations.iter_mut().for_each(|to| to.has_room = false);
        assert!(judge(&report).because[0].contains("ENOMEM"));
        report.destinations.iter_mut().for_each(|to| to.is_allowed = false);
        assert!(judge(&report).because[0].contains("EACCES"));
        report.destinations.clear();
        assert_eq!(judge(&report).would, Would::Stay);
    }

    #[test]
    fn locked_memory_moves_all_the_same() {
        let mut report = present();
        let meaning = linux::proc::vm_flags::meaning("lo");
        report.mapping.flags =
            Some(vec![super::super::VmFlag { letters: "lo".to_owned(), meaning }]);
        let verdict = judge(&report);
        assert_eq!(verdict.would, Would::Move);
        assert!(verdict.because[0].contains("mlock does not hold it"), "{verdict:?}");
    }

    #[test]
    fn one_who_sees_neither_frame_nor_sharing_is_told_that_it_is_not_known() {
        let hidden = PageReport { frame: None, entry: None, ..present() };
        assert_eq!(judge(&hidden).would, Would::Unknown);
        let owner = PageReport { frame: None, ..present() };
        assert_eq!(judge(&owner).would, Would::Move);
    }
}
