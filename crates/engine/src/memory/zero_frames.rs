//! Which frames are the zero page and the huge zero page.
//!
//! Pagemap shows them like any other page. They are found by reading untouched memory of our own;
//! holding that memory keeps the huge zero page where it is (kernel, mm/huge_memory.c,
//! `mm_get_huge_zero_folio`).

use linux::Root;
use linux::proc::kpageflags::{FrameFlags, KPageFlags};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::sys::{Backing, OwnMemory};
use machine::{BASE_PAGE_BYTES, Bytes};

use crate::placement::THP_PAGES;

/// A frame number that no machine has.
const NO_FRAME: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct ZeroFrames {
    base: u64,
    /// The first of 512.
    huge: u64,
    /// Its page table entry holds a reference to the huge zero page.
    _held: Option<OwnMemory>,
}

impl ZeroFrames {
    /// Finds them. What cannot be found, for lack of rights or of a huge zero page, matches no frame.
    pub(super) fn find(root: &Root) -> Self {
        let base = OwnMemory::map(Bytes::from_pages(1), Backing::BasePages)
            .ok()
            .and_then(|memory| zero_frame(root, &memory));
        let held = OwnMemory::map(Bytes::from_pages(THP_PAGES), Backing::HugePages).ok();
        let huge = held
            .as_ref()
            .and_then(|memory| zero_frame(root, memory))
            .filter(|&frame| Some(frame) != base && frame.is_multiple_of(THP_PAGES));
        Self { base: base.unwrap_or(NO_FRAME), huge: huge.unwrap_or(NO_FRAME), _held: held }
    }

    pub(super) fn contains(&self, frame: u64) -> bool {
        frame == self.base || frame.wrapping_sub(self.huge) < THP_PAGES
    }
}

/// The frame behind the first page of `memory` after it was only read, if it is a zero page.
fn zero_frame(root: &Root, memory: &OwnMemory) -> Option<u64> {
    let start = memory.range().start();
    let _ = memory.read(start);
    let mut word = [0];
    let pagemap = Pagemap::open(root, std::process::id()).ok()?;
    pagemap.read_entries(start / BASE_PAGE_BYTES, &mut word).ok()?;
    let frame = PagemapEntry(word[0]).frame()?;
    let mut flags = [0];
    KPageFlags::open(root).ok()?.read(frame, &mut flags).ok()?;
    FrameFlags(flags[0]).contains(FrameFlags::ZERO_PAGE).then_some(frame)
}
