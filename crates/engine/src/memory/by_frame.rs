//! Puts pages on nodes by their frame numbers: the exact and fast way, for those who may see them.
//!
//! A frame number gives the node by the memory ranges of the nodes. Where those are unclear (a frame
//! that two zones claim, a device's memory) the kernel is asked for the page.

use linux::ReadError;
use linux::proc::kpageflags::{FrameFlags, KPageFlags};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::sysfs::frame_map::FrameLookup;
use machine::NodeId;

use super::by_query::ByQuery;
use super::run_joiner::{Look, RunJoiner};
use super::walk::{Reader, read_words};
use super::zero_frames::ZeroFrames;
use crate::placement::{PageSize, THP_PAGES};

/// Bits of a word that must agree within a run: present, swapped, file or shared, exclusive.
const LOOK_BITS: u64 = 1 << 63 | 1 << 62 | 1 << 61 | 1 << 56;

pub(super) struct ByFrame<'a> {
    pub(super) pagemap: &'a Pagemap,
    pub(super) frames: FrameLookup<'a>,
    pub(super) zero: &'a ZeroFrames,
    /// Tells a THP from 512 pages that happen to lie in a row; `None` without the right to read it.
    pub(super) flags: Option<&'a KPageFlags>,
    /// Asks for the pages whose frame tells no node.
    pub(super) query: ByQuery<'a>,
}

impl Reader for ByFrame<'_> {
    fn small(
        &mut self,
        first: u64,
        words: &[u64],
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let mut at = 0;
        while at < words.len() {
            let page = first + at as u64;
            // Blocks end where a THP could begin: at multiples of 512 pages.
            let length = usize::try_from(THP_PAGES - page % THP_PAGES).unwrap_or(words.len());
            let block = &words[at..words.len().min(at + length)];
            if self.is_one_folio(block) {
                self.single(page, block[0], PageSize::Thp, joiner)?;
            } else {
                self.block(page, block, joiner)?;
            }
            at += block.len();
        }
        Ok(())
    }

    fn huge(
        &mut self,
        first: u64,
        size: PageSize,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let mut word = [0];
        if read_words(self.pagemap, first, &mut word)? == 1 {
            self.single(first, word[0], size, joiner)?;
        }
        Ok(())
    }

    fn flush(&mut self, joiner: &mut RunJoiner<'_>) -> Result<(), ReadError> {
        self.query.flush(joiner)
    }
}

impl ByFrame<'_> {
    /// Base pages of one block, joined word by word. The inner loop is what a survey's speed hangs
    /// on: a word that goes on with the run costs four comparisons.
    fn block(
        &mut self,
        first: u64,
        words: &[u64],
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let mut at = 0;
        while at < words.len() {
            let page = first + at as u64;
            let entry = PagemapEntry(words[at]);
            let Some(node) = self.node_of(entry) else {
                self.without_node(page, entry, joiner)?;
                at += 1;
                continue;
            };
            let bits = words[at] & LOOK_BITS;
            let (frames, zero) = (&self.frames, self.zero);
            // What is present and shows a frame once shows it in every word.
            let same = |&word: &u64| {
                let frame = word & PagemapEntry::FRAME;
                word & LOOK_BITS == bits && frames.is_near(frame) && !zero.contains(frame)
            };
            let rest = &words[at + 1..];
            let more = rest.iter().position(|word| !same(word)).unwrap_or(rest.len());
            self.query.flush(joiner)?;
            joiner.add(page, 1 + more as u64, look(entry, node, PageSize::Base));
            at += 1 + more;
        }
        Ok(())
    }

    /// One huge page, by the word of its first base page.
    fn single(
        &mut self,
        page: u64,
        word: u64,
        size: PageSize,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let entry = PagemapEntry(word);
        let Some(frame) = entry.frame() else { return Ok(()) };
        if self.zero.contains(frame) {
            joiner.unplaced.zero_pages += size.base_pages();
            return Ok(());
        }
        match self.frames.node_of(frame) {
            Some(node) => {
                self.query.flush(joiner)?;
                joiner.add(page, size.base_pages(), look(entry, node, size));
                Ok(())
            }
            None => self.query.ask(page, size, entry, joiner),
        }
    }

    fn node_of(&mut self, entry: PagemapEntry) -> Option<NodeId> {
        let frame = entry.frame().filter(|&frame| !self.zero.contains(frame))?;
        self.frames.node_of(frame)
    }

    fn without_node(
        &mut self,
        page: u64,
        entry: PagemapEntry,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        match entry.frame() {
            Some(frame) if self.zero.contains(frame) => joiner.unplaced.zero_pages += 1,
            Some(_) => return self.query.ask(page, PageSize::Base, entry, joiner),
            None if entry.is_swapped() => joiner.unplaced.swapped_pages += 1,
            None => {}
        }
        Ok(())
    }

    /// Whether the 512 pages of a block are one folio: their frames lie in a row from an aligned one
    /// on, the first is the head of a compound page, and the one in the middle is a tail.
    fn is_one_folio(&self, block: &[u64]) -> bool {
        let Some(flags) = self.flags.filter(|_| block.len() as u64 == THP_PAGES) else {
            return false;
        };
        let last = block[block.len() - 1];
        let Some(frame) = PagemapEntry(block[0]).frame() else { return false };
        if last.wrapping_sub(block[0]) != THP_PAGES - 1 || !frame.is_multiple_of(THP_PAGES) {
            return false;
        }
        let in_a_row = block.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 1);
        let flag_of = |frame| {
            let mut word = [0];
            let read = flags.read(frame, &mut word).unwrap_or(0);
            FrameFlags(if read == 1 { word[0] } else { 0 })
        };
        in_a_row
            && flag_of(frame).contains(FrameFlags::COMPOUND_HEAD)
            && flag_of(frame + THP_PAGES / 2).contains(FrameFlags::COMPOUND_TAIL)
    }
}

fn look(entry: PagemapEntry, node: NodeId, size: PageSize) -> Look {
    Look { node, size, file_or_shared: entry.is_file_or_shared(), exclusive: entry.is_exclusive() }
}
