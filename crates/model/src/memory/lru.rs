//! The LRU, as far as migration sees it: whether a folio is on it, and the per-CPU batches in
//! which new folios wait to get there.
//!
//! There is no list: reclaim walks the frames of a node like a clock (`crate::reclaim`), which
//! keeps a TiB of simulated memory within its budget. A folio in a batch cannot be isolated; the
//! system calls drain the batches first, automatic balancing does not (spec 1.5). A batch holds a
//! reference to its folios too, and keeps a store after a fork from taking such a page over
//! (`wp_can_reuse_anon_folio`): which calls empty the batch of their CPU decides where the copy
//! goes.

use machine::CpuId;

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::mm::task::TaskId;

impl Machine {
    /// A new folio is to go on the LRU.
    pub(crate) fn lru_add(&mut self, head: Pfn, cpu: CpuId) {
        if self.behaviour.new_pages_are_active && self.frames.owner(head).is_anon() {
            self.frames.set(head, flag::ACTIVE);
        }
        if self.frames.order(head) > 0 {
            // A large folio does not wait, and neither does what waits before it.
            self.frames.set(head, flag::LRU);
            self.lru_drain(cpu);
            return;
        }
        self.frames.set(head, flag::IN_LRU_BATCH);
        let cpu = cpu.get() as usize;
        if self.lru_batches.len() <= cpu {
            self.lru_batches.resize(cpu + 1, Vec::new());
        }
        self.lru_batches[cpu].push(head);
        if self.lru_batches[cpu].len() >= self.behaviour.lru_batch {
            self.drain_batch(cpu);
        }
    }

    /// Empties every CPU's batch (`lru_add_drain_all`).
    pub(crate) fn lru_drain_all(&mut self) {
        let cpus = self.lru_batches.len().max(self.cold_batches.len());
        (0..cpus).for_each(|cpu| self.drain_batches(cpu));
    }

    /// Empties the batch of one CPU (`lru_add_drain`).
    pub(crate) fn lru_drain(&mut self, cpu: CpuId) {
        self.drain_batches(cpu.get() as usize);
    }

    /// Empties the batch of the CPU that a task is on, as a task does that populates memory of its
    /// own (`populate_vma_page_range`).
    pub fn drain_lru_batch(&mut self, task: TaskId) {
        if let Some(task) = self.tasks.get(&task) {
            self.lru_drain(task.cpu);
        }
    }

    /// Memory of a task was unmapped: until 6.12 that empties the batch of its CPU.
    pub(crate) fn lru_drain_after_unmap(&mut self, task: TaskId) {
        if self.behaviour.unmap_drains_lru {
            self.drain_lru_batch(task);
        }
    }

    /// MADV_COLD of a page that is on the LRU: it stays there, but since 6.12 a batch of its own
    /// holds a reference to it, and a store that would take it over does not empty that
    /// (`folio_deactivate`).
    pub(crate) fn lru_deactivate(&mut self, head: Pfn, cpu: CpuId) {
        let waits = self.behaviour.cold_pages_wait && self.frames.order(head) == 0;
        if !waits || !self.frames.has(head, flag::LRU) {
            return;
        }
        let cpu = cpu.get() as usize;
        if self.cold_batches.len() <= cpu {
            self.cold_batches.resize(cpu + 1, Vec::new());
        }
        self.frames.add_reference(head);
        self.cold_batches[cpu].push(head);
        if self.cold_batches[cpu].len() >= self.behaviour.lru_batch {
            self.drain_cold_batch(cpu);
        }
    }

    fn drain_batches(&mut self, cpu: usize) {
        if cpu < self.lru_batches.len() {
            self.drain_batch(cpu);
        }
        if cpu < self.cold_batches.len() {
            self.drain_cold_batch(cpu);
        }
    }

    fn drain_cold_batch(&mut self, cpu: usize) {
        let cold = std::mem::take(&mut self.cold_batches[cpu]);
        cold.into_iter().for_each(|head| self.drop_reference(head));
    }

    fn drain_batch(&mut self, cpu: usize) {
        for pfn in self.lru_batches[cpu].drain(..) {
            self.frames.exchange(pfn, flag::IN_LRU_BATCH, flag::LRU);
        }
    }

    /// A folio is freed before it reached the LRU.
    #[cold]
    pub(crate) fn leave_lru_batches(&mut self, head: Pfn) {
        self.lru_batches.iter_mut().for_each(|batch| batch.retain(|&pfn| pfn != head));
        self.frames.clear(head, flag::IN_LRU_BATCH);
    }

    /// Takes a folio off the LRU for migration or reclaim: one reference more. Fails when it is
    /// not there: isolated already, in a batch, or never on it (spec 1.5).
    #[inline]
    pub(crate) fn isolate(&mut self, head: Pfn) -> bool {
        let on_list = self.frames.has(head, flag::LRU);
        if on_list {
            self.frames.exchange(head, flag::LRU, flag::ISOLATED);
        }
        on_list
    }

    /// Puts an isolated folio back where it was; one that nobody uses any more is freed.
    pub(crate) fn put_back(&mut self, head: Pfn) {
        self.frames.exchange(head, flag::ISOLATED, flag::LRU);
        self.free_if_unused(head);
    }
}
