//! Page-table entries, and the tables that hold them.
//!
//! A table has 512 entries and covers 2 MiB. Tables of all address spaces lie in one pool, so that
//! a table is a number. Beside its entry every page has a *hot byte*, which says all that an access
//! to a mapped page needs: that it may proceed, whether it may write, and on which node the page
//! is. It is derived from the entry and from the protection of the VMA, and is zero wherever a
//! fault is due. Address spaces keep the hot bytes, in the order of their pages.

use crate::convert::next_id;
use crate::memory::frames::{PMD_PAGES, Pfn};
use crate::memory::node::Slot;

/// What a page-table entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Nothing.
    None,
    /// A page.
    Present,
    /// A page that the balancing scanner made inaccessible, to see who touches it.
    Hint,
    /// A page in flight.
    Migration,
    /// The zero page, or at the PMD the huge zero page.
    Zero,
    /// A frame without a page behind it.
    Special,
    /// At the PMD: a table of 512 entries.
    Table,
}

/// An entry of a table, or of a PMD (which maps 2 MiB, or points to a table).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const WRITE: u64 = 1 << 3;
    pub(crate) const DIRTY: u64 = 1 << 4;
    pub(crate) const YOUNG: u64 = 1 << 5;
    pub(crate) const SOFT_DIRTY: u64 = 1 << 6;
    const KIND: u64 = 7;
    const PFN_SHIFT: u32 = 32;

    pub(crate) const fn new(kind: EntryKind, pfn: Pfn, flags: u64) -> Self {
        Self(kind as u64 | flags | (pfn.0 as u64) << Self::PFN_SHIFT)
    }

    pub(crate) const fn table(table: TableId) -> Self {
        Self::new(EntryKind::Table, Pfn(table.0), 0)
    }

    pub(crate) const fn kind(self) -> EntryKind {
        match self.0 & Self::KIND {
            0 => EntryKind::None,
            1 => EntryKind::Present,
            2 => EntryKind::Hint,
            3 => EntryKind::Migration,
            4 => EntryKind::Zero,
            5 => EntryKind::Special,
            _ => EntryKind::Table,
        }
    }

    /// The page behind a present, hinted or migration entry.
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn((self.0 >> Self::PFN_SHIFT) as u32)
    }

    pub(crate) const fn table_id(self) -> TableId {
        TableId(self.pfn().0)
    }

    /// The page that this entry maps and counts in its map count: present or hinted.
    pub(crate) const fn mapped(self) -> Option<Pfn> {
        match self.kind() {
            EntryKind::Present | EntryKind::Hint => Some(self.pfn()),
            _ => None,
        }
    }

    pub(crate) const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    pub(crate) const fn with(self, flags: u64) -> Self {
        Self(self.0 | flags)
    }

    pub(crate) const fn without(self, flags: u64) -> Self {
        Self(self.0 & !flags)
    }

    pub(crate) const fn flags(self) -> u64 {
        self.0 & (Self::WRITE | Self::DIRTY | Self::YOUNG | Self::SOFT_DIRTY)
    }

    pub(crate) const fn with_kind(self, kind: EntryKind) -> Self {
        Self(self.0 & !Self::KIND | kind as u64)
    }

    pub(crate) const fn with_pfn(self, pfn: Pfn) -> Self {
        Self(self.0 & u32::MAX as u64 | (pfn.0 as u64) << Self::PFN_SHIFT)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:#x} {:#x}", self.kind(), self.pfn().0, self.flags())
    }
}

/// The byte that an access reads.
pub(crate) mod hot {
    /// The access may proceed.
    pub(crate) const MAPPED: u8 = 0x80;
    /// A write may proceed, and the entry is dirty already.
    pub(crate) const WRITE: u8 = 0x40;
    /// The node's slot.
    pub(crate) const SLOT: u8 = 0x1f;
}

/// A table in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId(pub(crate) u32);

const ENTRIES: usize = PMD_PAGES as usize;

/// Position of a page in its table.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below 512")]
pub(crate) const fn entry_index(page: u64) -> usize {
    (page % PMD_PAGES as u64) as usize
}

impl TableId {
    /// Where the table starts in the pool.
    pub(crate) const fn first_entry(self) -> usize {
        self.0 as usize * ENTRIES
    }
}

/// The pool of all tables.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Tables {
    entries: Vec<Entry>,
    /// Entries of each table that are not empty.
    used: Vec<u16>,
    free: Vec<TableId>,
}

impl Tables {
    pub(crate) fn allocate(&mut self) -> TableId {
        if let Some(table) = self.free.pop() {
            return table;
        }
        let table = TableId(next_id(self.used.len()));
        self.entries.resize(self.entries.len() + ENTRIES, Entry::NONE);
        self.used.push(0);
        table
    }

    /// Gives an empty table back.
    pub(crate) fn release(&mut self, table: TableId) {
        assert_eq!(self.used[table.0 as usize], 0, "a table that is released is empty");
        self.free.push(table);
    }

    pub(crate) fn is_empty(&self, table: TableId) -> bool {
        self.used[table.0 as usize] == 0
    }

    #[inline]
    pub(crate) fn get(&self, table: TableId, entry: usize) -> Entry {
        self.entries[table.first_entry() + entry]
    }

    #[inline]
    pub(crate) fn set(&mut self, table: TableId, index: usize, entry: Entry) {
        let at = table.first_entry() + index;
        match (self.entries[at] != Entry::NONE, entry != Entry::NONE) {
            (false, true) => self.used[table.0 as usize] += 1,
            (true, false) => self.used[table.0 as usize] -= 1,
            _ => {}
        }
        self.entries[at] = entry;
    }

    /// Replaces an entry that is not empty by another that is not.
    #[inline]
    pub(crate) fn rewrite(&mut self, table: TableId, index: usize, entry: Entry) {
        let place = &mut self.entries[table.first_entry() + index];
        debug_assert!(*place != Entry::NONE && entry != Entry::NONE, "the table stays as full");
        *place = entry;
    }

    /// All entries of a table.
    pub(crate) fn entries(&self, table: TableId) -> &[Entry] {
        &self.entries[table.first_entry()..][..ENTRIES]
    }
}

/// The hot byte for an entry in a VMA that allows access, for a page on `slot`.
pub(crate) fn hot_byte(entry: Entry, accessible: bool, slot: Slot) -> u8 {
    if entry.kind() != EntryKind::Present || !accessible || !entry.has(Entry::YOUNG) {
        return 0;
    }
    let writable =
        entry.has(Entry::WRITE) && entry.has(Entry::DIRTY) && entry.has(Entry::SOFT_DIRTY);
    hot::MAPPED | slot.0 | if writable { hot::WRITE } else { 0 }
}
