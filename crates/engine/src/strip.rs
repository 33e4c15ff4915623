//! The strip: a mapping cut into a few cells, each saying on which node its pages lie.
//!
//! `show` draws it. Made while the survey streams its runs, so that it costs no memory for pages.

use machine::{AddrRange, BASE_PAGE_BYTES, NodeId};
use serde::Serialize;

use crate::placement::Run;

/// What lies in one cell of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// No page.
    Empty,
    /// Pages of this node alone.
    On(NodeId),
    /// Mostly pages of this node, and some of others.
    Mostly(NodeId),
}

/// Cells of one mapping, in address order; each covers the same number of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Strip {
    cells: Vec<Cell>,
}

impl Strip {
    /// Cells of a full strip. A mapping with fewer pages has one cell a page.
    pub const CELLS: u64 = 32;

    /// The cells in address order.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }
}

/// Makes a [`Strip`] of runs that come in address order.
pub(crate) struct StripMaker {
    range: AddrRange,
    cell_pages: u64,
    cells: Vec<Cell>,
    /// Pages by node in the cell that is being filled.
    counts: Vec<(NodeId, u64)>,
}

impl StripMaker {
    pub(crate) fn new(range: AddrRange) -> Self {
        let cell_pages = range.pages().div_ceil(Strip::CELLS).max(1);
        Self { range, cell_pages, cells: Vec::new(), counts: Vec::new() }
    }

    pub(crate) fn add(&mut self, run: &Run) {
        let mut page = (run.start.saturating_sub(self.range.start())) / BASE_PAGE_BYTES;
        let end = page + run.pages;
        while page < end {
            self.close_cells_before(page / self.cell_pages);
            let in_cell = (end - page).min(self.cell_pages - page % self.cell_pages);
            match self.counts.iter_mut().find(|(node, _)| *node == run.node) {
                Some((_, pages)) => *pages += in_cell,
                None => self.counts.push((run.node, in_cell)),
            }
            page += in_cell;
        }
    }

    pub(crate) fn finish(mut self) -> Strip {
        self.close_cells_before(self.range.pages().div_ceil(self.cell_pages));
        Strip { cells: self.cells }
    }

    fn close_cells_before(&mut self, cell: u64) {
        while (self.cells.len() as u64) < cell {
            self.cells.push(summary(&self.counts));
            self.counts.clear();
        }
    }
}

fn summary(counts: &[(NodeId, u64)]) -> Cell {
    match counts.iter().max_by_key(|(_, pages)| *pages) {
        None => Cell::Empty,
        Some(&(node, _)) if counts.len() == 1 => Cell::On(node),
        Some(&(node, _)) => Cell::Mostly(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{Kind, PageSize};

    fn run(first_page: u64, pages: u64, node: u16) -> Run {
        Run {
            start: first_page * BASE_PAGE_BYTES,
            pages,
            node: NodeId::new(node).unwrap(),
            size: PageSize::Base,
            kind: Kind::Anon,
            shared: false,
        }
    }

    #[test]
    fn each_cell_says_where_its_own_pages_lie() {
        let mut maker = StripMaker::new(AddrRange::from_pages(0, 64));
        maker.add(&run(0, 3, 0));
        maker.add(&run(3, 2, 1));
        maker.add(&run(60, 4, 1));
        let strip = maker.finish();
        let (zero, one) = (NodeId::new(0).unwrap(), NodeId::new(1).unwrap());
        assert_eq!(strip.cells().len(), 32);
        assert_eq!(strip.cells()[0], Cell::On(zero));
        assert!(matches!(strip.cells()[1], Cell::Mostly(_)));
        assert_eq!(strip.cells()[2], Cell::On(one));
        assert_eq!(strip.cells()[3], Cell::Empty);
        assert_eq!(strip.cells()[31], Cell::On(one));
    }

    #[test]
    fn a_small_mapping_has_one_cell_a_page() {
        let mut maker = StripMaker::new(AddrRange::from_pages(0, 3));
        maker.add(&run(1, 1, 1));
        assert_eq!(maker.finish().cells().len(), 3);
    }
}
