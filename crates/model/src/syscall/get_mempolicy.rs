//! get_mempolicy(2): a policy, the node of a page, or the allowed nodes.

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::convert::index;
use crate::errno::Errno;
use crate::mm::fault::Access;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::page_table::EntryKind;
use crate::mm::task::TaskId;
use crate::policy::mempolicy::{MemPolicy, PolicyMode};
use crate::syscall::user::UserMemory;

const NODE: u64 = 1 << 0;
const ADDR: u64 = 1 << 1;
const MEMS_ALLOWED: u64 = 1 << 2;
/// Bytes of the longest mask that may be asked for.
const MASK_BYTES_MAX: u64 = 4096;

/// The arguments of a call.
#[derive(Clone, Copy, Debug)]
pub struct GetMempolicyArgs {
    /// Where the mode word goes; 0: nowhere.
    pub mode: u64,
    /// Where the mask goes; 0: nowhere.
    pub mask: u64,
    /// Bits of the mask, plus one.
    pub maxnode: u64,
    /// An address of the caller, with `MPOL_F_ADDR`.
    pub address: u64,
    /// `MPOL_F_*`.
    pub flags: u64,
}

impl Machine {
    /// `get_mempolicy(mode, mask, maxnode, address, flags)`.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`: a mask that is too short for the machine, flags, an
    /// address without `MPOL_F_ADDR`; `EFAULT`: no mapping or page there; `EINVAL`: no rotor to
    /// ask for; `EFAULT`, `EINVAL`: the answer cannot be stored (the mode word goes first).
    ///
    /// # Panics
    ///
    /// When `caller` does not exist or has no memory.
    ///
    /// Source: get_mempolicy(2); behaviour spec 4.4; mm/mempolicy.c, `do_get_mempolicy`.
    pub fn get_mempolicy(
        &mut self,
        user: &mut dyn UserMemory,
        caller: TaskId,
        args: GetMempolicyArgs,
    ) -> Result<(), Errno> {
        if self.is_mask_too_short(args) {
            return Err(Errno::EINVAL);
        }
        let (word, nodes) = self.mempolicy_of(caller, args.address, args.flags)?;
        if args.mode != 0 {
            user.write(args.mode, &word.to_le_bytes())?;
        }
        if args.mask != 0 { self.write_mask(user, args, &nodes) } else { Ok(()) }
    }

    /// Whether the mask has no room for the nodes of the machine: then nothing else is looked at.
    pub fn is_mask_too_short(&self, args: GetMempolicyArgs) -> bool {
        args.mask != 0 && args.maxnode < self.node_ids()
    }

    /// One more than the highest node number of the machine (`nr_node_ids`).
    fn node_ids(&self) -> u64 {
        self.nodes.list.last().map_or(0, |node| u64::from(node.id.get()) + 1)
    }

    fn mempolicy_of(
        &mut self,
        caller: TaskId,
        address: u64,
        flags: u64,
    ) -> Result<(i32, NodeSet), Errno> {
        if flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & MEMS_ALLOWED != 0 {
            if flags & (NODE | ADDR) != 0 {
                return Err(Errno::EINVAL);
            }
            return Ok((0, self.tasks[&caller].mems_allowed));
        }
        let mm = self.mm_of(caller).expect("a task that runs has memory");
        let policy = if flags & ADDR != 0 {
            let page = address / PAGE_BYTES;
            let vma = self.mm(mm).vma(page).ok_or(Errno::EFAULT)?;
            self.vma_policy(vma, page)
        } else if address != 0 {
            return Err(Errno::EINVAL);
        } else {
            self.tasks[&caller].policy
        };
        let word = match flags & (NODE | ADDR) {
            0 | ADDR => policy.map_or(0, |policy| policy.word()),
            NODE => self.next_of_rotor(caller, policy)?.as_raw(),
            _ => self.node_of_page(caller, address)?.as_raw(),
        };
        let nodes = policy.map_or(NodeSet::EMPTY, |policy| policy.shown_nodes(self.behaviour));
        Ok((word, nodes))
    }

    /// Node of a page, which is faulted in for reading; the zero page is part of the kernel image.
    fn node_of_page(&mut self, caller: TaskId, address: u64) -> Result<NodeId, Errno> {
        self.access(caller, address, Access::Read).map_err(|_| Errno::EFAULT)?;
        let mm = self.mm_of(caller).expect("a task that runs has memory");
        let (entry, _) = self.entry(mm, address / PAGE_BYTES);
        match entry.kind() {
            EntryKind::Zero => Ok(self.nodes[self.nodes.of_kernel_image()].id),
            _ => entry.mapped().map(|pfn| self.nodes.id_of(pfn)).ok_or(Errno::EFAULT),
        }
    }

