//! Joins pages that a walk meets one after another into runs.

use std::ops::ControlFlow;

use machine::{AddrRange, BASE_PAGE_BYTES, NodeId};

use crate::memory::Unplaced;
use crate::placement::{Kind, Mapping, PageSize, Run};

/// What a walk knows of the pages that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) node: NodeId,
    pub(super) size: PageSize,
    /// Backed by a file or by shared memory, not by a page of the process's own.
    pub(super) file_or_shared: bool,
    /// Mapped by this page table entry alone.
    pub(super) exclusive: bool,
}

/// Collects the runs of one walk and hands them to its reader.
pub(super) struct RunJoiner<'a> {
    mapping: &'a Mapping,
    /// What the walk was asked for.
    within: AddrRange,
    each: &'a mut dyn FnMut(Run) -> ControlFlow<()>,
    open: Option<Run>,
    pub(super) unplaced: Unplaced,
    /// Whether the reader has had enough.
    pub(super) stopped: bool,
}

impl<'a> RunJoiner<'a> {
    pub(super) fn new(
        mapping: &'a Mapping,
        within: AddrRange,
        each: &'a mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Self {
        Self { mapping, within, each, open: None, unplaced: Unplaced::default(), stopped: false }
    }

    /// The page size of the hugetlb mapping or of a THP, for pages that one huge entry maps.
    pub(super) fn huge_size(&self) -> PageSize {
        self.mapping.hugetlb.map_or(PageSize::Thp, PageSize::Hugetlb)
    }

    /// Adds `pages` base pages from number `first` on, which lie behind all that was added before.
    /// Those that nobody asked for are left out; a huge page is taken whole, or not at all.
    pub(super) fn add(&mut self, first: u64, pages: u64, look: Look) {
        let start = first * BASE_PAGE_BYTES;
        let run = Run {
            start,
            pages,
            node: look.node,
            size: look.size,
            kind: self.kind(look.file_or_shared),
            shared: !look.exclusive,
        };
        let Some(asked) = run.range().intersection(self.within) else { return };
        let run = match run.size {
            PageSize::Base => Run { start: asked.start(), pages: asked.pages(), ..run },
            _ => run,
        };
        match &mut self.open {
            Some(open) if joins(open, &run) => open.pages += run.pages,
            _ => {
                self.flush();
                self.open = Some(run);
            }
        }
    }

    /// Hands over what is open.
    pub(super) fn flush(&mut self) {
        if let Some(run) = self.open.take()
            && !self.stopped
        {
            self.stopped = (self.each)(run).is_break();
        }
    }

    /// A private copy of a file's page is memory of the process's own.
    fn kind(&self, file_or_shared: bool) -> Kind {
        match self.mapping.kind {
            Kind::File | Kind::Shmem if !file_or_shared => Kind::Anon,
            kind => kind,
        }
    }
}

fn joins(open: &Run, run: &Run) -> bool {
    AddrRange::from_pages(open.start, open.pages).end() == run.start
        && (open.node, open.size, open.kind, open.shared)
            == (run.node, run.size, run.kind, run.shared)
}
