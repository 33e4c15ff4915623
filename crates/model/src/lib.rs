//! Linux's page migration, re-implemented: the model.
//!
//! A [`Machine`] is nodes with memory, processes with page tables, policies, cpusets, and the
//! kernel's own mechanism for moving pages between nodes: the system calls, the migration engine,
//! automatic balancing, tiering, compaction and offlining, for three kernels
//! ([`KernelVersion`]). It is pure: no I/O, no thread, no clock but its own; the same calls give
//! the same machine.
//!
//! `docs/model.md` walks through one migrate_pages(2) call and one hint fault, module by module.
#![forbid(unsafe_code)]

mod balance;
mod check;
mod convert;
mod errno;
mod faults;
mod fit;
mod memory;
mod migrate;
mod mm;
mod observe;
mod policy;
mod reclaim;
mod syscall;
mod version;

use std::collections::{BTreeMap, BTreeSet};

use machine::{CpuId, NodeSet, Topology};

pub use balance::{BALANCE_NORMAL, BALANCE_TIERING, BalancingSettings};
pub use check::Broken;
pub use errno::Errno;
pub use faults::PlantedFault;
pub use fit::Misfit;
pub use memory::frames::{Order, PMD_ORDER, PMD_PAGES, PUD_ORDER, Pfn};
pub use memory::node::{MAX_NODES, NumaStats};
pub use memory::owner::FileId;
pub use memory::zone::{Watermarks, ZoneKind};
pub use migrate::{MigrateMode, MigrateReason};
pub use mm::access::AccessCounts;
pub use mm::adopt::{Found, Mirrored};
pub use mm::fault::{Access, Fault};
pub use mm::file::FileKind;
pub use mm::huge_fault::ThpMode;
pub use mm::madvise::Advice;
pub use mm::mapping::{MapKind, USER_LIMIT};
pub use mm::pin::PinKind;
pub use mm::task::{Credentials, TaskId};
pub use mm::vdso::{VDSO_ADDRESS, VVAR_PAGES};
pub use mm::vma::Protection;
pub use observe::call_path::CallPath;
pub use observe::events::{Event, MigrateCounts};
pub use observe::explain::{Explained, explain};
pub use observe::numa_maps::escape_path;
pub use observe::pagemap::{PagemapEntry, Smaps};
pub use observe::usage::{Usage, ZoneUsage};
pub use observe::vmstat::{Counter, Counters};
pub use policy::cpuset::CpusetId;
pub use policy::mempolicy::{MemPolicy, PolicyMode, mode_flag};
pub use reclaim::demote::Reclaimer;
pub use reclaim::offline::BLOCK_PAGES;
pub use syscall::get_mempolicy::GetMempolicyArgs;
pub use syscall::mbind::MbindArgs;
pub use syscall::move_pages::MovePagesArrays;
pub use syscall::user::{BadAddress, Buffers, UserMemory};
pub use version::KernelVersion;

/// What a machine is booted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Where THPs are used.
    pub thp: ThpMode,
    /// Pages of each node that are ZONE_MOVABLE (`movablecore=`).
    pub movable_pages: u32,
}

/// A machine under one kernel: a value that can be copied and compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    behaviour: &'static version::Behaviour,
    version: KernelVersion,
    options: Options,
    topology: Topology,
    frames: memory::frames::Frames,
    nodes: memory::node::Nodes,
    hugetlb: memory::hugetlb::Hugetlb,
    /// Hugetlb pages that were allocated as migration targets, outside their pool.
    fresh_hugetlb: BTreeSet<Pfn>,
    /// Folios on their way to the LRU, by CPU number.
    lru_batches: Vec<Vec<Pfn>>,
    /// Folios that MADV_COLD has left waiting, by CPU number; each is referenced.
    cold_batches: Vec<Vec<Pfn>>,
    /// Of large folios that several address spaces map: those that have a slot (`mm::mappers`).
    mappers: BTreeMap<Pfn, Vec<mm::address_space::MmId>>,
    tables: mm::page_table::Tables,
    mms: Vec<Option<mm::address_space::Mm>>,
    /// Numbers of address spaces that have ended, to be given again.
    free_mms: Vec<mm::address_space::MmId>,
    /// Address spaces by descent; see [`memory::owner::FamilyId`].
    families: Vec<Vec<mm::address_space::MmId>>,
    /// Numbers of families without a member.
    free_families: Vec<memory::owner::FamilyId>,
    files: Vec<mm::file::File>,
    vdso: FileId,
    vvar: FileId,
    tasks: BTreeMap<TaskId, mm::task::Task>,
    last_task: i32,
    cpusets: policy::cpuset::Cpusets,
    ksm: mm::ksm::Ksm,
    counters: Counters,
    trace: observe::events::Trace,
    balancing: balance::Balancing,
    reclaim: reclaim::Reclaim,
    #[cfg(feature = "faults")]
    planted: Option<PlantedFault>,
}

