//! Cpusets of cgroup v2: which nodes the tasks of a group may use, and what a change of that does:
//! policies are rebound and pages are moved (spec 5).

use std::collections::BTreeSet;

use machine::NodeSet;

use crate::Machine;
use crate::convert::next_id;
use crate::errno::Errno;
use crate::memory::node::Slot;
use crate::mm::address_space::MmId;
use crate::mm::task::TaskId;
use crate::observe::call_path::Caller;
use crate::policy::placement::Allocator;

/// A group by its place in the list of groups; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpusetId(pub(crate) u32);

impl CpusetId {
    /// The root group: all nodes.
    pub const ROOT: Self = Self(0);
}

#[derive(Clone, Debug, PartialEq)]
struct Cpuset {
    parent: CpusetId,
    /// As written to `cpuset.mems`; empty inherits.
    mems: NodeSet,
    effective: NodeSet,
}

/// All groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cpusets {
    list: Vec<Cpuset>,
}

impl Cpusets {
    pub(crate) fn new(nodes: NodeSet) -> Self {
        Self { list: vec![Cpuset { parent: CpusetId::ROOT, mems: nodes, effective: nodes }] }
    }

    /// Whether there is any group but the root (`cpusets_enabled`).
    pub(crate) fn are_used(&self) -> bool {
        self.list.len() > 1
    }

    pub(crate) fn effective(&self, id: CpusetId) -> NodeSet {
        self.list[id.0 as usize].effective
    }

    /// Computes the effective nodes again; a parent comes before its children.
    fn update(&mut self) {
        for at in 1..self.list.len() {
            let parent = self.effective(self.list[at].parent);
            let own = self.list[at].mems.intersection(&parent);
            self.list[at].effective = if own.is_empty() { parent } else { own };
        }
    }
}

impl Machine {
    /// Makes a group below `parent`; it inherits the nodes of its parent.
    pub fn make_cpuset(&mut self, parent: CpusetId) -> CpusetId {
        let effective = self.cpusets.effective(parent);
        let id = CpusetId(next_id(self.cpusets.list.len()));
        self.cpusets.list.push(Cpuset { parent, mems: NodeSet::EMPTY, effective });
        id
    }

    /// `cpuset.mems.effective` of a group.
    pub fn effective_mems(&self, cpuset: CpusetId) -> NodeSet {
        self.cpusets.effective(cpuset)
    }

    /// Writes `cpuset.mems`: an empty set inherits. Tasks of the group and of the groups below it
    /// follow, with their policies and their pages.
    ///
    /// # Errors
    ///
    /// `EINVAL`: a node has no memory or does not exist; or the group is the root. `ENOSPC`: a set
    /// of a group with processes is to be emptied (`validate_change`).
    ///
    /// Source: cgroups(7); behaviour spec 5.
    pub fn set_mems(&mut self, cpuset: CpusetId, mems: NodeSet) -> Result<(), Errno> {
        if cpuset == CpusetId::ROOT || !mems.is_subset(&self.nodes.with_memory) {
            return Err(Errno::EINVAL);
        }
        let had_some = !self.cpusets.list[cpuset.0 as usize].mems.is_empty();
        let keeps = self.behaviour.populated_cpuset_keeps_mems;
        if keeps && mems.is_empty() && had_some && self.is_populated(cpuset) {
            return Err(Errno::ENOSPC);
        }
        self.cpusets.list[cpuset.0 as usize].mems = mems;
        self.cpusets.update();
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        // Before 7.3 a process with several threads is moved once for each: pages that the first
        // round brings to a node that the next round empties move on (`update_tasks_nodemask`).
        let each = self.behaviour.cpuset_moves_by_thread;
        let leaders: BTreeSet<TaskId> = self.tasks.values().map(|task| task.process).collect();
        self.follow_cpusets(&tasks, |task| each || leaders.contains(&task));
        Ok(())
    }

    /// Whether somebody lives in a group or below it (`cgroup_is_populated`).
    fn is_populated(&self, cpuset: CpusetId) -> bool {
        let is_within = |mut id: CpusetId| {
            while id != cpuset && id != CpusetId::ROOT {
                id = self.cpusets.list[id.0 as usize].parent;
            }
            id == cpuset
        };
        self.tasks.values().any(|task| task.mm.is_some() && is_within(task.cpuset))
    }

    /// Puts all threads of a process into a group.
    ///
    /// # Errors
    ///
    /// `ESRCH`: no such task.
    pub fn join_cpuset(&mut self, cpuset: CpusetId, task: TaskId) -> Result<(), Errno> {
        let process = self.tasks.get(&task).ok_or(Errno::ESRCH)?.process;
        let threads: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.process == process)
            .map(|(&id, _)| id)
            .collect();
        for thread in &threads {
            if let Some(task) = self.tasks.get_mut(thread) {
                task.cpuset = cpuset;
            }
        }
        self.follow_cpusets(&threads, |thread| thread == process);
        Ok(())
    }

    /// Brings tasks in line with their groups: first all policies, then the pages, as the kernel
    /// does it with its work queue. `moves_pages`: the pages move for this task.
    fn follow_cpusets(&mut self, tasks: &[TaskId], moves_pages: impl Fn(TaskId) -> bool) {
        let mut moves: Vec<(MmId, NodeSet, NodeSet)> = Vec::new();
        for &id in tasks {
            let mems = {
                let task = &self.tasks[&id];
                self.cpusets.effective(task.cpuset)
            };
            self.forget_static(id);
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let old = std::mem::replace(&mut task.mems_allowed, mems);
            if old == mems {
                continue;
            }
            if let Some(policy) = &mut task.policy {
                policy.rebind(&mems);
            }
            if let Some(mm) = task.mm
                && moves_pages(id)
            {
                self.rebind_vmas(mm, &mems);
                moves.push((mm, old, mems));
            }
        }
        for (mm, old, new) in moves {
            let worker = Allocator { cpu: Slot(0), mems: None };
            // What stays behind is nobody's error here (spec 5).
            let _ = self.do_migrate_pages(mm, &old, &new, true, Caller::Cpuset, &worker);
        }
    }

    fn rebind_vmas(&mut self, mm: MmId, mems: &NodeSet) {
        let mm = self.mms[mm.0 as usize].as_mut().expect("a task's address space exists");
        for policy in mm.vmas.iter_mut().filter_map(|vma| vma.policy.as_mut()) {
            policy.rebind(mems);
        }
    }
}
