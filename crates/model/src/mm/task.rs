//! Tasks: who they are, what they may do, and which address space they use.

use machine::{CpuId, NodeId, NodeSet};

use crate::Machine;
use crate::balance::TaskBalance;
use crate::errno::Errno;
use crate::memory::frames::Pfn;
use crate::mm::address_space::MmId;
use crate::policy::cpuset::CpusetId;
use crate::policy::mempolicy::MemPolicy;

/// A thread by its number; a process is named by any of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) i32);

impl TaskId {
    /// The number that system calls take.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The number as bits, for hashes and for the words of balancing.
    pub(crate) const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }
}

/// What a task is and may do (spec 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user id; the group ids are the same in this model.
    pub uids: [u32; 3],
    /// `CAP_SYS_NICE` in the initial user namespace.
    pub sys_nice: bool,
    /// `CAP_SYS_PTRACE` over other processes.
    pub sys_ptrace: bool,
}

impl Credentials {
    /// The superuser's.
    pub const ROOT: Self = Self { uids: [0; 3], sys_nice: true, sys_ptrace: true };
}

/// The rotor of a thread's interleave policy (spec 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct Rotor {
    pub(crate) previous: Option<NodeId>,
    pub(crate) weight_left: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    /// The thread group.
    pub(crate) process: TaskId,
    /// `None`: a kernel thread, or a zombie.
    pub(crate) mm: Option<MmId>,
    pub(crate) credentials: Credentials,
    pub(crate) cpu: CpuId,
    pub(crate) policy: Option<MemPolicy>,
    pub(crate) rotor: Rotor,
    pub(crate) cpuset: CpusetId,
    pub(crate) mems_allowed: NodeSet,
    /// References that this process holds through pipes and buffers.
    pub(crate) pins: Vec<Pfn>,
    pub(crate) balance: TaskBalance,
}

impl Machine {
    /// Starts a process on CPU `cpu` with an address space that holds the vdso and its data.
    ///
    /// # Panics
    ///
    /// Never: a new address space has room for the vdso.
    pub fn spawn(&mut self, credentials: Credentials, cpu: CpuId) -> TaskId {
        let id = self.new_task_id();
        let mm = self.new_address_space();
        let task = Task {
            process: id,
            mm: Some(mm),
            credentials,
            cpu,
            policy: None,
            rotor: Rotor::default(),
            cpuset: CpusetId::ROOT,
            mems_allowed: self.cpusets.effective(CpusetId::ROOT),
            pins: Vec::new(),
            balance: TaskBalance::default(),
        };
        self.tasks.insert(id, task);
        self.map_vdso(id);
        id
    }

    /// Starts a kernel thread: a task without an address space.
    ///
    /// # Panics
    ///
    /// Never: 0 is a CPU number.
    pub fn spawn_kthread(&mut self) -> TaskId {
        let id = self.spawn(Credentials::ROOT, CpuId::new(0).expect("0 is a CPU number"));
        self.exit(id);
        id
    }

    pub(crate) fn new_task_id(&mut self) -> TaskId {
        self.last_task += 1;
        TaskId(self.last_task)
    }

    /// Ends a thread; the last one of an address space takes the memory with it. The task stays as
    /// a zombie until [`Machine::reap`].
    pub fn exit(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let pins = std::mem::take(&mut task.pins);
        let mm = task.mm.take();
        pins.into_iter().for_each(|page| self.drop_reference(page));
        if let Some(mm) = mm {
            let is_last = self.mm(mm).users == 1;
            self.leave_address_space(mm);
            if is_last {
                self.lru_drain_after_unmap(id);
            }
        }
    }

    /// Removes a zombie.
    pub fn reap(&mut self, id: TaskId) {
        self.exit(id);
        self.tasks.remove(&id);
    }

    /// Binds a thread to a CPU.
    ///
    /// # Errors
    ///
    /// `ESRCH`: no such task. `EINVAL`: no such CPU.
    pub fn set_cpu(&mut self, id: TaskId, cpu: CpuId) -> Result<(), Errno> {
        if !self.topology.cpus().contains(cpu) {
            return Err(Errno::EINVAL);
        }
        self.tasks.get_mut(&id).ok_or(Errno::ESRCH)?.cpu = cpu;
        Ok(())
    }

    /// The CPU that a thread is bound to.
    pub fn cpu(&self, id: TaskId) -> Option<CpuId> {
        self.tasks.get(&id).map(|task| task.cpu)
    }

    /// Changes who a thread is. Its address space becomes dumpable again.
    pub fn set_credentials(&mut self, id: TaskId, credentials: Credentials) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.credentials = credentials;
        }
        self.set_dumpable(id, true);
    }

    /// The credentials of a task.
    pub fn credentials(&self, id: TaskId) -> Option<Credentials> {
        self.tasks.get(&id).map(|task| task.credentials)
    }

    /// prctl(2), `PR_SET_DUMPABLE`.
    pub fn set_dumpable(&mut self, id: TaskId, dumpable: bool) {
        if let Some(mm) = self.tasks.get(&id).and_then(|task| task.mm) {
            self.mm_mut(mm).dumpable = dumpable;
        }
    }

    /// The nodes that a thread's cpuset allows (`Mems_allowed` in `/proc/PID/status`).
    pub fn mems_allowed(&self, id: TaskId) -> Option<NodeSet> {
        self.tasks.get(&id).map(|task| task.mems_allowed)
    }

    /// `ptrace_may_access(task, READ | REALCREDS)`: spec 1.2.
    pub(crate) fn may_look_into(&self, caller: TaskId, target: TaskId) -> bool {
        let (caller, target) = (&self.tasks[&caller], &self.tasks[&target]);
        if caller.process == target.process {
            return true;
        }
        let capable = caller.credentials.sys_ptrace;
        let same = target.credentials.uids.iter().all(|&id| id == caller.credentials.uids[0]);
        if !same && !capable {
            return false;
        }
        // A task without memory has nothing that could be dumped.
        let dumpable = target.mm.is_none_or(|mm| self.mm(mm).dumpable);
        dumpable || capable
    }

    /// The nodes that a target may be given: cpuset and memory (`cpuset_mems_allowed`).
    pub(crate) fn allowed_mems(&self, task: TaskId) -> NodeSet {
        self.cpusets.effective(self.tasks[&task].cpuset).intersection(&self.nodes.with_memory)
    }
}
