//! Page frames: one row for each 4 KiB of the machine, in columns.
//!
//! A folio is named by the frame number of its head, as in the kernel; folios are naturally
//! aligned, so every tail finds its head by its order. The columns start as zeroes, so that a
//! machine of a TiB costs nothing until it is used: 20 bytes a frame afterwards. Flags and counts
//! lie together, since who asks for the one asks for the other; owners and contents are for those
//! who move a page.
//!
//! A head keeps the folio's extra references; the frame behind it keeps the number of PMD
//! mappings, as the kernel does.

use std::hint::black_box;

use crate::memory::owner::Owner;

/// A page frame number; of a folio, the number of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub(crate) u32);

impl Pfn {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The frame `pages` behind this one.
    pub(crate) const fn plus(self, pages: u32) -> Self {
        Self(self.0 + pages)
    }
}

/// log2 of the base pages of a folio: 0, 9 (2 MiB), 18 (1 GiB) or between.
pub type Order = u8;
/// A folio that a PMD can map.
pub const PMD_ORDER: Order = 9;
/// A hugetlb page of 1 GiB.
pub const PUD_ORDER: Order = 18;
/// Base pages of a folio that a PMD can map.
pub const PMD_PAGES: u32 = 1 << PMD_ORDER;

/// Bits of a frame's flags; the top byte is the order.
pub(crate) mod flag {
    pub(crate) const ALLOCATED: u32 = 1 << 0;
    pub(crate) const HEAD: u32 = 1 << 1;
    pub(crate) const TAIL: u32 = 1 << 2;
    pub(crate) const SWAP_BACKED: u32 = 1 << 3;
    pub(crate) const HUGETLB: u32 = 1 << 4;
    pub(crate) const LRU: u32 = 1 << 5;
    pub(crate) const ISOLATED: u32 = 1 << 6;
    pub(crate) const IN_LRU_BATCH: u32 = 1 << 7;
    pub(crate) const LOCKED: u32 = 1 << 8;
    pub(crate) const WRITEBACK: u32 = 1 << 9;
    pub(crate) const DIRTY: u32 = 1 << 10;
    pub(crate) const ACTIVE: u32 = 1 << 11;
    pub(crate) const UNEVICTABLE: u32 = 1 << 12;
    pub(crate) const REFERENCED: u32 = 1 << 13;
    pub(crate) const RESERVED: u32 = 1 << 14;
    pub(crate) const EXCLUSIVE: u32 = 1 << 15;
    pub(crate) const PARTIALLY_MAPPED: u32 = 1 << 16;
    pub(crate) const DEFERRED_SPLIT: u32 = 1 << 17;
    pub(crate) const LONGTERM_PIN: u32 = 1 << 19;
    pub(crate) const POISONED: u32 = 1 << 20;
    pub(crate) const ORDER_SHIFT: u32 = 24;

    /// What a migration target inherits from its source (spec 7.10).
    pub(crate) const INHERITED: u32 =
        SWAP_BACKED | DIRTY | UNEVICTABLE | REFERENCED | PARTIALLY_MAPPED;
}

/// The words of a frame's state: an array, since the allocator has no zeroed memory for structs.
mod word {
    pub(super) const FLAGS: usize = 0;
    /// Map count in the low half, extra references in the high half.
    pub(super) const COUNTS: usize = 1;
}

/// The columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frames {
    states: Vec<[u32; 2]>,
    owners: Vec<u64>,
    tokens: Vec<u32>,
    /// Last CPU and thread of a hint fault, or time of marking; empty until balancing is used.
    cpupids: Vec<u32>,
}

impl Frames {
    pub(crate) fn new(frames: usize) -> Self {
        Self {
            states: vec![[0; 2]; frames],
            owners: vec![0; frames],
            tokens: vec![0; frames],
            cpupids: Vec::new(),
        }
    }

