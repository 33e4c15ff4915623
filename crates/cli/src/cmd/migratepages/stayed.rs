//! How many pages stayed where a call of migrate_pages(2) was to take them away.
//!
//! The kernel's own number does not say it: folios that the process maps twice are counted although
//! they moved (6.12 and later), pages that it shares with others are left alone without being
//! counted, and an error loses the count. So the pages are looked up in numa_maps before and after.
//!
//! The process may run meanwhile. A mapping that came later is not counted, nor are pages by which
//! a mapping has grown, so that what is new is not taken for what stayed. Where the kernel says that
//! it left nothing, only shared pages can have stayed, and only where we may not move them.
//!
//! Source: behaviour spec 2.2 and 2.3.

use std::collections::BTreeMap;

use linux::proc::numa_maps::NumaMapping;
use machine::{NodeId, NodeSet};

/// Pages that stayed, in base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stayed {
    /// Pages that were to move.
    asked: u64,
    /// Of mappings that other processes have too, in part at least.
    shared: u64,
    /// Of a hugetlb pool.
    hugetlb: u64,
    /// All others.
    other: u64,
    /// Where they are.
    nodes: NodeSet,
}

impl Stayed {
    /// Compares two surveys of a process. `moves` are the node pairs of the call, in its order;
    /// where `only_shared`, other pages than shared ones are known to have moved.
    pub(super) fn between(
        before: &[NumaMapping],
        after: &[NumaMapping],
        moves: &[(NodeId, NodeId)],
        only_shared: bool,
    ) -> Self {
        let after: BTreeMap<u64, &NumaMapping> = after
            .iter()
            .filter(|mapping| is_shared(mapping) || !only_shared)
            .map(|mapping| (mapping.start, mapping))
            .collect();
        let mut stayed = Self::default();
        for was in before {
            let pages_was = base_pages(was);
            stayed.asked += moves.iter().filter_map(|(from, _)| pages_was.get(from)).sum::<u64>();
            if let Some(is) = after.get(&was.start) {
                stayed.add(is, &left_behind(&pages_was, &base_pages(is), moves));
            }
        }
        stayed
    }

    /// All pages that stayed.
    fn pages(&self) -> u64 {
        self.shared + self.hugetlb + self.other
    }

