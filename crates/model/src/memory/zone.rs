//! A zone: a run of frames, and which of them are free.
//!
//! Free frames are kept by 2 MiB block: a block is wholly free, partly free (then it has a bitmap
//! entry), or full. Allocation takes the lowest frame that fits, partly free blocks first, so that
//! whole blocks stay whole as long as possible. This is not the order of the kernel's buddy lists
//! (they depend on history); everything a user can see of them (which node, whether an order is
//! available) is the same.

use std::collections::BTreeSet;

use crate::memory::frames::{Order, PMD_ORDER, PMD_PAGES, Pfn};

/// The kernel's zones, as far as x86-64 user memory knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZoneKind {
    /// Below 4 GiB.
    Dma32,
    /// Everything else.
    Normal,
    /// Memory that must stay movable.
    Movable,
}

/// Page counts that allocation stops at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// Only the kernel's own emergencies go below.
    pub min: u64,
    /// kswapd wakes below.
    pub low: u64,
    /// kswapd sleeps above.
    pub high: u64,
    /// With tiering, kswapd sleeps above this one.
    pub promo: u64,
}

const WORDS: usize = PMD_PAGES as usize / 64;
/// Frames of a block.
const FULL: u16 = 1 << PMD_ORDER;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Zone {
    pub(crate) kind: ZoneKind,
    pub(crate) start: Pfn,
    pub(crate) pages: u32,
    pub(crate) free: u64,
    pub(crate) watermarks: Watermarks,
    /// Free frames of each block, as bits.
    bitmaps: Vec<[u64; WORDS]>,
    /// How many they are.
    counts: Vec<u16>,
    whole: BTreeSet<u32>,
    partial: BTreeSet<u32>,
}

impl Zone {
    /// A zone of free frames. `start` is a block boundary; frames behind the last whole block are
    /// not used.
    pub(crate) fn new(kind: ZoneKind, start: Pfn, pages: u32) -> Self {
        let blocks = pages / PMD_PAGES;
        Self {
            kind,
            start,
            pages: blocks * PMD_PAGES,
            free: u64::from(blocks * PMD_PAGES),
            watermarks: Watermarks::default(),
            bitmaps: vec![[u64::MAX; WORDS]; blocks as usize],
            counts: vec![FULL; blocks as usize],
            whole: (0..blocks).collect(),
            partial: BTreeSet::new(),
        }
    }

    pub(crate) fn contains(&self, pfn: Pfn) -> bool {
        pfn >= self.start && pfn.0 < self.start.0 + self.pages
    }

    /// Takes `2^order` aligned frames; watermarks are the caller's business.
    #[inline]
    pub(crate) fn take(&mut self, order: Order) -> Option<Pfn> {
        let pfn = match order {
            0 => self.take_page()?,
            1..PMD_ORDER => self.take_run(order)?,
            _ => self.take_blocks(1 << (order - PMD_ORDER))?,
        };
        self.free -= 1 << order;
        Some(pfn)
    }

    fn pfn(&self, block: u32, page: u32) -> Pfn {
        Pfn(self.start.0 + block * PMD_PAGES + page)
    }

    #[inline]
    fn take_page(&mut self) -> Option<Pfn> {
        let block = match self.partial.first() {
            Some(&block) => block,
            None => self.open_block()?,
        };
        let bitmap = &mut self.bitmaps[block as usize];
        let (word, bits) = (0u32..)
            .zip(bitmap.iter_mut())
            .find(|(_, bits)| **bits != 0)
            .expect("a partial block has a free page");
        let page = word * 64 + bits.trailing_zeros();
        *bits &= *bits - 1;
        self.count_taken(block, 0);
        Some(self.pfn(block, page))
    }

    #[cold]
    fn open_block(&mut self) -> Option<u32> {
        let block = self.whole.pop_first()?;
        self.partial.insert(block);
        Some(block)
    }

    #[inline(never)]
    fn take_run(&mut self, order: Order) -> Option<Pfn> {
        let found = self.partial.iter().find_map(|&block| {
            free_run(&self.bitmaps[block as usize], order).map(|page| (block, page))
        });
        let (block, page) = match found {
            Some(found) => found,
            None => (self.open_block()?, 0),
        };
        flip_run(&mut self.bitmaps[block as usize], page, order);
        self.count_taken(block, order);
        Some(self.pfn(block, page))
    }

    #[inline(never)]
    fn take_blocks(&mut self, blocks: u32) -> Option<Pfn> {
        let base = self.start.0 / PMD_PAGES;
        let first = self.whole.iter().copied().find(|&block| {
            (base + block).is_multiple_of(blocks)
                && (blocks == 1 || (block..block + blocks).all(|block| self.whole.contains(&block)))
        })?;
        for block in first..first + blocks {
            self.whole.remove(&block);
            self.bitmaps[block as usize] = [0; WORDS];
            self.counts[block as usize] = 0;
        }
        Some(self.pfn(first, 0))
    }

    /// Gives frames back.
    #[inline]
    pub(crate) fn give(&mut self, pfn: Pfn, order: Order) {
        let at = pfn.0 - self.start.0;
        let (block, page) = (at / PMD_PAGES, at % PMD_PAGES);
        self.free += 1 << order;
        if order >= PMD_ORDER {
            self.give_blocks(block, 1 << (order - PMD_ORDER));
            return;
        }
        debug_assert!(!self.is_free(pfn), "a frame that is given was taken");
        flip_run(&mut self.bitmaps[block as usize], page, order);
        let count = &mut self.counts[block as usize];
        *count += 1 << order;
        let count = *count;
        if count == 1 << order || count == FULL {
            self.reopen_block(block, count);
        }
    }