    /// The node that the thread's rotor stands at (spec 4.4, NODE).
    fn next_of_rotor(&self, caller: TaskId, policy: Option<MemPolicy>) -> Result<NodeId, Errno> {
        let policy = policy.ok_or(Errno::EINVAL)?;
        let rotor = self.tasks[&caller].rotor;
        let after = |node: NodeId| policy.nodes.iter().find(|&next| next > node);
        let next = rotor.previous.and_then(after).or_else(|| policy.nodes.first());
        match policy.mode {
            PolicyMode::Interleave => next.ok_or(Errno::EINVAL),
            PolicyMode::WeightedInterleave if rotor.weight_left > 0 => {
                rotor.previous.ok_or(Errno::EINVAL)
            }
            PolicyMode::WeightedInterleave => next.ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whole 64-bit words, with zeroes behind the machine's nodes (`copy_nodes_to_user`). Rounding up
    /// wraps as there: from `maxnode` 2^64 - 62 on nothing is written.
    fn write_mask(
        &self,
        user: &mut dyn UserMemory,
        args: GetMempolicyArgs,
        nodes: &NodeSet,
    ) -> Result<(), Errno> {
        let bytes = (args.maxnode.wrapping_sub(1).wrapping_add(63) & !63) / 8;
        let known = self.node_ids().div_ceil(64) * 8;
        if bytes > known && bytes > MASK_BYTES_MAX {
            return Err(Errno::EINVAL);
        }
        let mut mask: Vec<u8> = nodes.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        if bytes > known {
            // The kernel clears what lies behind its nodes, whatever the policy remembers there.
            mask.truncate(index(known));
        }
        mask.resize(index(bytes), 0);
        user.write(args.mask, &mask)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use machine::{Bytes, CpuId, Node, Topology};

    use super::*;
    use crate::syscall::user::Buffers;
    use crate::{Credentials, KernelVersion, MapKind, Options, Protection};

    const MODE: u64 = 0x1000;
    const MASK: u64 = 0x2000;
    const AREA: u64 = 0x10_0000_0000;

    fn id(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// A process on a machine whose nodes have this much memory; each is nearer to the last one than
    /// to others. All CPUs are on the first.
    fn process(version: KernelVersion, mib: &[u64]) -> (Machine, TaskId) {
        let node = |(number, &mib): (u16, &u64)| Node {
            id: id(number),
            cpus: if number == 0 { "0" } else { "" }.parse().unwrap(),
            memory: Bytes::new(mib << 20),
            free: None,
            tier: None,
            latency_ns: None,
            bandwidth_per_s: None,
        };
        let nodes = (0..).zip(mib).map(node).collect();
        let last = mib.len() - 1;
        let distance = |from, to| match (from == to, from == last || to == last) {
            (true, _) => 10,
            (false, true) => 20,
            (false, false) => 30,
        };
        let row = |from| (0..mib.len()).map(|to| distance(from, to)).collect();
        let distances = (0..mib.len()).map(row).collect();
        let topology = Topology::new("some", nodes, Some(distances)).unwrap();
        let mut machine = Machine::boot(topology, version, Options::default());
        let task = machine.spawn(Credentials::ROOT, CpuId::new(0).unwrap());
        (machine, task)
    }

    #[test]
    fn a_mask_whose_length_wraps_around_is_none() {
        for version in KernelVersion::ALL {
            let (mut machine, task) = process(version, &[64]);
            let mut get = |maxnode: u64| {
                let mut user = Buffers::default();
                user.put(MODE, vec![0xff; 4]);
                user.put(MASK, vec![0xff; 8]);
                let args =
                    GetMempolicyArgs { mode: MODE, mask: MASK, maxnode, address: 0, flags: 0 };
                let result = machine.get_mempolicy(&mut user, task, args);
                (result, user.get(MODE).to_vec(), user.get(MASK).to_vec())
            };
            for maxnode in [1, u64::MAX, u64::MAX - 61] {
                assert_eq!(get(maxnode), (Ok(()), vec![0; 4], vec![0xff; 8]), "{maxnode:#x}");
            }
            for maxnode in [u64::MAX - 62, u64::MAX - 63, 1 << 63, 32_770] {
                assert_eq!(get(maxnode).0, Err(Errno::EINVAL), "{maxnode:#x}");
            }
        }
    }

    #[test]
    fn the_zero_page_and_the_vdso_are_on_the_first_node_that_has_memory() {
        for version in KernelVersion::ALL {
            let (mut machine, task) = process(version, &[0, 64, 64]);
            machine.mmap(task, AREA, 1, MapKind::Anon, Protection::READ_WRITE).unwrap();
            for address in [AREA, crate::VDSO_ADDRESS] {
                assert_eq!(machine.node_of_page(task, address), Ok(id(1)), "{address:#x}");
            }
        }
    }
}