    /// Whether this computer gives the addresses for so many rows: the memory is taken only when
    /// they are used.
    pub(crate) fn has_room(frames: usize) -> bool {
        let (mut states, mut owners, mut tokens) =
            (Vec::<[u32; 2]>::new(), Vec::<u64>::new(), Vec::<u32>::new());
        let has_room = states.try_reserve_exact(frames).is_ok()
            && owners.try_reserve_exact(frames).is_ok()
            && tokens.try_reserve_exact(frames).is_ok();
        // The compiler may not think them away.
        black_box((states, owners, tokens));
        has_room
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    #[inline]
    pub(crate) fn flags(&self, pfn: Pfn) -> u32 {
        self.states[pfn.index()][word::FLAGS]
    }

    #[inline]
    pub(crate) fn has(&self, pfn: Pfn, flag: u32) -> bool {
        self.states[pfn.index()][word::FLAGS] & flag != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, pfn: Pfn, flag: u32) {
        self.states[pfn.index()][word::FLAGS] |= flag;
    }

    #[inline]
    pub(crate) fn clear(&mut self, pfn: Pfn, flag: u32) {
        self.states[pfn.index()][word::FLAGS] &= !flag;
    }

    /// Takes the flags `off` away and puts `on` in their place.
    #[inline]
    pub(crate) fn exchange(&mut self, pfn: Pfn, off: u32, on: u32) {
        let flags = &mut self.states[pfn.index()][word::FLAGS];
        *flags = *flags & !off | on;
    }

    #[inline]
    pub(crate) fn order(&self, pfn: Pfn) -> Order {
        (self.states[pfn.index()][word::FLAGS] >> flag::ORDER_SHIFT) as Order
    }

    /// Base pages of the folio.
    #[inline]
    pub(crate) fn pages(&self, pfn: Pfn) -> u32 {
        1 << self.order(pfn)
    }

    #[inline]
    pub(crate) fn head(&self, pfn: Pfn) -> Pfn {
        Pfn(pfn.0 >> self.order(pfn) << self.order(pfn))
    }

    /// Makes free frames a folio that nobody maps, filled with zeroes.
    pub(crate) fn allocate(&mut self, head: Pfn, order: Order) {
        let base = flag::ALLOCATED | u32::from(order) << flag::ORDER_SHIFT;
        let kind = if order > 0 { flag::HEAD } else { 0 };
        self.reset(head, base | kind);
        for page in 1..1u32 << order {
            self.reset(head.plus(page), base | flag::TAIL);
        }
    }

    #[inline]
    fn reset(&mut self, pfn: Pfn, flags: u32) {
        self.states[pfn.index()] = [flags, 0];
        self.owners[pfn.index()] = 0;
        self.tokens[pfn.index()] = 0;
        if let Some(cpupid) = self.cpupids.get_mut(pfn.index()) {
            *cpupid = u32::MAX;
        }
    }

    /// Makes the frames of a folio free.
    pub(crate) fn free(&mut self, head: Pfn) {
        for page in 0..self.pages(head) {
            self.states[head.plus(page).index()][word::FLAGS] = 0;
        }
    }

    /// Turns a large folio into base pages that keep counts, tokens and the flags of the head.
    /// Owners are the caller's business.
    pub(crate) fn split(&mut self, head: Pfn) {
        let drop = flag::HEAD
            | flag::TAIL
            | flag::PARTIALLY_MAPPED
            | flag::DEFERRED_SPLIT
            | 0xff << flag::ORDER_SHIFT;
        let keep = self.flags(head) & !drop & !flag::EXCLUSIVE;
        for page in 0..self.pages(head) {
            let state = &mut self.states[head.plus(page).index()];
            state[word::FLAGS] = keep | state[word::FLAGS] & flag::EXCLUSIVE;
            if page > 0 {
                state[word::COUNTS] &= 0xffff;
            }
        }
    }

    /// Page-table entries that map this base page by itself.
    #[inline]
    pub(crate) fn mapcount(&self, pfn: Pfn) -> u32 {
        self.states[pfn.index()][word::COUNTS] & 0xffff
    }

    #[inline]
    pub(crate) fn add_mapcount(&mut self, pfn: Pfn) {
        let count = &mut self.states[pfn.index()][word::COUNTS];
        assert!(*count & 0xffff < 0xffff, "a page is mapped at most 65,535 times");
        *count += 1;
    }

    /// Returns what is left.
    #[inline(always)]
    pub(crate) fn drop_mapcount(&mut self, pfn: Pfn) -> u32 {
        let count = &mut self.states[pfn.index()][word::COUNTS];
        assert!(*count & 0xffff > 0, "a mapping is taken off a mapped page");
        *count -= 1;
        *count & 0xffff
    }

    /// PMD entries that map the folio as a whole; for hugetlb, all entries.
    #[inline]
    pub(crate) fn entire_mapcount(&self, head: Pfn) -> u32 {
        if self.order(head) == 0 { 0 } else { self.states[head.index() + 1][word::COUNTS] >> 16 }
    }

    pub(crate) fn add_entire_mapcount(&mut self, head: Pfn) {
        let count = &mut self.states[head.index() + 1][word::COUNTS];
        assert!(*count >> 16 < 0xffff, "a folio is mapped at most 65,535 times");
        *count += 1 << 16;
    }

    pub(crate) fn drop_entire_mapcount(&mut self, head: Pfn) {
        let count = &mut self.states[head.index() + 1][word::COUNTS];
        assert!(*count >> 16 > 0, "a PMD mapping is taken off a PMD-mapped folio");
        *count -= 1 << 16;
    }

    /// Entries of any size that map some page of the folio, each counted once.
    #[inline]
    pub(crate) fn total_mapcount(&self, head: Pfn) -> u32 {
        let pages = self.pages(head);
        if pages == 1 {
            return self.mapcount(head);
        }
        let from = head.index();
        let states = &self.states[from..from + pages as usize];
        let ptes: u32 = states.iter().map(|state| state[word::COUNTS] & 0xffff).sum();
        ptes + self.entire_mapcount(head)
    }

    /// How often this very page is mapped, PMD mappings included (`page_mapcount`).
    pub(crate) fn page_mapcount(&self, pfn: Pfn) -> u32 {
        self.mapcount(pfn) + self.entire_mapcount(self.head(pfn))
    }

    /// References that are neither mappings nor the page cache's: pipes, pins.
    #[inline]
    pub(crate) fn extra_references(&self, head: Pfn) -> u32 {
        self.states[head.index()][word::COUNTS] >> 16
    }

    pub(crate) fn add_reference(&mut self, head: Pfn) {
        let count = &mut self.states[head.index()][word::COUNTS];
        assert!(*count >> 16 < 0xffff, "a folio is held at most 65,535 times");
        *count += 1 << 16;
    }

    pub(crate) fn drop_reference(&mut self, head: Pfn) {
        let count = &mut self.states[head.index()][word::COUNTS];
        assert!(*count >> 16 > 0, "a reference is dropped that was taken");
        *count -= 1 << 16;
    }

    #[inline]
    pub(crate) fn owner(&self, head: Pfn) -> Owner {
        Owner::unpack(self.owners[head.index()])
    }

    #[inline]
    pub(crate) fn set_owner(&mut self, head: Pfn, owner: Owner) {
        self.owners[head.index()] = owner.pack();
    }

    #[inline]
    pub(crate) fn token(&self, pfn: Pfn) -> u32 {
        self.tokens[pfn.index()]
    }

    #[inline]
    pub(crate) fn set_token(&mut self, pfn: Pfn, token: u32) {
        self.tokens[pfn.index()] = token;
    }

    #[inline]
    pub(crate) fn copy_tokens(&mut self, from: Pfn, to: Pfn, pages: u32) {
        if pages == 1 {
            self.tokens[to.index()] = self.tokens[from.index()];
        } else {
            self.tokens.copy_within(from.index()..from.index() + pages as usize, to.index());
        }
    }

    /// Gives a folio of the same size, which nobody owns yet, the owner and the flags that go along.
    #[inline]
    pub(crate) fn hand_over(&mut self, from: Pfn, to: Pfn) {
        self.set(to, self.flags(from) & (flag::INHERITED | flag::EXCLUSIVE));
        self.owners[to.index()] = self.owners[from.index()];
        for page in 1..self.pages(from) {
            let exclusive = self.flags(from.plus(page)) & flag::EXCLUSIVE;
            self.set(to.plus(page), exclusive);
        }
    }

    /// Word of the last hint fault; all ones when unset.
    #[inline]
    pub(crate) fn cpupid(&self, head: Pfn) -> u32 {
        self.cpupids.get(head.index()).copied().unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn set_cpupid(&mut self, head: Pfn, word: u32) {
        if self.cpupids.is_empty() {
            if word == u32::MAX {
                return;
            }
            self.cpupids = vec![u32::MAX; self.states.len()];
        }
        self.cpupids[head.index()] = word;
    }
}
