//! Adoption: processes that live elsewhere, whose pages exist already and only need a place.
//!
//! `pagetide run` has real processes and a real kernel's word for which pages they have. It mirrors
//! their mappings here ([`Machine::mirror`]), then says of each run of pages what it is
//! ([`Machine::place`]) or that it is gone ([`Machine::forget`]). What is placed goes where a first
//! touch by that thread would have put it; what has a place keeps it. Whether pages are huge is the
//! caller's word too, not [`crate::ThpMode`]'s.
//!
//! Here: tasks with the numbers of real ones, and the files of the kernel. [`mirror`]: mappings;
//! [`place`]: pages; [`known`]: what there is.

mod known;
mod mirror;
mod place;
#[cfg(test)]
mod tests;

pub use self::mirror::Mirrored;
pub use self::place::Found;

use crate::Machine;
use crate::memory::owner::FileId;
use crate::mm::task::TaskId;

impl Machine {
    /// The next task has the number after this one, as after a write to
    /// `/proc/sys/kernel/ns_last_pid`.
    pub fn set_last_task(&mut self, number: i32) {
        self.last_task = number;
    }

    /// The task with this number.
    pub fn task(&self, number: i32) -> Option<TaskId> {
        let id = TaskId(number);
        self.tasks.contains_key(&id).then_some(id)
    }

    /// execve(2) by the thread `by` of a process: an empty address space (not even a vdso), and the
    /// policy and CPU of that thread. The other threads are the caller's to end.
    pub fn exec(&mut self, process: TaskId, by: TaskId) {
        let mm = self.new_address_space();
        let (policy, rotor, cpu) = match self.tasks.get(&by) {
            Some(by) => (by.policy, by.rotor, by.cpu),
            None => return,
        };
        let Some(task) = self.tasks.get_mut(&process) else { return };
        (task.policy, task.rotor, task.cpu) = (policy, rotor, cpu);
        if let Some(old) = task.mm.replace(mm) {
            self.leave_address_space(old);
        }
    }

    /// fork(2) and execve(2) in one: a process with all that `parent` hands on, and an empty address
    /// space. `None`: no such task.
    pub fn spawn_like(&mut self, parent: TaskId) -> Option<TaskId> {
        if !self.tasks.contains_key(&parent) {
            return None;
        }
        let mm = self.new_address_space();
        let id = self.new_task_id();
        let task = self.copy_task(parent, id, mm);
        self.tasks.insert(id, task);
        Some(id)
    }

    /// Whether a first touch by either task would put a page of private memory on the same node.
    pub fn places_alike(&self, one: TaskId, other: TaskId) -> bool {
        let placing = |task| {
            let task = self.tasks.get(&task)?;
            Some((task.policy, self.nodes.of_cpu(task.cpu), task.mems_allowed))
        };
        placing(one).is_some_and(|placing_of_one| Some(placing_of_one) == placing(other))
    }

    /// The files of the vdso and of its data, for mirroring.
    pub const fn vdso_files(&self) -> (FileId, FileId) {
        (self.vdso, self.vvar)
    }
}
