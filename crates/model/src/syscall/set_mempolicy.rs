//! set_mempolicy(2): the policy of a thread.

use crate::Machine;
use crate::errno::Errno;
use crate::mm::task::{Rotor, TaskId};
use crate::policy::mempolicy::{MemPolicy, ModeWord};
use crate::syscall::user::{UserMemory, read_mask};

impl Machine {
    /// `set_mempolicy(mode, mask, maxnode)`. Moves nothing.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`: mode; `EINVAL`, `EFAULT`: mask; `EINVAL`: nodes that
    /// do not fit the mode or the cpuset.
    ///
    /// # Panics
    ///
    /// When `caller` does not exist.
    ///
    /// Source: set_mempolicy(2); behaviour spec 4.2; mm/mempolicy.c, `do_set_mempolicy`.
    pub fn set_mempolicy(
        &mut self,
        user: &dyn UserMemory,
        caller: TaskId,
        mode: i32,
        mask: u64,
        maxnode: u64,
    ) -> Result<(), Errno> {
        let word = ModeWord::parse(mode, self.behaviour)?;
        let nodes = read_mask(user, mask, maxnode)?;
        let policy = match MemPolicy::new(word, &nodes)? {
            Some(policy) => Some(self.contextualise(caller, policy, &nodes)?),
            None => None,
        };
        let task = self.tasks.get_mut(&caller).expect("the caller exists");
        task.policy = policy;
        task.rotor = Rotor::default();
        Ok(())
    }
}
