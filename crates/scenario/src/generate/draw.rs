//! Draws a scenario step by step, then lets everybody look at what they have.
//!
//! [`VERBS`] says what can be drawn; the steps themselves are made in `memory`, `around` (processes
//! and groups) and `calls`.

mod around;
mod calls;
mod memory;

use super::dice::Dice;
use super::world::{Feature, World};
use super::{Outline, arguments};
use crate::{Act, Base, Mask, Place, Scenario, Step};

/// Steps that are drawn between the first and the last looks.
const STEPS: std::ops::Range<u64> = 3..16;

/// What can be drawn, how often, and what it needs.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Map,
    Fill,
    Touch,
    Read,
    Cpu,
    Look,
    Store,
    Check,
    Protect,
    Lock,
    Unmap,
    Advise,
    Pin,
    Unpin,
    Fork,
    Thread,
    Exit,
    Wait,
    LoseRights,
    MigratePages,
    MovePages,
    Mbind,
    HomeNode,
    SetMempolicy,
    GetMempolicy,
    Cgroup,
    CgroupSet,
    CgroupJoin,
    Pool,
    Weight,
}

const VERBS: [(u64, Option<Feature>, Verb); 30] = [
    (5, None, Verb::Map),
    (6, None, Verb::Fill),
    (4, None, Verb::Touch),
    (2, None, Verb::Read),
    (2, None, Verb::Cpu),
    (2, None, Verb::Look),
    (2, Some(Feature::Contents), Verb::Store),
    (2, Some(Feature::Contents), Verb::Check),
    (2, Some(Feature::Rights), Verb::Protect),
    (2, Some(Feature::Rights), Verb::Lock),
    (1, Some(Feature::Discard), Verb::Unmap),
    (3, Some(Feature::Discard), Verb::Advise),
    (3, Some(Feature::Pin), Verb::Pin),
    (2, Some(Feature::Pin), Verb::Unpin),
    (4, Some(Feature::Fork), Verb::Fork),
    (2, Some(Feature::Thread), Verb::Thread),
    (1, Some(Feature::Fork), Verb::Exit),
    (1, Some(Feature::Fork), Verb::Wait),
    (2, Some(Feature::Users), Verb::LoseRights),
    (6, Some(Feature::Migrate), Verb::MigratePages),
    (8, Some(Feature::MovePages), Verb::MovePages),
    (6, Some(Feature::Mbind), Verb::Mbind),
    (1, Some(Feature::Mbind), Verb::HomeNode),
    (4, Some(Feature::TaskPolicy), Verb::SetMempolicy),
    (2, None, Verb::GetMempolicy),
    (3, Some(Feature::Cpuset), Verb::Cgroup),
    (3, Some(Feature::Cpuset), Verb::CgroupSet),
    (3, Some(Feature::Cpuset), Verb::CgroupJoin),
    (3, Some(Feature::Hugetlb), Verb::Pool),
    (2, Some(Feature::Weights), Verb::Weight),
];

pub(super) fn scenario(mut dice: Dice, outline: Outline) -> Scenario {
    let world = World::new(&mut dice, outline);
    let mut draw = Draw { dice, world, acts: Vec::new() };
    for base in [Base::Vdso, Base::Vvar] {
        draw.act(0, Step::Unmap(Place::all(base)));
    }
    let verbs: Vec<(u64, Verb)> = VERBS
        .into_iter()
        .filter(|(_, feature, _)| feature.is_none_or(|feature| draw.world.has(feature)))
        .map(|(weight, _, verb)| (weight, verb))
        .collect();
    draw.map_and_use(0);
    for _ in 0..draw.dice.within(STEPS) {
        let verb = draw.dice.weighted(&verbs);
        draw.verb(verb);
    }
    draw.last_looks();
    Scenario { acts: draw.acts }
}

struct Draw {
    dice: Dice,
    world: World,
    acts: Vec<Act>,
}

impl Draw {
    fn act(&mut self, process: usize, step: Step) {
        let actor = self.world.processes[process].actor;
        self.acts.push(Act { joined: false, actor, step });
    }

    /// Maps an area and, mostly, fills or touches all of it.
    fn map_and_use(&mut self, who: usize) {
        let Some(step) = self.map(who) else { return };
        let Step::Map { area, .. } = step else { return };
        self.act(who, step);
        let place = Place::all(Base::Area(area));
        match self.dice.below(6) {
            0 => {}
            1 => self.act(who, Step::Touch(place)),
            _ => {
                let digits = self.digits();
                self.act(who, Step::Fill { place, digits });
            }
        }
    }

