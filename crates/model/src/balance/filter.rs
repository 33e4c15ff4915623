//! Whether a page should come to the CPU that touched it.
//!
//! Source: behaviour spec 10.3 ("misplaced() for each policy", "The filter"); mm/mempolicy.c,
//! `mpol_misplaced`; kernel/sched/fair.c, `should_numa_migrate_memory`.

use crate::Machine;
use crate::balance::BALANCE_TIERING;
use crate::memory::frames::Pfn;
use crate::memory::node::Slot;
use crate::mm::task::TaskId;
use crate::mm::vma::Vma;
use crate::policy::mempolicy::PolicyMode;

/// Passes of the scanner during which a thread takes pages at once whatever its preferred node.
const EARLY_PASSES: u32 = 4;

/// CPU and low byte of the thread's number, in one word.
pub(crate) fn cpupid(task: TaskId, cpu: machine::CpuId) -> u32 {
    cpu.get() << 8 | task.bits() & 0xff
}

/// Whether a word was written by this thread, as far as its eight bits can tell.
pub(crate) fn is_same_thread(word: u32, task: TaskId) -> bool {
    word & 0xff == task.bits() & 0xff
}

impl Machine {
    /// The node that a page should be on instead, if any.
    pub(crate) fn misplaced(
        &mut self,
        task: TaskId,
        vma: &Vma,
        page: u64,
        head: Pfn,
    ) -> Option<Slot> {
        let here = self.nodes.of_cpu(self.tasks[&task].cpu);
        let current = self.nodes.slot_of(head);
        match self.vma_policy(vma, page).or(self.tasks[&task].policy) {
            // The built-in default: a local page is fine, and nothing is recorded.
            None if current == here => return None,
            None => {}
            Some(policy) if !policy.migrates_on_fault() => return None,
            Some(policy) => {
                let allowed = policy.nodes.contains(self.nodes[here].id);
                let balances = matches!(policy.mode, PolicyMode::Bind | PolicyMode::PreferredMany);
                if !allowed || !balances {
                    return None;
                }
            }
        }
        (self.should_migrate(task, head, current, here) && current != here).then_some(here)
    }

    fn should_migrate(&mut self, id: TaskId, head: Pfn, source: Slot, here: Slot) -> bool {
        if !self.nodes[here].has_memory() {
            return false;
        }
        let tiering = self.balancing.has(BALANCE_TIERING);
        let from_top = self.nodes.is_top_tier(source);
        if tiering && !from_top {
            return self.should_promote(head, here);
        }
        let (cpu, preferred, seen_seq) = {
            let task = &self.tasks[&id];
            (task.cpu, task.balance.preferred, task.balance.seen_seq)
        };
        let last = self.frames.cpupid(head);
        self.frames.set_cpupid(head, cpupid(id, cpu));
        let pid_unset = last & 0xff == 0xff;
        if !tiering && !from_top && last == u32::MAX {
            return false;
        }
        let mine = is_same_thread(last, id);
        if (preferred.is_none() || seen_seq <= EARLY_PASSES) && (pid_unset || mine) {
            return true;
        }
        // The two-stage filter: the fault before this one came from the same node.
        let last_cpu = machine::CpuId::new(last >> 8);
        pid_unset || last_cpu.is_some_and(|cpu| self.nodes.of_cpu(cpu) == here)
    }
}
