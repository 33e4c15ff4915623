//! set_mempolicy_home_node(2): where the allocations of a BIND range start.

use machine::NodeId;

use crate::Machine;
use crate::errno::Errno;
use crate::mm::address_space::MmId;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::policy::mempolicy::PolicyMode;

impl Machine {
    /// `set_mempolicy_home_node(start, length, node, flags)`. Moves nothing.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`: alignment, flags, a node that is not online, a range
    /// that wraps; `EOPNOTSUPP`: a policy of another mode than BIND and PREFERRED_MANY (mappings
    /// before it keep the change); `ENOENT`: no policy in the range.
    ///
    /// # Panics
    ///
    /// When `caller` does not exist or has no memory.
    ///
    /// Source: set_mempolicy_home_node(2); behaviour spec 4.5.
    pub fn set_mempolicy_home_node(
        &mut self,
        caller: TaskId,
        start: u64,
        length: u64,
        node: u64,
        flags: u64,
    ) -> Result<(), Errno> {
        if !start.is_multiple_of(PAGE_BYTES) || flags != 0 {
            return Err(Errno::EINVAL);
        }
        let node = u16::try_from(node).ok().and_then(NodeId::new).ok_or(Errno::EINVAL)?;
        if self.nodes.slot(node).is_none() {
            return Err(Errno::EINVAL);
        }
        let length = length.wrapping_add(PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
        if end == start {
            return Ok(());
        }
        let mm = self.mm_of(caller).expect("a task that runs has memory");
        self.set_home(mm, start / PAGE_BYTES, end / PAGE_BYTES, node)
    }

    fn set_home(&mut self, mm: MmId, start: u64, end: u64, node: NodeId) -> Result<(), Errno> {
        let mut result = Err(Errno::ENOENT);
        let mut page = start;
        while let Some(vma) = {
            let mm = self.mm(mm);
            mm.vmas.get(mm.find_from(page)).filter(|vma| vma.start < end).cloned()
        } {
            page = vma.end;
            let from = vma.start.max(start);
            // The mapping's own: of shared memory, what another process has set does not count.
            let Some(mut policy) = vma.policy.as_deref().copied() else { continue };
            if !matches!(policy.mode, PolicyMode::Bind | PolicyMode::PreferredMany) {
                return Err(Errno::EOPNOTSUPP);
            }
            policy.home = Some(node);
            self.install(mm, (from, vma.end.min(end)), Some(policy))?;
            result = Ok(());
        }
        result
    }
}
