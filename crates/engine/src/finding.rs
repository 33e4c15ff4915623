//! Findings: one sentence that says what is wrong with where memory lies, if anything is.
//!
//! Pure. Called by [`crate::process`] for each mapping and for the process as a whole.

use std::collections::BTreeMap;

use linux::{MemPolicy, PolicyMode};
use machine::{Bytes, NodeId, NodeSet};

/// Below this share of pages in the wrong place nothing is said, in per cent.
const WORTH_SAYING_PERCENT: u64 = 10;
/// Below this size nothing is said of a mapping.
const WORTH_SAYING: Bytes = Bytes::new(1 << 20);

/// What is wrong with a process whose pages lie so, and whose threads may run on `cpu_nodes`.
pub fn of_process(pages: &BTreeMap<NodeId, u64>, cpu_nodes: &NodeSet) -> Option<String> {
    let away = pages_outside(pages, cpu_nodes);
    let share = percent(away, pages.values().sum());
    if cpu_nodes.is_empty() || share < WORTH_SAYING_PERCENT {
        return None;
    }
    let nodes = nodes_outside(pages, cpu_nodes);
    Some(format!("threads may run on node {cpu_nodes}; {share}% of memory is on node {nodes}"))
}

/// What is wrong with a mapping: its pages against its own policy first, else against the CPUs.
pub fn of_mapping(
    pages: &BTreeMap<NodeId, u64>,
    policy: Option<&MemPolicy>,
    cpu_nodes: &NodeSet,
) -> Option<String> {
    let total: u64 = pages.values().sum();
    if Bytes::from_pages(total) < WORTH_SAYING {
        return None;
    }
    let by_policy = policy.filter(|policy| names_nodes(policy)).and_then(|policy| {
        let outside = pages_outside(pages, &policy.nodes);
        (outside > 0).then(|| {
            let nodes = nodes_outside(pages, &policy.nodes);
            format!(
                "policy is {policy}, but {}% is on node {nodes}",
                percent(outside, total).max(1)
            )
        })
    });
    by_policy.or_else(|| {
        let bound_there = policy.is_some_and(names_nodes);
        let share = percent(pages_outside(pages, cpu_nodes), total);
        let remote = !cpu_nodes.is_empty() && share >= WORTH_SAYING_PERCENT;
        remote.then(|| {
            let nodes = nodes_outside(pages, cpu_nodes);
            let why = if bound_there { ", as its policy says" } else { "" };
            format!("{share}% is on node {nodes}{why}, away from the CPUs of its threads")
        })
    })
}

fn names_nodes(policy: &MemPolicy) -> bool {
    !matches!(policy.mode, PolicyMode::Default | PolicyMode::Local | PolicyMode::Other(_))
}

fn pages_outside(pages: &BTreeMap<NodeId, u64>, nodes: &NodeSet) -> u64 {
    pages.iter().filter(|(node, _)| !nodes.contains(**node)).map(|(_, pages)| pages).sum()
}

fn nodes_outside(pages: &BTreeMap<NodeId, u64>, nodes: &NodeSet) -> NodeSet {
    pages.keys().copied().filter(|node| !nodes.contains(*node)).collect()
}

/// Whole per cent, rounded; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(on: &[(u16, u64)]) -> BTreeMap<NodeId, u64> {
        on.iter().map(|&(node, pages)| (NodeId::new(node).unwrap(), pages)).collect()
    }

    fn nodes(text: &str) -> NodeSet {
        text.parse().unwrap()
    }

    #[test]
    fn memory_away_from_the_cpus_is_said_with_its_share() {
        assert_eq!(
            of_process(&pages(&[(0, 88), (1, 12)]), &nodes("1")).as_deref(),
            Some("threads may run on node 1; 88% of memory is on node 0")
        );
    }

    #[test]
    fn memory_on_any_node_with_its_cpus_is_fine() {
        assert_eq!(of_process(&pages(&[(0, 88), (1, 12)]), &nodes("0-1")), None);
        assert_eq!(of_process(&pages(&[(0, 5), (1, 95)]), &nodes("1")), None, "5% is noise");
        assert_eq!(of_process(&pages(&[]), &nodes("1")), None);
    }

    #[test]
    fn a_mapping_is_held_against_its_own_policy_first() {
        let bound = MemPolicy::new(PolicyMode::Bind, nodes("1"));
        let text = of_mapping(&pages(&[(0, 512), (1, 512)]), Some(&bound), &nodes("0"));
        assert_eq!(text.as_deref(), Some("policy is bind:1, but 50% is on node 0"));
        let text = of_mapping(&pages(&[(1, 512)]), Some(&bound), &nodes("0"));
        assert_eq!(
            text.as_deref(),
            Some("100% is on node 1, as its policy says, away from the CPUs of its threads")
        );
    }

    #[test]
    fn a_small_mapping_is_not_worth_a_sentence() {
        assert_eq!(of_mapping(&pages(&[(0, 255)]), None, &nodes("1")), None);
    }
}
