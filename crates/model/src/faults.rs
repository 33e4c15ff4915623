//! Faults that can be planted in the model, to see that the tests find them.
//!
//! Only a build with the feature `faults` can plant one (`Machine::plant`); the tests of the
//! conformance crate turn it on, and no program does (a test of the house rules looks). Without the
//! feature [`Machine::planted`] is `false` at compile time, and the hooks are gone. A hook is one
//! line at the place of the fault.

use crate::Machine;
use crate::errno::Errno;
use crate::mm::task::TaskId;
use crate::policy::mempolicy::mode_flag;

/// What can be wrong, and what it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlantedFault {
    /// migrate_pages(2) looks for the process before it reads the masks: `ESRCH` where the kernel
    /// says `EFAULT` or `EINVAL`.
    PidBeforeMasks,
    /// What the first, unwaiting attempt left is not tried one by one: a failure is not told.
    RetryLost,
    /// Node pairs in ascending order: a node is filled before it is emptied, and pages move twice.
    PairsAscending,
    /// move_pages(2) without `MPOL_MF_MOVE_ALL` moves pages that others map too.
    MapcountUnchecked,
    /// Interleaving starts one node late.
    InterleaveLate,
    /// mbind(2) with `MPOL_MF_STRICT` succeeds though pages stayed.
    StrictForgotten,
    /// `pgmigrate_fail` never counts.
    FailuresUncounted,
    /// A cpuset that changes rebinds policies with `MPOL_F_STATIC_NODES` as if they had none.
    StaticRebound,
    /// A partially mapped THP moves whole.
    SplitForgotten,
    /// move_pages(2) goes on behind a batch of which a page stayed.
    BatchFailureIgnored,
    /// A child starts with the default policy.
    PolicyNotInherited,
    /// move_pages(2) moves pages out of the target's cpuset.
    CpusetUnchecked,
    /// The copy of a page is empty.
    CopyForgotten,
}

impl PlantedFault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::PidBeforeMasks,
        Self::RetryLost,
        Self::PairsAscending,
        Self::MapcountUnchecked,
        Self::InterleaveLate,
        Self::StrictForgotten,
        Self::FailuresUncounted,
        Self::StaticRebound,
        Self::SplitForgotten,
        Self::BatchFailureIgnored,
        Self::PolicyNotInherited,
        Self::CpusetUnchecked,
        Self::CopyForgotten,
    ];
}

impl Machine {
    /// Plants a fault, in place of the one that was planted before.
    #[cfg(feature = "faults")]
    pub const fn plant(&mut self, fault: PlantedFault) {
        self.planted = Some(fault);
    }

    /// Whether this fault is planted.
    #[cfg(feature = "faults")]
    pub(crate) fn planted(&self, fault: PlantedFault) -> bool {
        self.planted == Some(fault)
    }

    /// Whether this fault is planted: never.
    #[cfg(not(feature = "faults"))]
    pub(crate) const fn planted(&self, _: PlantedFault) -> bool {
        false
    }

    /// [`PlantedFault::PidBeforeMasks`]
    pub(crate) fn look_for_pid_early(&self, pid: i32) -> Result<(), Errno> {
        let early = self.planted(PlantedFault::PidBeforeMasks);
        if early && pid != 0 && !self.tasks.contains_key(&TaskId(pid)) {
            return Err(Errno::ESRCH);
        }
        Ok(())
    }

    /// [`PlantedFault::StaticRebound`]
    pub(crate) fn forget_static(&mut self, task: TaskId) {
        if !self.planted(PlantedFault::StaticRebound) {
            return;
        }
        let Some(task) = self.tasks.get_mut(&task) else { return };
        let changes = self.cpusets.effective(task.cpuset) != task.mems_allowed;
        if let Some(policy) = task.policy.as_mut().filter(|_| changes) {
            policy.flags &= !mode_flag::STATIC;
        }
    }
}
