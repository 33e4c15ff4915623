//! Steps that name nothing that is not there: what is left when a step before them went.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Act, Actor, Base, MoveTarget, Pid, Place, Step};

/// What the steps so far have made.
struct Made {
    /// Areas, with their pages.
    areas: BTreeMap<char, u64>,
    actors: BTreeSet<Actor>,
    groups: BTreeSet<String>,
}

/// Leaves out steps, and parts of steps, that name an area, an actor or a group that no step made,
/// and cuts ranges to their area.
pub(super) fn sound(acts: Vec<Act>) -> Vec<Act> {
    let mut made = Made {
        areas: BTreeMap::new(),
        actors: BTreeSet::from([Actor::FIRST]),
        groups: BTreeSet::from(["root".to_owned()]),
    };
    let mut kept: Vec<Act> = Vec::with_capacity(acts.len());
    for mut act in acts {
        act.joined &= !kept.is_empty();
        if made.actors.contains(&act.actor) && made.keeps(&mut act.step) {
            kept.push(act);
        }
    }
    kept
}

impl Made {
    /// `false`: nothing of the step makes sense here.
    fn keeps(&mut self, step: &mut Step) -> bool {
        match step {
            Step::Map { area, pages, of, .. } => {
                *of = of.filter(|of| self.areas.contains_key(of));
                self.areas.insert(*area, *pages);
                true
            }
            Step::Fork(actor) | Step::Thread(actor) => {
                self.actors.insert(*actor);
                true
            }
            Step::Wait(actor) => self.actors.contains(actor),
            Step::Cgroup { name, .. } => {
                let parent = name.rsplit_once('/').map_or("root", |(parent, _)| parent);
                self.groups.contains(parent) && self.groups.insert(name.clone())
            }
            Step::CgroupSet { name, .. } | Step::CgroupEffective { name } => {
                self.groups.contains(name)
            }
            Step::CgroupJoin { name, who } => {
                self.groups.contains(name) && who.is_none_or(|who| self.actors.contains(&who))
            }
            Step::MigratePages { pid, .. } => self.has_pid(*pid),
            Step::MovePages { pid, pages, nodes, .. } => {
                let named = pages.len();
                pages.retain_mut(|(place, _)| self.cut(place));
                let is_whole = named == 0 || !pages.is_empty();
                let has_nodes = !matches!(nodes, MoveTarget::Nodes(list) if list.is_empty());
                self.has_pid(*pid) && is_whole && has_nodes
            }
            Step::Where(places) => {
                places.retain_mut(|place| self.cut(place));
                !places.is_empty()
            }
            step => place_of(step).is_none_or(|place| self.cut(place)),
        }
    }

    fn has_pid(&self, pid: Pid) -> bool {
        match pid {
            Pid::Actor(letter) => self.actors.contains(&Actor(letter)),
            _ => true,
        }
    }

    /// Cuts a place to its area; `false`: nothing is left of it.
    fn cut(&self, place: &mut Place) -> bool {
        let Base::Area(letter) = place.base else { return true };
        let Some(&whole) = self.areas.get(&letter) else { return false };
        let Some((from, upto)) = place.pages else { return true };
        place.pages = Some((from, upto.min(whole)));
        from < whole
    }
}

/// The steps with an area under another letter.
pub(super) fn renamed(acts: &[Act], from: char, to: char) -> Vec<Act> {
    let mut acts = acts.to_vec();
    let rename = |letter: &mut char| {
        if *letter == from {
            *letter = to;
        }
    };
    let rename_place = |place: &mut Place| {
        if let Base::Area(letter) = &mut place.base {
            rename(letter);
        }
    };
    for act in &mut acts {
        match &mut act.step {
            Step::Map { area, of, .. } => {
                rename(area);
                of.iter_mut().for_each(rename);
            }
            Step::MovePages { pages, .. } => {
                pages.iter_mut().for_each(|(place, _)| rename_place(place));
            }
            Step::Where(places) => places.iter_mut().for_each(rename_place),
            step => place_of(step).into_iter().for_each(rename_place),
        }
    }
    acts
}

/// The one range that a step is about.
pub(super) fn place_of(step: &mut Step) -> Option<&mut Place> {
    match step {
        Step::Fill { place, .. }
        | Step::Touch(place)
        | Step::Read(place)
        | Step::Store(place, _)
        | Step::Check(place, _)
        | Step::Protect(place, _)
        | Step::Lock(place)
        | Step::LockOnFault(place)
        | Step::Unmap(place)
        | Step::Advise(place, _)
        | Step::Pin(place)
        | Step::Mbind { place, .. }
        | Step::HomeNode { place, .. }
        | Step::GetMempolicy { addr: Some(place), .. }
        | Step::HugeUnits(place)
        | Step::Pagemap(place)
        | Step::NumaMaps(place)
        | Step::Smaps(place, _)
        | Step::PageFlag(place, _)
        | Step::WriteFile(place)
        | Step::ReadFile(place) => Some(place),
        _ => None,
    }
}
