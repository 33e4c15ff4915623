//! Steps that map memory, touch it, and take it away.

use super::{Draw, arguments};
use crate::generate::world::{Area, Feature};
use crate::{Advice, Base, Kind, Place, Protection, Step};

impl Draw {
    pub(super) fn map(&mut self, who: usize) -> Option<Step> {
        let mut kinds = vec![(6, Kind::Anon)];
        if self.world.has(Feature::Thp) {
            kinds.push((6, Kind::Thp));
        }
        if self.world.has(Feature::Files) {
            let files = [(2, Kind::Shm), (2, Kind::Memfd), (2, Kind::Tmpfs), (1, Kind::Ramfs)];
            kinds.extend(files);
        }
        if self.world.has(Feature::Hugetlb) && self.world.pools_are_set {
            kinds.extend([(6, Kind::Huge), (2, Kind::HugeShared)]);
        }
        let kind = self.dice.weighted(&kinds);
        let pages = match kind {
            Kind::Thp => self.dice.pick(&[512, 512, 514, 1024]),
            Kind::Huge | Kind::HugeShared => self.dice.pick(&[512, 1024]),
            _ => self.dice.within(1..9),
        };
        let of = self.file_to_share(who, kind);
        let kind_of_file = matches!(kind, Kind::Memfd | Kind::Tmpfs | Kind::Ramfs);
        let private = kind_of_file && self.dice.one_in(3);
        let area = self.world.new_letter()?;
        let (of, pages) = of.map_or((None, pages), |(letter, pages)| (Some(letter), pages));
        self.world.map(who, area, kind, pages);
        Some(Step::Map { area, pages, kind, of, private, at: None })
    }

    /// Now and then an area maps the file of another one.
    pub(super) fn file_to_share(&mut self, who: usize, kind: Kind) -> Option<(char, u64)> {
        if !matches!(kind, Kind::Memfd | Kind::Tmpfs) || !self.dice.one_in(2) {
            return None;
        }
        let same = |(_, area): &(&char, &Area)| area.kind == kind;
        let (&letter, area) = self.world.memory(who).iter().find(same)?;
        Some((letter, area.pages.len() as u64))
    }

    /// Pages that may be written, as a place; their contents are now anybody's guess.
    pub(super) fn write(&mut self, who: usize) -> Option<Place> {
        let (letter, range) =
            self.world.range_with(&mut self.dice, who, |page| page.mapped && page.writable)?;
        self.world.forget_contents(letter);
        Some(self.world.place(who, letter, &range))
    }

    pub(super) fn fill(&mut self, who: usize) -> Option<Step> {
        let place = self.write(who)?;
        let digits = self.digits();
        Some(Step::Fill { place, digits })
    }

    /// Nodes of the first few pages of a `fill`.
    pub(super) fn digits(&mut self) -> Vec<u8> {
        (0..self.dice.within(1..5))
            .filter_map(|_| arguments::node(&mut self.dice, self.world.outline).try_into().ok())
            .collect()
    }

    pub(super) fn read(&mut self, who: usize) -> Option<Step> {
        let (letter, range) =
            self.world.range_with(&mut self.dice, who, |page| page.mapped && page.readable)?;
        Some(Step::Read(self.world.place(who, letter, &range)))
    }

    pub(super) fn store(&mut self, who: usize) -> Option<Step> {
        let (letter, area) = self.world.area(&mut self.dice, who)?;
        if !area.pages.iter().all(|page| page.mapped && page.writable) {
            return None;
        }
        let byte = u8::try_from(self.dice.within(1..200)).ok()?;
        self.world.forget_contents(letter);
        self.world.memory_mut(who).get_mut(&letter)?.stored = Some(byte);
        Some(Step::Store(Place::all(Base::Area(letter)), byte))
    }

    pub(super) fn check(&mut self, who: usize) -> Option<Step> {
        let (letter, area) = self.world.area(&mut self.dice, who)?;
        let readable = area.pages.iter().all(|page| page.mapped && page.readable);
        let byte = area.stored.filter(|_| readable)?;
        Some(Step::Check(Place::all(Base::Area(letter)), byte))
    }

    pub(super) fn protect(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range_with(&mut self.dice, who, |page| page.mapped)?;
        let kind = self.world.memory(who).get(&letter)?.kind;
        if matches!(kind, Kind::Huge | Kind::HugeShared) {
            return None;
        }
        let (protection, readable, writable) = self.dice.pick(&[
            (Protection::None, false, false),
            (Protection::ReadOnly, true, false),
            (Protection::ReadWrite, true, true),
        ]);
        self.world.change(who, letter, &range, |page| {
            page.readable = readable;
            page.writable = writable;
        });
        Some(Step::Protect(self.world.place(who, letter, &range), protection))
    }

    pub(super) fn lock(&mut self, who: usize) -> Option<Step> {
        let (letter, range) =
            self.world.range_with(&mut self.dice, who, |page| page.mapped && page.writable)?;
        self.world.forget_contents(letter);
        let place = self.world.place(who, letter, &range);
        Some(if self.dice.one_in(3) { Step::LockOnFault(place) } else { Step::Lock(place) })
    }

    pub(super) fn unmap(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range_with(&mut self.dice, who, |page| page.mapped)?;
        let area = self.world.memory(who).get(&letter)?;
        let is_whole = range == (0..area.pages.len() as u64);
        if matches!(area.kind, Kind::Huge | Kind::HugeShared) && !is_whole {
            return None;
        }
        let place = self.world.place(who, letter, &range);
        self.world.change(who, letter, &range, |page| {
            page.mapped = false;
            page.readable = false;
            page.writable = false;
        });
        Some(Step::Unmap(place))
    }

    pub(super) fn advise(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range_with(&mut self.dice, who, |page| page.writable)?;
        let area = self.world.memory(who).get(&letter)?;
        if matches!(area.kind, Kind::Huge | Kind::HugeShared) {
            return None;
        }
        let mut advice = vec![
            (6, Advice::DontNeed),
            (2, Advice::PopulateRead),
            (2, Advice::PopulateWrite),
            (1, Advice::Cold),
        ];
        if self.world.has(Feature::Thp) && area.kind == Kind::Thp {
            advice.push((2, Advice::Collapse));
        }
        let advice = self.dice.weighted(&advice);
        self.world.forget_contents(letter);
        Some(Step::Advise(self.world.place(who, letter, &range), advice))
    }

    pub(super) fn pin(&mut self, who: usize) -> Option<Step> {
        let (letter, range) =
            self.world.range_with(&mut self.dice, who, |page| page.mapped && page.readable)?;
        // The pipe has room for sixteen.
        self.world.processes[who].has_pins = true;
        let range = range.start..range.end.min(range.start + 2);
        Some(Step::Pin(self.world.place(who, letter, &range)))
    }

    pub(super) fn unpin(&mut self, who: usize) -> Option<Step> {
        std::mem::take(&mut self.world.processes[who].has_pins).then_some(Step::Unpin)
    }
}
