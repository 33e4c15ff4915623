//! The verbs: one variant of [`Step`] for each thing that a process of a scenario can do.

use crate::{Mask, Mode, MoveTarget, Pid, Place, Pointer};

/// The steps of a case, in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scenario {
    /// What is done.
    pub acts: Vec<Act>,
}

impl Scenario {
    /// Whether any step is so.
    pub fn has(&self, is_wanted: impl Fn(&Step) -> bool) -> bool {
        self.acts.iter().any(|act| is_wanted(&act.step))
    }
}

/// One step, and who performs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Nothing happens in the process between the step before and this one.
    pub joined: bool,
    /// Who performs it.
    pub actor: Actor,
    /// What is done.
    pub step: Step,
}

/// A process or thread of a scenario by its letter; `P` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actor(pub char);

impl Actor {
    /// The process that every scenario starts with.
    pub const FIRST: Self = Self('P');
}

/// What backs a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory.
    Anon,
    /// Anonymous memory with MADV_HUGEPAGE.
    Thp,
    /// Shared anonymous memory.
    Shm,
    /// A memfd.
    Memfd,
    /// A file on tmpfs.
    Tmpfs,
    /// A file on ramfs.
    Ramfs,
    /// Private hugetlb memory of 2 MiB pages.
    Huge,
    /// Shared hugetlb memory of 2 MiB pages.
    HugeShared,
    /// A memfd_secret.
    Secret,
}

/// Access rights that mprotect(2) gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// No access.
    None,
    /// Read only.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Advice of madvise(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// MADV_COLD.
    Cold,
    /// MADV_COLLAPSE.
    Collapse,
    /// MADV_DONTNEED.
    DontNeed,
    /// MADV_HUGEPAGE.
    HugePage,
    /// MADV_MERGEABLE.
    Mergeable,
    /// MADV_PAGEOUT.
    PageOut,
    /// MADV_POPULATE_READ.
    PopulateRead,
    /// MADV_POPULATE_WRITE.
    PopulateWrite,
}

/// Which user id is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and group, real, effective and saved.
    All,
    /// The real user id alone.
    Real,
    /// The effective user id alone.
    Effective,
}

/// One thing that is done. Fields are the arguments of the call behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant says what its fields are; the names are the call's")]
pub enum Step {
    /// mmap(2) of `pages` pages as area `area`.
    Map { area: char, pages: u64, kind: Kind, of: Option<char>, private: bool, at: Option<u64> },
    /// Write page i while the thread policy is BIND to digit i; the last digit goes on.
    Fill { place: Place, digits: Vec<u8> },
    /// Write one byte of each page.
    Touch(Place),
    /// Read one byte of each page.
    Read(Place),
    /// Fill the pages with a byte.
    Store(Place, u8),
    /// Compare the pages with a byte.
    Check(Place, u8),
    /// Bind the thread to a CPU.
    Cpu(u32),
    /// mprotect(2).
    Protect(Place, Protection),
    /// mlock(2).
    Lock(Place),
    /// mlock2(2) with MLOCK_ONFAULT.
    LockOnFault(Place),
    /// munmap(2).
    Unmap(Place),
    /// madvise(2).
    Advise(Place, Advice),
    /// vmsplice(2) of each page into a pipe: one extra reference.
    Pin(Place),
    /// Close the pipe.
    Unpin,
    /// fork(2).
    Fork(Actor),
    /// A new thread.
    Thread(Actor),
    /// The actor exits and stays a zombie.
    Exit,
    /// Reap a child.
    Wait(Actor),
    /// SIGSTOP.
    Stop,
    /// Become another user.
    User(Credential, u32),
    /// Drop CAP_SYS_NICE.
    Drop,
    /// prctl(PR_SET_DUMPABLE, 0).
    NoDump,
    /// unshare(CLONE_NEWUSER).
    UserNamespace,
    /// migrate_pages(2).
    MigratePages { pid: Pid, from: Mask, to: Mask, maxnode: u64 },
    /// move_pages(2). `pages` has places, each with how often it is named.
    MovePages {
        pid: Pid,
        pages: Vec<(Place, u64)>,
        nodes: MoveTarget,
        flags: u64,
        count: Option<u64>,
        pages_at: Pointer,
        nodes_at: Pointer,
        status_at: Pointer,
    },
    /// mbind(2).
    Mbind { place: Place, mode: Mode, mask: Mask, flags: u64, len: Option<u64>, maxnode: u64 },
    /// set_mempolicy(2).
    SetMempolicy { mode: Mode, mask: Mask, maxnode: u64 },
    /// get_mempolicy(2).
    GetMempolicy {
        flags: u64,
        addr: Option<Place>,
        mode_at: Pointer,
        mask_at: Pointer,
        maxnode: Option<u64>,
    },
    /// set_mempolicy_home_node(2).
    HomeNode { place: Place, node: u64, flags: u64, len: Option<u64> },
    /// Make a cgroup, with its `cpuset.mems`.
    Cgroup { name: String, mems: Option<String> },
    /// Write `cpuset.mems`.
    CgroupSet { name: String, mems: String },
    /// Put a process into a cgroup.
    CgroupJoin { name: String, who: Option<Actor> },
    /// Read `cpuset.mems.effective`.
    CgroupEffective { name: String },
    /// Set the number of 2 MiB hugetlb pages of a node.
    Pool { node: u16, pages: u64 },
    /// Total and free hugetlb pages of each node.
    Pools,
    /// Read or write a weight of weighted interleave.
    Weight { node: u16, value: Option<String> },
    /// Fill a node until an allocation leaves it, then give some MiB back.
    Hog { node: u16, give_back_mib: u64 },
    /// On which node each page is.
    Where(Vec<Place>),
    /// PMD-mapped units and compound heads of a range.
    HugeUnits(Place),
    /// Change of the migration counters since the last look.
    Counters,
    /// Bits of `/proc/PID/pagemap`.
    Pagemap(Place),
    /// The line of `/proc/PID/numa_maps`.
    NumaMaps(Place),
    /// A field of `/proc/PID/status`.
    Status(String),
    /// A file under `/sys`.
    SysFile(String),
    /// A field of `/proc/PID/smaps`, in kB.
    Smaps(Place, String),
    /// Write 4 to `/proc/PID/clear_refs`: forget soft-dirty.
    ClearRefs,
    /// Start the migration trace.
    TraceOn,
    /// The events since the trace was started.
    Trace,
    /// Let KSM merge until it finds nothing more.
    Ksm,
    /// How many pages have this bit of `/proc/kpageflags`.
    PageFlag(Place, u32),
    /// pwrite(2) of all pages of the file.
    WriteFile(Place),
    /// pread(2) of all pages of the file.
    ReadFile(Place),
}

impl Step {
    /// Whether it is a migrate_pages(2) that moves pages away from a node.
    pub fn migrates_from(&self, node: u16) -> bool {
        let Self::MigratePages { from: Mask::Nodes { nodes, .. }, .. } = self else { return false };
        nodes.contains(&node)
    }

    /// Whether a cpuset changes, or somebody enters one.
    pub const fn changes_cpuset(&self) -> bool {
        matches!(self, Self::CgroupSet { .. } | Self::CgroupJoin { .. })
    }
}
