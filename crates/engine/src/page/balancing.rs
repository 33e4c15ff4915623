//! Whether automatic NUMA balancing may move a page.
//!
//! Pure. The kernel marks pages of mappings that pass a few checks (`task_numa_work`,
//! `change_pte_range`), and a fault on such a mark moves the page toward the CPU.
//!
//! Source: kernel, kernel/sched/fair.c and mm/mempolicy.c, 6.1 to 7.x.

use linux::proc::kpageflags::FrameFlags;
use linux::{PolicyFlags, PolicyMode};
use machine::Topology;

use super::{Balancing, PageReport, PageState};
use crate::placement::PageSize;

/// Whether balancing may move the page, with `kernel.numa_balancing` as it is.
pub(super) fn may_move(report: &PageReport, sysctl: Option<u32>, machine: &Topology) -> Balancing {
    let no = |text: &str| Balancing { may_move: false, text: text.to_owned() };
    let yes = |text: &str| Balancing { may_move: true, text: text.to_owned() };
    let mode = match sysctl {
        None => return no("this kernel is built without it"),
        Some(0) => return no("it is off (kernel.numa_balancing=0)"),
        Some(mode) => mode,
    };
    if report.state != PageState::Present {
        return no("there is no page on a node to move");
    }
    if let Some(why) = passed_over(report) {
        return no(why);
    }
    let of_slow_tier =
        report.node.and_then(|id| machine.node(id)).is_some_and(machine::Node::is_memory_only);
    if mode & 1 == 0 {
        return if of_slow_tier {
            yes("kernel.numa_balancing=2 promotes pages of a slower tier when they are used")
        } else {
            no("kernel.numa_balancing=2 moves pages of slower tiers only, and this node has CPUs")
        };
    }
    match report.node {
        Some(node) if report.cpu_nodes.iter().eq([node]) => no(
            "its threads may run on the node of the page alone, so none touches it from elsewhere",
        ),
        _ => yes(
            "a thread that touches it from another node may bring it there (kernel.numa_balancing is on)",
        ),
    }
}

/// Why the scanner passes over the page, if it does.
fn passed_over(report: &PageReport) -> Option<&'static str> {
    let mapping = &report.mapping;
    let policy = report.policy.as_ref().map(|found| &found.policy);
    let follows = policy.is_none_or(|policy| {
        policy.mode == PolicyMode::Default || policy.flags.contains(PolicyFlags::NUMA_BALANCING)
    });
    let is = |flag| report.frame.as_ref().is_some_and(|frame| frame.flags.contains(flag));
    let permissions = mapping.permissions.as_str();
    if matches!(report.size, Some(PageSize::Hugetlb(_))) || mapping.has_flag("ht") {
        Some("it passes over hugetlb pages")
    } else if ["io", "pf", "mm"].iter().any(|flag| mapping.has_flag(flag)) {
        Some("it passes over memory of devices")
    } else if !follows {
        Some("it keeps to the policy in force, which places the page by itself")
    } else if permissions.starts_with("---") {
        Some("it passes over mappings that cannot be accessed")
    } else if mapping.file_offset_bytes.is_some() && permissions.starts_with("r-") {
        Some("it passes over files that are mapped read-only, such as program text")
    } else if is(FrameFlags::KSM) {
        Some("it passes over pages that KSM merged")
    } else if permissions.ends_with('p') && report.is_shared() == Some(true) {
        Some("it passes over pages that a fork left shared")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use linux::MemPolicy;
    use machine::NodeId;

    use super::super::sample::{machine, present};
    use super::super::{PolicyInForce, PolicySource};
    use super::*;

    fn may(report: &PageReport, sysctl: u32) -> bool {
        may_move(report, Some(sysctl), &machine()).may_move
    }

    #[test]
    fn a_private_page_may_be_moved_where_balancing_is_on_and_threads_run_elsewhere() {
        let report = present();
        assert!(may(&report, 1));
        assert!(!may(&report, 0));
        assert!(!may_move(&report, None, &machine()).may_move);
        let at_home = PageReport { cpu_nodes: "0".parse().unwrap(), ..present() };
        assert!(!may(&at_home, 1));
    }

    #[test]
    fn the_tiering_mode_alone_moves_pages_of_memory_only_nodes() {
        assert!(!may(&present(), 2));
        let slow = PageReport { node: NodeId::new(2), ..present() };
        assert!(may(&slow, 2) && may(&slow, 3));
    }

    #[test]
    fn a_policy_is_kept_to_unless_it_asks_for_balancing() {
        let bound = |text| {
            let policy = MemPolicy::from_text(text);
            let policy = Some(PolicyInForce { policy, source: PolicySource::Mapping });
            PageReport { policy, ..present() }
        };
        assert!(!may(&bound("bind:0"), 1));
        assert!(may(&bound("bind=balancing:0-1"), 1));
        assert!(may(&bound("default"), 1));
    }

    #[test]
    fn text_of_programs_and_pages_left_shared_by_a_fork_are_passed_over() {
        let mut text = present();
        text.mapping.permissions = "r-xp".to_owned();
        text.mapping.file_offset_bytes = Some(0);
        assert!(!may(&text, 1));
        let mut shared = present();
        shared.frame.as_mut().unwrap().mapcount = Some(2);
        assert!(!may(&shared, 1));
    }
}
