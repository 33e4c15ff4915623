//! migrate_pages(2): move all pages of a process from some nodes to others.

use crate::Machine;
use crate::errno::Errno;
use crate::mm::task::TaskId;
use crate::observe::call_path::Caller;
use crate::syscall::user::{UserMemory, read_mask};

impl Machine {
    /// `migrate_pages(pid, maxnode, old_nodes, new_nodes)`: the number of folios that stayed.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`, `EFAULT`: a mask; `ESRCH`: no such process; `EPERM`:
    /// no access to it, or a node outside its cpuset without `CAP_SYS_NICE`; `EINVAL`: no node is
    /// left, or it has no memory of its own; `ENOMEM`: a target ran full.
    ///
    /// # Panics
    ///
    /// When `caller` does not exist.
    ///
    /// Source: migrate_pages(2); behaviour spec 2.1; mm/mempolicy.c, `kernel_migrate_pages`.
    pub fn migrate_pages(
        &mut self,
        user: &dyn UserMemory,
        caller: TaskId,
        pid: i32,
        maxnode: u64,
        old_nodes: u64,
        new_nodes: u64,
    ) -> Result<i64, Errno> {
        self.look_for_pid_early(pid)?;
        let from = read_mask(user, old_nodes, maxnode)?;
        let mut to = read_mask(user, new_nodes, maxnode)?;
        let target = if pid == 0 { caller } else { TaskId(pid) };
        if !self.tasks.contains_key(&target) {
            return Err(Errno::ESRCH);
        }
        if !self.may_look_into(caller, target) {
            return Err(Errno::EPERM);
        }
        let sys_nice = self.tasks[&caller].credentials.sys_nice;
        if !to.is_subset(&self.allowed_mems(target)) && !sys_nice {
            return Err(Errno::EPERM);
        }
        to = to.intersection(&self.allowed_mems(caller));
        if to.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mm = self.mm_of(target).ok_or(Errno::EINVAL)?;
        let by = self.allocator(caller);
        let stayed = self.do_migrate_pages(mm, &from, &to, sys_nice, Caller::MigratePages, &by)?;
        Ok(i64::try_from(stayed).unwrap_or(i64::MAX).min(i64::from(i32::MAX)))
    }
}