    /// One line that says how many pages stayed, and why; nothing if none did. `full` are nodes
    /// that had no room.
    pub(super) fn line(&self, may_move_shared: bool, full: Option<&NodeSet>) -> Option<String> {
        if self.pages() == 0 {
            return None;
        }
        // Whoever may move shared pages is not kept from it by their being shared.
        let (busy, shared) = match may_move_shared {
            true => (self.other + self.shared, 0),
            false => (self.other, self.shared),
        };
        let reasons = [
            (busy, "pinned or busy"),
            (shared, "shared with other processes, which needs CAP_SYS_NICE"),
            (self.hugetlb, "huge pages, pinned or without a free one on the new node"),
        ];
        let why = match full {
            Some(nodes) => format!("no memory left on node {nodes}"),
            None => reasons
                .into_iter()
                .filter(|(pages, _)| *pages > 0)
                .map(|(pages, reason)| format!("{pages} {reason}"))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let (pages, asked, nodes) = (self.pages(), self.asked, self.nodes);
        Some(format!("migratepages: {pages} of {asked} pages stayed on node {nodes}: {why}"))
    }

    fn add(&mut self, mapping: &NumaMapping, left: &BTreeMap<NodeId, u64>) {
        let count = if is_shared(mapping) {
            &mut self.shared
        } else if mapping.is_hugetlb {
            &mut self.hugetlb
        } else {
            &mut self.other
        };
        *count += left.values().sum::<u64>();
        self.nodes = self.nodes.union(&left.keys().copied().collect());
    }
}

/// Whether other processes map pages of it too; how many of them is not told.
fn is_shared(mapping: &NumaMapping) -> bool {
    mapping.mapmax.is_some_and(|mapmax| mapmax > 1)
}

/// Base pages on each node; numa_maps counts in the page size of the mapping.
fn base_pages(mapping: &NumaMapping) -> BTreeMap<NodeId, u64> {
    mapping.bytes().map(|(node, bytes)| (node, bytes.pages())).collect()
}

/// Pages that are still on a node which they were to leave. Where a node gives pages and then gets
/// others, what came is taken off first: so the last move is looked at first.
fn left_behind(
    was: &BTreeMap<NodeId, u64>,
    is: &BTreeMap<NodeId, u64>,
    moves: &[(NodeId, NodeId)],
) -> BTreeMap<NodeId, u64> {
    let pages = |counts: &BTreeMap<NodeId, u64>, node| counts.get(node).copied().unwrap_or(0);
    let mut left = BTreeMap::new();
    let mut came: BTreeMap<NodeId, u64> = BTreeMap::new();
    let total = |counts: &BTreeMap<NodeId, u64>| counts.values().sum::<u64>();
    let grown = total(is).saturating_sub(total(was));
    for (from, to) in moves.iter().rev() {
        let before = pages(was, from);
        let new = pages(&came, from).saturating_add(grown);
        let stayed = pages(is, from).saturating_sub(new).min(before);
        *came.entry(*to).or_default() += before - stayed;
        if stayed > 0 {
            left.insert(*from, stayed);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use linux::proc::numa_maps::parse;
    use proptest::prelude::*;

    use super::*;

    fn moves(pairs: &[(u16, u16)]) -> Vec<(NodeId, NodeId)> {
        let node = |raw| NodeId::new(raw).unwrap();
        pairs.iter().map(|&(from, to)| (node(from), node(to))).collect()
    }

    fn stayed(before: &str, after: &str, pairs: &[(u16, u16)]) -> Stayed {
        Stayed::between(&parse(before).unwrap(), &parse(after).unwrap(), &moves(pairs), false)
    }

    #[test]
    fn nothing_stayed_when_the_old_node_is_empty() {
        let seen = stayed(
            "7f00 default anon=256 dirty=256 N0=256 kernelpagesize_kB=4",
            "7f00 default anon=256 dirty=256 N1=256 kernelpagesize_kB=4",
            &[(0, 1)],
        );
        assert_eq!(seen, Stayed { asked: 256, ..Stayed::default() });
    }

    #[test]
    fn pages_that_stayed_are_told_apart_by_what_holds_them() {
        let seen = stayed(
            "7f00 default anon=256 N0=256 kernelpagesize_kB=4\n\
             7f10 default file=/lib/c mapped=8 mapmax=9 N0=8 kernelpagesize_kB=4\n\
             7f20 default huge anon=2 N0=2 kernelpagesize_kB=2048",
            "7f00 default anon=256 N0=16 N1=240 kernelpagesize_kB=4\n\
             7f10 default file=/lib/c mapped=8 mapmax=9 N0=8 kernelpagesize_kB=4\n\
             7f20 default huge anon=2 N0=1 N1=1 kernelpagesize_kB=2048",
            &[(0, 1)],
        );
        assert_eq!((seen.asked, seen.pages()), (256 + 8 + 1024, 16 + 8 + 512));
        assert_eq!((seen.other, seen.shared, seen.hugetlb), (16, 8, 512));
        assert_eq!(seen.nodes.to_string(), "0");
    }

    #[test]
    fn the_line_says_how_many_pages_stayed_and_why() {
        let seen =
            Stayed { asked: 99, shared: 2, hugetlb: 0, other: 16, nodes: "0".parse().unwrap() };
        assert_eq!(
            seen.line(false, None).unwrap(),
            "migratepages: 18 of 99 pages stayed on node 0: 16 pinned or busy; 2 shared with other \
             processes, which needs CAP_SYS_NICE"
        );
        assert_eq!(
            seen.line(true, None).unwrap(),
            "migratepages: 18 of 99 pages stayed on node 0: 18 pinned or busy"
        );
        assert_eq!(
            seen.line(true, Some(&"1".parse().unwrap())).unwrap(),
            "migratepages: 18 of 99 pages stayed on node 0: no memory left on node 1"
        );
        assert_eq!(Stayed { asked: 99, ..Stayed::default() }.line(false, None), None);
    }

    #[test]
    fn where_the_kernel_left_nothing_only_shared_pages_can_have_stayed() {
        let text = "7f00 default anon=3 N0=3 kernelpagesize_kB=4\n\
                    7f10 default file=/lib/c mapped=8 mapmax=9 N0=8 kernelpagesize_kB=4";
        let survey = parse(text).unwrap();
        let seen = Stayed::between(&survey, &survey, &moves(&[(0, 1)]), true);
        assert_eq!((seen.asked, seen.shared, seen.pages()), (11, 8, 8));
    }

    #[test]
    fn pages_that_came_from_another_node_are_not_taken_for_pages_that_stayed() {
        let chain = [(1, 2), (0, 1)];
        let before = "7f00 default anon=30 N0=10 N1=20 kernelpagesize_kB=4";
        let all = stayed(before, "7f00 default anon=30 N1=10 N2=20 kernelpagesize_kB=4", &chain);
        assert_eq!(all.pages(), 0);
        let some =
            stayed(before, "7f00 default anon=30 N0=4 N1=9 N2=17 kernelpagesize_kB=4", &chain);
        assert_eq!((some.pages(), some.nodes.to_string()), (4 + 3, "0-1".to_owned()));
    }

    #[test]
    fn pages_that_the_process_has_added_are_not_taken_for_pages_that_stayed() {
        let seen = stayed(
            "7f00 default anon=4 N0=4 kernelpagesize_kB=4",
            "7f00 default anon=10 N0=6 N1=4 kernelpagesize_kB=4\n\
             7f10 default anon=9 N0=9 kernelpagesize_kB=4",
            &[(0, 1)],
        );
        assert_eq!((seen.asked, seen.pages()), (4, 0));
    }

    #[test]
    fn a_mapping_that_is_gone_has_no_pages_that_stayed() {
        let seen = stayed("7f00 default anon=4 N0=4 kernelpagesize_kB=4", "", &[(0, 1)]);
        assert_eq!((seen.asked, seen.pages()), (4, 0));
    }
    proptest! {
        #[test]
        fn no_more_pages_stayed_than_were_to_move(
            was in prop::array::uniform4(0..50u64),
            is in prop::array::uniform4(0..50u64),
            pairs in prop::sample::select(vec![
                vec![(0, 1)], vec![(1, 2), (0, 1)], vec![(2, 1), (0, 1)], vec![(3, 2), (2, 1), (1, 0)],
            ]),
        ) {
            let line = |[a, b, c, d]: [u64; 4]| {
                format!("7f00 default anon=1 N0={a} N1={b} N2={c} N3={d} kernelpagesize_kB=4")
            };
            let seen = stayed(&line(was), &line(is), &pairs);
            prop_assert!(seen.pages() <= seen.asked, "{seen:?}");
            prop_assert_eq!(seen.nodes.is_empty(), seen.pages() == 0);
        }

        #[test]
        fn nothing_stayed_when_every_page_went_where_it_was_to_go(
            [a, b, c] in prop::array::uniform3(0..50u64),
        ) {
            let was = format!("7f00 default anon=1 N0={a} N1={b} N2={c} kernelpagesize_kB=4");
            let is = format!("7f00 default anon=1 N1={a} N2={} kernelpagesize_kB=4", b + c);
            prop_assert_eq!(stayed(&was, &is, &[(1, 2), (0, 1)]).pages(), 0);
        }
    }
}
