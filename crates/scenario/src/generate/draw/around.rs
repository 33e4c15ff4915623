//! Steps that change who there is, who may what, and what is around the processes.

use super::{Draw, arguments};
use crate::{Actor, Credential, Step};

impl Draw {
    pub(super) fn exit(&mut self, who: usize) -> Option<Step> {
        let process = &mut self.world.processes[who];
        let actor = process.actor;
        if actor == Actor::FIRST || process.is_thread {
            return None;
        }
        process.alive = false;
        // Its threads end with it.
        for other in &mut self.world.processes {
            if other.is_thread && other.parent == Some(actor) {
                other.alive = false;
                other.reaped = true;
            }
        }
        Some(Step::Exit)
    }

    pub(super) fn wait(&mut self, who: usize) -> Option<Step> {
        let parent = self.world.processes[who].actor;
        let child =
            self.world.processes.iter_mut().find(|process| {
                !process.alive && !process.reaped && process.parent == Some(parent)
            })?;
        child.reaped = true;
        Some(Step::Wait(child.actor))
    }

    pub(super) fn lose_rights(&mut self, who: usize) -> Option<Step> {
        if !self.world.processes[who].privileged {
            return None;
        }
        let step = self.dice.pick(&[
            Step::Drop,
            Step::Drop,
            Step::User(Credential::All, 1000),
            Step::User(Credential::All, 1000),
            Step::NoDump,
        ]);
        if step != Step::NoDump {
            self.world.processes[who].privileged = false;
        }
        Some(step)
    }

    pub(super) fn first_may(&self) -> Option<()> {
        self.world.processes[0].privileged.then_some(())
    }

    pub(super) fn mems(&mut self) -> String {
        if self.world.errs(&mut self.dice, 4) {
            return self.dice.pick(&["empty", "9", "0,9"]).to_owned();
        }
        let nodes = arguments::nodes(&mut self.dice, self.world.outline);
        nodes.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    pub(super) fn cgroup(&mut self) -> Option<Step> {
        self.first_may()?;
        if self.world.groups.len() > 2 {
            return None;
        }
        // Side by side: what a group above another may hold is no matter of memory.
        let name = format!("c{}", self.world.groups.len());
        self.world.groups.push(name.clone());
        let mems = self.mems();
        Some(Step::Cgroup { name, mems: (mems != "empty").then_some(mems) })
    }

    pub(super) fn group(&mut self) -> Option<String> {
        self.first_may()?;
        let at = self.dice.index(self.world.groups.len().max(1));
        self.world.groups.get(at).cloned()
    }

    pub(super) fn cgroup_set(&mut self) -> Option<Step> {
        let name = self.group()?;
        Some(Step::CgroupSet { name, mems: self.mems() })
    }

    pub(super) fn cgroup_join(&mut self) -> Option<Step> {
        let name = self.group()?;
        let who = self.world.someone(&mut self.dice);
        let process = &self.world.processes[who];
        Some(Step::CgroupJoin { name, who: (who != 0).then_some(process.actor) })
    }

    pub(super) fn pool(&mut self) -> Option<Step> {
        self.first_may()?;
        self.world.pools_are_set = true;
        let node = arguments::node(&mut self.dice, self.world.outline);
        Some(Step::Pool { node, pages: self.dice.within(0..4) })
    }

    pub(super) fn weight(&mut self) -> Option<Step> {
        self.first_may()?;
        let node = arguments::node(&mut self.dice, self.world.outline);
        let value = match self.dice.below(4) {
            0 => None,
            1 if self.world.errs(&mut self.dice, 2) => Some(self.dice.pick(&["0", "x", "256"])),
            _ => Some(self.dice.pick(&["1", "2", "3", "5"])),
        };
        Some(Step::Weight { node, value: value.map(str::to_owned) })
    }
}
