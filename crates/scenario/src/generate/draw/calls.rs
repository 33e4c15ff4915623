//! The system calls that scenarios are about.

use super::{Draw, arguments};
use crate::generate::arguments::{mask, maxnode, policy};
use crate::generate::world::Feature;
use crate::{Base, Kind, Mode, Place, Pointer, Step, flags};

impl Draw {
    pub(super) fn migrate_pages(&mut self, who: usize) -> Option<Step> {
        let pid = arguments::pid(&mut self.dice, &self.world, who);
        let from = mask(&mut self.dice, &self.world);
        let to = mask(&mut self.dice, &self.world);
        Some(Step::MigratePages { pid, from, to, maxnode: maxnode(&mut self.dice, &self.world) })
    }

    pub(super) fn move_pages(&mut self, who: usize) -> Option<Step> {
        let mut pages = Vec::new();
        for _ in 0..self.dice.within(1..4) {
            let (letter, range) = self.world.range(&mut self.dice, who)?;
            let place = self.world.place(who, letter, &range);
            // Each page of a large area is a status word: a part of them says as much.
            let long = range.end - range.start > 16;
            let place = if long { thinned(place, &range) } else { place };
            pages.push((place, self.dice.pick(&[1, 1, 1, 2])));
        }
        if self.world.errs(&mut self.dice, 4) {
            let base = self.dice.pick(&[Base::Null, Base::Kernel, Base::Top]);
            pages.push((Place::all(base), 1));
        }
        let nodes = arguments::move_target(&mut self.dice, &self.world);
        let world = &self.world;
        let dice = &mut self.dice;
        Some(Step::MovePages {
            pid: arguments::pid(dice, world, who),
            pages,
            nodes,
            flags: arguments::move_flags(dice, world),
            count: None,
            pages_at: arguments::pointer(dice, world, 0..4),
            nodes_at: arguments::pointer(dice, world, 0..4),
            status_at: arguments::pointer(dice, world, 0..4),
        })
    }

    pub(super) fn mbind(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range(&mut self.dice, who)?;
        let kind = self.world.memory(who).get(&letter)?.kind;
        let (mode, mask) = policy(&mut self.dice, &self.world);
        let (mode, mask) =
            if is_interleaving(mode.0) && has_inode(kind) { (Mode(2), mask) } else { (mode, mask) };
        let mut place = self.world.place(who, letter, &range);
        let mut len = None;
        if self.world.errs(&mut self.dice, 6) {
            match self.dice.below(3) {
                0 => place.offset = 1,
                1 => len = Some(self.dice.pick(&[0, 1, 4097, u64::MAX, 1 << 47])),
                _ => place = Place::all(self.dice.pick(&[Base::Null, Base::Top])),
            }
        }
        let flags = arguments::mbind_flags(&mut self.dice, &self.world);
        let maxnode = maxnode(&mut self.dice, &self.world);
        Some(Step::Mbind { place, mode, mask, flags, len, maxnode })
    }

    pub(super) fn home_node(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range(&mut self.dice, who)?;
        let node = u64::from(arguments::node(&mut self.dice, self.world.outline));
        let (node, flags) = if self.world.errs(&mut self.dice, 3) {
            (self.dice.pick(&[node, 9, 1024, u64::MAX]), self.dice.pick(&[0, 1]))
        } else {
            (node, 0)
        };
        Some(Step::HomeNode {
            place: self.world.place(who, letter, &range),
            node,
            flags,
            len: None,
        })
    }

    pub(super) fn set_mempolicy(&mut self) -> Option<Step> {
        let (mode, mask) = policy(&mut self.dice, &self.world);
        if is_interleaving(mode.0) && self.world.has(Feature::Files) {
            return None;
        }
        Some(Step::SetMempolicy { mode, mask, maxnode: maxnode(&mut self.dice, &self.world) })
    }

    pub(super) fn get_mempolicy(&mut self, who: usize) -> Option<Step> {
        let mut flags = self.dice.pick(&[0, flags::ADDR, flags::ADDR | flags::NODE, flags::MEMS]);
        let mut addr = None;
        if flags & flags::ADDR != 0 {
            let (letter, range) = self.world.range(&mut self.dice, who)?;
            let page = range.start..range.start + 1;
            addr = Some(self.world.place(who, letter, &page));
        }
        if self.world.errs(&mut self.dice, 4) {
            flags = self.dice.pick(&[flags | flags::MEMS, 8, 16, flags::ADDR]);
            addr = addr.filter(|_| self.dice.one_in(2));
        }
        let (dice, world) = (&mut self.dice, &self.world);
        let mut pointer = || {
            let wrong = world.errs(dice, 6);
            if wrong { dice.pick(&[Pointer::Null, Pointer::Bad]) } else { Pointer::Good }
        };
        let (mode_at, mask_at) = (pointer(), pointer());
        let wrong = self.world.errs(&mut self.dice, 5);
        let maxnode = wrong.then(|| self.dice.pick(&[0, 1, 3, 64, 65, 129, 1024, 32769, 32833]));
        Some(Step::GetMempolicy { flags, addr, mode_at, mask_at, maxnode })
    }
}

/// Every 256th page of a long range.
fn thinned(place: Place, range: &std::ops::Range<u64>) -> Place {
    Place { pages: Some((range.start, range.end)), stride: 256, ..place }
}

/// Interleave, weighted or not, whatever its flags.
const fn is_interleaving(mode: i32) -> bool {
    matches!(mode & 0x1fff, 3 | 6)
}

/// Interleaving in this memory starts at the number of an inode.
const fn has_inode(kind: Kind) -> bool {
    !matches!(kind, Kind::Anon | Kind::Thp | Kind::Huge)
}
