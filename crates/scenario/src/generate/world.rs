//! What exists at a point of a scenario in the making: who lives, what is mapped, who may what.
//!
//! It is a sketch, not a model: just enough that most steps that are drawn are valid.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Outline;
use super::dice::Dice;
use crate::{Actor, Base, Kind, Place};

/// What a scenario may use; each is drawn once, so that few things meet often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Feature {
    /// THPs and what splits them.
    Thp,
    /// Memory that has a file behind it.
    Files,
    /// hugetlb pools and pages.
    Hugetlb,
    /// Children.
    Fork,
    /// Threads.
    Thread,
    /// Other users, and less privilege.
    Users,
    /// Cpusets.
    Cpuset,
    /// Weighted interleave.
    Weights,
    /// Extra references.
    Pin,
    /// mprotect, mlock.
    Rights,
    /// What takes pages away.
    Discard,
    /// Contents.
    Contents,
    /// The call that moves a process.
    Migrate,
    /// The call that moves single pages.
    MovePages,
    /// Policies of ranges.
    Mbind,
    /// Policies of threads.
    TaskPolicy,
    /// Wrong arguments.
    Wrong,
}

impl Feature {
    const COUNT: u64 = 17;
}

/// One process's or thread's view.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) actor: Actor,
    pub(super) alive: bool,
    pub(super) reaped: bool,
    pub(super) is_thread: bool,
    pub(super) parent: Option<Actor>,
    pub(super) privileged: bool,
    pub(super) has_pins: bool,
    /// Index of its address space.
    memory: usize,
}

/// A mapping as one address space has it.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) kind: Kind,
    /// What may be done to each page.
    pub(super) pages: Vec<Page>,
    /// What all pages were filled with.
    pub(super) stored: Option<u8>,
}

/// What may be done to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) mapped: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

type Memory = BTreeMap<char, Area>;

/// The state of a scenario in the making.
#[derive(Debug)]
pub(super) struct World {
    pub(super) outline: Outline,
    features: u64,
    pub(super) processes: Vec<Process>,
    memories: Vec<Memory>,
    next_area: char,
    pub(super) groups: Vec<String>,
    pub(super) pools_are_set: bool,
}

impl World {
    pub(super) fn new(dice: &mut Dice, outline: Outline) -> Self {
        let mut features = 0;
        for feature in 0..Feature::COUNT {
            features |= u64::from(dice.one_in(2)) << feature;
        }
        if !dice.one_in(2) {
            features &= !(1 << Feature::Wrong as u8);
        }
        let first = Process {
            actor: Actor::FIRST,
            alive: true,
            reaped: false,
            is_thread: false,
            parent: None,
            privileged: true,
            has_pins: false,
            memory: 0,
        };
        Self {
            outline,
            features,
            processes: vec![first],
            memories: vec![Memory::new()],
            next_area: 'a',
            groups: Vec::new(),
            pools_are_set: false,
        }
    }

    pub(super) const fn has(&self, feature: Feature) -> bool {
        self.features >> feature as u8 & 1 == 1
    }

    /// A wrong argument is due here.
    pub(super) fn errs(&self, dice: &mut Dice, times: u64) -> bool {
        self.has(Feature::Wrong) && dice.one_in(times)
    }

    // ---- processes ----

    /// One that lives, mostly the first.
    pub(super) fn someone(&self, dice: &mut Dice) -> usize {
        let alive: Vec<usize> =
            (0..self.processes.len()).filter(|&at| self.processes[at].alive).collect();
        if dice.one_in(2) { 0 } else { dice.pick(&alive) }
    }

    /// A new child or thread of a process; `None` when there are enough.
    pub(super) fn join(&mut self, from: usize, is_thread: bool) -> Option<Actor> {
        if self.processes.len() > 3 {
            return None;
        }
        let actor = Actor(['Q', 'R', 'S'][self.processes.len() - 1]);
        let parent = &self.processes[from];
        let (memory, privileged) = (parent.memory, parent.privileged);
        let parent = Some(parent.actor);
        let memory = if is_thread {
            memory
        } else {
            self.memories.push(self.memories[memory].clone());
            self.memories.len() - 1
        };
        let reaped = false;
        self.processes.push(Process {
            actor,
            alive: true,
            reaped,
            is_thread,
            parent,
            privileged,
            has_pins: false,
            memory,
        });
        Some(actor)
    }