    /// Makes a group and, mostly, puts somebody into it.
    fn cgroup_and_join(&mut self) {
        let Some(step) = self.cgroup() else { return };
        self.act(0, step);
        if !self.dice.one_in(3) {
            self.verb(Verb::CgroupJoin);
        }
    }

    /// Draws a step of this verb; nothing when none makes sense here.
    fn verb(&mut self, verb: Verb) {
        let who = self.world.someone(&mut self.dice);
        let step = match verb {
            Verb::Map => return self.map_and_use(who),
            Verb::Fill => self.fill(who),
            Verb::Touch => self.write(who).map(Step::Touch),
            Verb::Read => self.read(who),
            Verb::Cpu => {
                let cpu = self.dice.below(u64::from(self.world.outline.cpus));
                u32::try_from(cpu).ok().map(Step::Cpu)
            }
            Verb::Look => self.look(who),
            Verb::Store => self.store(who),
            Verb::Check => self.check(who),
            Verb::Protect => self.protect(who),
            Verb::Lock => self.lock(who),
            Verb::Unmap => self.unmap(who),
            Verb::Advise => self.advise(who),
            Verb::Pin => self.pin(who),
            Verb::Unpin => self.unpin(who),
            Verb::Fork => self.world.join(who, false).map(Step::Fork),
            Verb::Thread => self.world.join(who, true).map(Step::Thread),
            Verb::Exit => self.exit(who),
            Verb::Wait => self.wait(who),
            Verb::LoseRights => self.lose_rights(who),
            Verb::MigratePages => self.migrate_pages(who),
            Verb::MovePages => self.move_pages(who),
            Verb::Mbind => self.mbind(who),
            Verb::HomeNode => self.home_node(who),
            Verb::SetMempolicy => self.set_mempolicy(),
            Verb::GetMempolicy => self.get_mempolicy(who),
            Verb::Cgroup => return self.cgroup_and_join(),
            Verb::CgroupSet => self.cgroup_set(),
            Verb::CgroupJoin => self.cgroup_join(),
            Verb::Pool => self.pool(),
            Verb::Weight => self.weight(),
        };
        // What is around the processes is set up by the first one, while it still may.
        let by_first =
            matches!(verb, Verb::CgroupSet | Verb::CgroupJoin | Verb::Pool | Verb::Weight);
        if let Some(step) = step {
            self.act(if by_first { 0 } else { who }, step);
        }
    }

    fn look(&mut self, who: usize) -> Option<Step> {
        let (letter, range) = self.world.range(&mut self.dice, who)?;
        let place = self.world.place(who, letter, &range);
        let may_read_proc = self.world.processes[who].privileged;
        match self.dice.below(8) {
            0 => Some(Step::Counters),
            1 if may_read_proc => Some(Step::NumaMaps(place)),
            2 if may_read_proc && range.end - range.start <= 16 => Some(Step::Pagemap(place)),
            3 if may_read_proc => {
                let field = self.dice.pick(&["Rss", "Anonymous", "Locked"]);
                Some(Step::Smaps(Place::all(Base::Area(letter)), field.to_owned()))
            }
            4 if may_read_proc && self.world.has(Feature::Thp) => {
                Some(Step::HugeUnits(Place::all(Base::Area(letter))))
            }
            5 => Some(Step::Status("Mems_allowed_list".to_owned())),
            6 if self.world.pools_are_set => Some(Step::Pools),
            _ => Some(Step::Where(vec![place])),
        }
    }

    /// Counters count every page, those of the program that plays the scenario too. Those lie on a
    /// node that no migrate_pages(2) empties, if there is one; but a cpuset moves them all the same,
    /// and the stack of a thread lies where the thread was started.
    fn moves_its_player(&self) -> bool {
        let empties = |node: u16| {
            self.acts.iter().any(|act| match &act.step {
                Step::MigratePages { from: Mask::Nodes { nodes, .. }, .. } => nodes.contains(&node),
                _ => false,
            })
        };
        let moves = |act: &Act| {
            matches!(act.step, Step::CgroupSet { .. } | Step::CgroupJoin { .. } | Step::Thread(_))
        };
        self.acts.iter().any(moves) || (0..self.world.outline.nodes).all(empties)
    }

    /// Everybody who lives says where each of their areas is; then the counters.
    fn last_looks(&mut self) {
        for who in 0..self.world.processes.len() {
            let process = &self.world.processes[who];
            let areas = self.world.memory(who).keys();
            let places: Vec<Place> = areas.map(|&area| Place::all(Base::Area(area))).collect();
            if process.alive && !places.is_empty() {
                self.act(who, Step::Where(places));
            }
        }
        self.act(0, Step::Counters);
        if self.moves_its_player() {
            self.acts.retain(|act| act.step != Step::Counters);
        }
    }
}