    #[inline(never)]
    fn give_blocks(&mut self, first: u32, blocks: u32) {
        for block in first..first + blocks {
            self.bitmaps[block as usize] = [u64::MAX; WORDS];
            self.counts[block as usize] = FULL;
            self.whole.insert(block);
        }
    }

    /// A block got its first free frames, or its last.
    #[cold]
    fn reopen_block(&mut self, block: u32, free: u16) {
        if free == FULL {
            self.partial.remove(&block);
            self.whole.insert(block);
        } else {
            self.partial.insert(block);
        }
    }

    /// Frames of an open block were taken: a block without any is in no set.
    #[inline]
    fn count_taken(&mut self, block: u32, order: Order) {
        let count = &mut self.counts[block as usize];
        *count -= 1 << order;
        if *count == 0 {
            self.close_block(block);
        }
    }

    #[cold]
    fn close_block(&mut self, block: u32) {
        self.partial.remove(&block);
    }

    /// Takes the last free frame, if it is behind `source`: the free scanner of compaction.
    pub(crate) fn take_last_behind(&mut self, source: Pfn) -> Option<Pfn> {
        let block = self.partial.last().max(self.whole.last()).copied()?;
        let bitmap = &self.bitmaps[block as usize];
        let page = (0..PMD_PAGES)
            .rev()
            .find(|&page| bitmap[page as usize / 64] >> (page % 64) & 1 == 1)
            .expect("the block has a free page");
        let last = self.pfn(block, page);
        if last < source {
            return None;
        }
        self.take_exactly(last);
        Some(last)
    }

    /// Takes one particular free frame.
    pub(crate) fn take_exactly(&mut self, page: Pfn) {
        assert!(self.is_free(page), "a frame that is taken is free");
        let at = page.0 - self.start.0;
        let block = at / PMD_PAGES;
        if self.whole.remove(&block) {
            self.partial.insert(block);
        }
        flip_run(&mut self.bitmaps[block as usize], at % PMD_PAGES, 0);
        self.count_taken(block, 0);
        self.free -= 1;
    }

    /// Whether a frame of the zone is free.
    pub(crate) fn is_free(&self, pfn: Pfn) -> bool {
        let at = pfn.0 - self.start.0;
        let page = at % PMD_PAGES;
        self.bitmaps[(at / PMD_PAGES) as usize][page as usize / 64] >> (page % 64) & 1 == 1
    }

    /// Blocks of which every frame is free.
    pub(crate) fn whole_blocks(&self) -> usize {
        self.whole.len()
    }

    /// Free frames counted one by one, for the invariant checker.
    pub(crate) fn count_free(&self) -> u64 {
        self.bitmaps.iter().flatten().map(|bits| u64::from(bits.count_ones())).sum()
    }
}

/// First page of an aligned free run of `2^order` pages, order 1 to 8.
fn free_run(bitmap: &[u64; WORDS], order: Order) -> Option<u32> {
    let pages = 1u32 << order;
    (0..PMD_PAGES).step_by(pages as usize).find(|&page| {
        (page..page + pages).all(|page| bitmap[page as usize / 64] >> (page % 64) & 1 == 1)
    })
}

/// Makes an aligned run of frames free that was not, or the other way round.
#[inline]
fn flip_run(bitmap: &mut [u64; WORDS], page: u32, order: Order) {
    let word = page as usize / 64;
    if order < 6 {
        bitmap[word] ^= (u64::MAX >> (64 - (1 << order))) << (page % 64);
    } else {
        bitmap[word..word + (1 << (order - 6))].iter_mut().for_each(|bits| *bits = !*bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new(ZoneKind::Normal, Pfn(0), 4 * PMD_PAGES)
    }

    #[test]
    fn single_pages_leave_whole_blocks_whole() {
        let mut zone = zone();
        for _ in 0..PMD_PAGES {
            zone.take(0).unwrap();
        }
        assert_eq!(zone.whole.len(), 3);
        assert_eq!(zone.free, u64::from(3 * PMD_PAGES));
    }

    #[test]
    fn a_fragmented_zone_has_pages_and_no_block() {
        let mut zone = zone();
        let pages: Vec<Pfn> = (0..4 * PMD_PAGES).map(|_| zone.take(0).unwrap()).collect();
        pages.iter().step_by(2).for_each(|&page| zone.give(page, 0));
        assert_eq!(zone.take(PMD_ORDER), None);
        assert_eq!(zone.take(1), None);
        assert!(zone.take(0).is_some());
    }

    #[test]
    fn what_is_given_back_makes_a_block_again() {
        let mut zone = zone();
        let pages: Vec<Pfn> = (0..PMD_PAGES).map(|_| zone.take(0).unwrap()).collect();
        pages.iter().for_each(|&page| zone.give(page, 0));
        assert_eq!(zone, self::zone());
    }

    #[test]
    fn orders_between_are_aligned() {
        let mut zone = zone();
        zone.take(0).unwrap();
        let run = zone.take(4).unwrap();
        assert!(run.0.is_multiple_of(16) && run.0 > 0);
        zone.give(run, 4);
        assert_eq!(zone.count_free(), zone.free);
    }
}