impl Machine {
    /// Boots a machine: memory is free, one process (`init`, task 1) runs on CPU 0.
    ///
    /// # Panics
    ///
    /// When the topology does not fit: [`Machine::fits`].
    pub fn boot(topology: Topology, version: KernelVersion, options: Options) -> Self {
        Self::fits(&topology).unwrap_or_else(|misfit| panic!("{misfit}"));
        let nodes = memory::node::Nodes::new(&topology, options.movable_pages, version.behaviour());
        let mut machine = Self {
            behaviour: version.behaviour(),
            version,
            options,
            frames: memory::frames::Frames::new(nodes.frames()),
            hugetlb: memory::hugetlb::Hugetlb::default(),
            fresh_hugetlb: BTreeSet::new(),
            lru_batches: Vec::new(),
            cold_batches: Vec::new(),
            mappers: BTreeMap::new(),
            tables: mm::page_table::Tables::default(),
            mms: Vec::new(),
            free_mms: Vec::new(),
            families: Vec::new(),
            free_families: Vec::new(),
            files: Vec::new(),
            vdso: FileId(0),
            vvar: FileId(1),
            tasks: BTreeMap::new(),
            last_task: 0,
            cpusets: policy::cpuset::Cpusets::new(nodes.with_memory),
            ksm: mm::ksm::Ksm::default(),
            counters: Counters::default(),
            trace: observe::events::Trace::default(),
            balancing: balance::Balancing::default(),
            reclaim: reclaim::Reclaim::default(),
            #[cfg(feature = "faults")]
            planted: None,
            nodes,
            topology,
        };
        machine.start_init();
        machine
    }

    fn start_init(&mut self) {
        self.vdso = self.create_file(FileKind::Vdso, "[vdso]");
        self.vvar = self.create_file(FileKind::Vvar, "[vvar]");
        self.make_vdso(self.vdso, mm::vdso::VDSO_PAGES, true);
        self.make_vdso(self.vvar, VVAR_PAGES, false);
        let first = CpuId::new(0).expect("0 is a CPU number");
        let cpu = self.topology.cpus().iter().next().unwrap_or(first);
        let init = self.spawn(Credentials::ROOT, cpu);
        for page in 0..mm::vdso::VDSO_PAGES {
            self.access(init, VDSO_ADDRESS + page * 4096, Access::Read)
                .expect("the vdso can be read");
        }
    }

    /// The kernel that the machine runs.
    pub const fn version(&self) -> KernelVersion {
        self.version
    }

    /// What it was booted with.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// The hardware.
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Nodes that have memory.
    pub const fn memory_nodes(&self) -> NodeSet {
        self.nodes.with_memory
    }

    /// `/proc/vmstat`, as far as it is about migration.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Allocation statistics of a node.
    pub fn numa_stats(&self, node: machine::NodeId) -> Option<NumaStats> {
        self.nodes.slot(node).map(|slot| self.nodes[slot].stats)
    }

    /// Free pages of a node.
    pub fn free_pages(&self, node: machine::NodeId) -> u64 {
        self.nodes.slot(node).map_or(0, |slot| self.nodes[slot].free())
    }
}
