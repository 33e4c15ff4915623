//! Placement: which page lies on which node. The words that survey, plan, mover and outcome share.
//!
//! Counts named `pages` are base pages of 4 KiB, also for huge pages: a THP is 512 of them.

use std::collections::BTreeMap;
use std::fmt;

use machine::{AddrRange, BASE_PAGE_BYTES, Bytes, NodeId};
use serde::{Deserialize, Serialize};

use crate::few::Few;

/// Base pages of a THP, and of a 2 MiB hugetlb page (x86-64: `HPAGE_PMD_NR`).
pub const THP_PAGES: u64 = 512;

/// What the kernel maps and moves as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// A base page of 4 KiB; also a page of a large folio that is mapped in pieces.
    Base,
    /// A transparent huge page: 2 MiB that one page table entry maps.
    Thp,
    /// A page of a hugetlb pool, of this size.
    Hugetlb(Bytes),
}

impl PageSize {
    /// Base pages in one page of this size.
    pub fn base_pages(self) -> u64 {
        match self {
            Self::Base => 1,
            Self::Thp => THP_PAGES,
            Self::Hugetlb(size) => size.pages(),
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.pad("4KiB"),
            Self::Thp => f.pad("thp"),
            Self::Hugetlb(size) => f.pad(&format!("hugetlb-{}", size.exact())),
        }
    }
}

impl Serialize for PageSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What memory is for, by its mapping. A private copy of a file's page is [`Kind::Anon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Private memory without a file.
    Anon,
    /// Page cache of a file.
    File,
    /// Shared memory: tmpfs, memfd, SysV, shared anonymous.
    Shmem,
    /// The stack of the main thread.
    Stack,
    /// What brk(2) grew.
    Heap,
}

impl Kind {
    /// Every kind, in the order in which tables show them.
    pub const ALL: [Self; 5] = [Self::Anon, Self::File, Self::Shmem, Self::Stack, Self::Heap];

    /// The word for it in options, tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
            Self::Shmem => "shmem",
            Self::Stack => "stack",
            Self::Heap => "heap",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One line of `/proc/PID/maps`, with what the engine needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Its addresses.
    pub range: AddrRange,
    /// The path, `[heap]`, `[stack]`, or `[anon]`.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Whether it is a shared mapping (`s` in the permissions).
    pub shared: bool,
    /// The page size of the hugetlb pool that it draws from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb: Option<Bytes>,
    /// `device:inode` of the file behind it; tells a mapping from its successor at the same place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Neighbouring pages of one kind on one node. What a survey streams instead of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first page.
    pub start: u64,
    /// Base pages.
    pub pages: u64,
    /// The node on which all of them lie.
    pub node: NodeId,
    /// The size of each.
    pub size: PageSize,
    /// What they are for.
    pub kind: Kind,
    /// Whether more than this one page table entry maps them.
    pub shared: bool,
}

impl Run {
    /// Its addresses.
    pub fn range(&self) -> AddrRange {
        AddrRange::from_pages(self.start, self.pages)
    }

    /// Pages of its [`PageSize`]; a part of one counts whole.
    pub fn count(&self) -> u64 {
        self.pages.div_ceil(self.size.base_pages())
    }

    /// The first address of each page of its [`PageSize`], ascending: what move_pages(2) is given,
    /// since the second address of one folio ends the kernel's batch (behaviour spec 3.4).
    pub fn page_starts(&self) -> impl Iterator<Item = u64> + use<> {
        let step = self.size.base_pages() * BASE_PAGE_BYTES;
        let (start, end) = (self.start, self.range().end());
        (start..end).step_by(usize::try_from(step).unwrap_or(usize::MAX))
    }
}

/// Pages counted by node, size and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: Few<(NodeId, PageSize, Kind), u64>,
}

/// One line of a [`Tally`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TallyLine {
    /// The node.
    pub node: NodeId,
    /// The page size.
    pub size: PageSize,
    /// The kind of memory.
    pub kind: Kind,
    /// Base pages.
    pub pages: u64,
}

impl Tally {
    /// Counts the pages of `run`.
    pub fn add(&mut self, run: &Run) {
        *self.counts.entry((run.node, run.size, run.kind)) += run.pages;
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for &(slot, pages) in other.counts.iter() {
            *self.counts.entry(slot) += pages;
        }
    }

    /// Lines in ascending order of node, size, kind.
    pub fn lines(&self) -> impl Iterator<Item = TallyLine> + '_ {
        self.counts.iter().map(|&((node, size, kind), pages)| TallyLine { node, size, kind, pages })
    }

    /// Base pages that pass `keep`.
    pub fn pages_where(&self, keep: impl Fn(&TallyLine) -> bool) -> u64 {
        self.lines().filter(keep).map(|line| line.pages).sum()
    }

    /// Base pages in all.
    pub fn pages(&self) -> u64 {
        self.counts.iter().map(|(_, pages)| pages).sum()
    }

    /// Base pages on each node that has any, ascending.
    pub fn by_node(&self) -> BTreeMap<NodeId, u64> {
        let mut pages = BTreeMap::new();
        for line in self.lines() {
            *pages.entry(line.node).or_default() += line.pages;
        }
        pages
    }
}

impl Serialize for Tally {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, pages: u64, node: u16, size: PageSize) -> Run {
        let node = NodeId::new(node).unwrap();
        Run { start, pages, node, size, kind: Kind::Anon, shared: false }
    }

    #[test]
    fn a_huge_run_names_one_address_for_each_huge_page() {
        let thp = run(0x20_0000, 1024, 0, PageSize::Thp);
        assert_eq!(thp.page_starts().collect::<Vec<_>>(), [0x20_0000, 0x40_0000]);
        let base = run(0x1000, 2, 0, PageSize::Base);
        assert_eq!(base.page_starts().collect::<Vec<_>>(), [0x1000, 0x2000]);
    }

    #[test]
    fn a_tally_adds_up_by_node() {
        let mut tally = Tally::default();
        tally.add(&run(0, 512, 1, PageSize::Thp));
        tally.add(&run(0, 8, 1, PageSize::Base));
        tally.add(&run(0, 4, 0, PageSize::Base));
        let by_node: Vec<_> = tally.by_node().into_values().collect();
        assert_eq!(by_node, [4, 520]);
        assert_eq!(tally.pages_where(|line| line.size == PageSize::Thp), 512);
    }
}