    // ---- areas ----

    pub(super) fn memory(&self, process: usize) -> &Memory {
        &self.memories[self.processes[process].memory]
    }

    pub(super) fn memory_mut(&mut self, process: usize) -> &mut Memory {
        &mut self.memories[self.processes[process].memory]
    }

    /// A letter for a new mapping; `None` when there are enough.
    pub(super) fn new_letter(&mut self) -> Option<char> {
        let letter = self.next_area;
        if letter > 'e' {
            return None;
        }
        self.next_area = char::from_u32(u32::from(letter) + 1)?;
        Some(letter)
    }

    pub(super) fn map(&mut self, process: usize, letter: char, kind: Kind, pages: u64) {
        let page = Page { mapped: true, readable: true, writable: true };
        let pages = (0..pages).map(|_| page).collect();
        self.memory_mut(process).insert(letter, Area { kind, pages, stored: None });
    }

    /// An area of the process.
    pub(super) fn area(&self, dice: &mut Dice, process: usize) -> Option<(char, &Area)> {
        let memory = self.memory(process);
        let at = dice.index(memory.len().max(1));
        memory.iter().nth(at).map(|(&letter, area)| (letter, area))
    }

    /// A range of pages that a step can name: mostly a whole area or a part of one.
    pub(super) fn range(&self, dice: &mut Dice, process: usize) -> Option<(char, Range<u64>)> {
        let (letter, area) = self.area(dice, process)?;
        Some((letter, part(dice, area.pages.len() as u64)))
    }

    /// A range of pages with this right.
    pub(super) fn range_with(
        &self,
        dice: &mut Dice,
        process: usize,
        right: fn(&Page) -> bool,
    ) -> Option<(char, Range<u64>)> {
        let (letter, area) = self.area(dice, process)?;
        let wanted = part(dice, area.pages.len() as u64);
        let good = |page: u64| usize::try_from(page).is_ok_and(|page| right(&area.pages[page]));
        let start = wanted.clone().find(|&page| good(page))?;
        let end = (start..wanted.end).find(|&page| !good(page)).unwrap_or(wanted.end);
        Some((letter, start..end))
    }

    /// Notes what a step does to pages.
    pub(super) fn change(
        &mut self,
        process: usize,
        letter: char,
        range: &Range<u64>,
        change: impl Fn(&mut Page),
    ) {
        let Some(area) = self.memory_mut(process).get_mut(&letter) else { return };
        for (page, _) in area.pages.iter_mut().zip(0..).filter(|(_, at)| range.contains(at)) {
            change(page);
        }
    }

    /// Contents of an area are no longer what a `store` left, for anybody.
    pub(super) fn forget_contents(&mut self, letter: char) {
        for memory in &mut self.memories {
            if let Some(area) = memory.get_mut(&letter) {
                area.stored = None;
            }
        }
    }

    /// A range as a step writes it: whole areas by their letter.
    pub(super) fn place(&self, process: usize, letter: char, range: &Range<u64>) -> Place {
        let whole = self.memory(process).get(&letter).map_or(0, |area| area.pages.len() as u64);
        let pages = (*range != (0..whole)).then_some((range.start, range.end));
        Place { pages, ..Place::all(Base::Area(letter)) }
    }
}

/// All of so many pages, or one of them, or some.
fn part(dice: &mut Dice, pages: u64) -> Range<u64> {
    match dice.below(5) {
        0 | 1 => 0..pages,
        2 => {
            let page = dice.below(pages);
            page..page + 1
        }
        3 => 0..dice.within(1..pages + 1),
        _ => {
            let start = dice.below(pages);
            start..dice.within(start + 1..pages + 1)
        }
    }
}
