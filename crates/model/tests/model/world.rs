//! A machine with one process, and short words for what tests do with it.

use machine::{Bytes, CpuId, Node, NodeId, Topology};
use pagetide_model::{
    Buffers, Counter, Counters, Credentials, Errno, KernelVersion, Machine, MapKind,
    MovePagesArrays, Options, Protection, TaskId, ThpMode,
};

pub(crate) const PAGE: u64 = 4096;
/// Where the memory of the tests lies.
pub(crate) const BASE: u64 = 0x10_0000_0000;
const PAGES: u64 = 0x100_0000;
const NODES: u64 = 0x200_0000;
const STATUS: u64 = 0x300_0000;

pub(crate) fn node_id(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Nodes 0 and 1 with two CPUs each, node 2 memory only and of a slower tier.
pub(crate) fn three_nodes(mib: u64) -> Topology {
    let node = |id: u16, cpus: &str, tier: u8| Node {
        id: node_id(id),
        cpus: cpus.parse().unwrap(),
        memory: Bytes::new(mib << 20),
        free: None,
        tier: Some(tier),
        latency_ns: None,
        bandwidth_per_s: None,
    };
    let distances = vec![vec![10, 21, 31], vec![21, 10, 41], vec![31, 41, 10]];
    let nodes = vec![node(0, "0-1", 0), node(1, "2-3", 0), node(2, "", 1)];
    Topology::new("three", nodes, Some(distances)).unwrap()
}

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) task: TaskId,
}

impl World {
    pub(crate) fn new(version: KernelVersion) -> Self {
        let options = Options { thp: ThpMode::Madvise, ..Options::default() };
        Self::of(Machine::boot(three_nodes(64), version, options))
    }

    pub(crate) fn of(mut machine: Machine) -> Self {
        let task = machine.spawn(Credentials::ROOT, CpuId::new(0).unwrap());
        // Scans and migrations of the vdso would only blur the counters.
        machine.munmap(task, pagetide_model::VDSO_ADDRESS - 4 * PAGE, 6 * PAGE).unwrap();
        Self { machine, task }
    }

    pub(crate) fn map(&mut self, pages: u64) {
        self.machine.mmap(self.task, BASE, pages, MapKind::Anon, Protection::READ_WRITE).unwrap();
    }

    pub(crate) fn on_cpu(&mut self, cpu: u32) {
        self.machine.set_cpu(self.task, CpuId::new(cpu).unwrap()).unwrap();
    }

    pub(crate) fn write(&mut self, pages: std::ops::Range<u64>) {
        for page in pages {
            let token = u32::try_from(page).unwrap() + 1;
            self.machine.write(self.task, BASE + page * PAGE, token).unwrap();
        }
    }

    pub(crate) fn read(&mut self, pages: std::ops::Range<u64>) {
        for page in pages {
            self.machine.read(self.task, BASE + page * PAGE).unwrap();
        }
    }

    /// Pages of `pages` that lie on `node`.
    pub(crate) fn pages_on(&self, node: u16, pages: std::ops::Range<u64>) -> u64 {
        let on =
            |page: &u64| self.machine.node_of(self.task, BASE + page * PAGE) == Some(node_id(node));
        pages.filter(on).count() as u64
    }

    /// move_pages(2) of these pages to one node, with MOVE_ALL.
    pub(crate) fn move_pages(
        &mut self,
        pages: std::ops::Range<u64>,
        node: i32,
    ) -> Result<i64, Errno> {
        let addresses: Vec<u64> = pages.map(|page| BASE + page * PAGE).collect();
        let count = addresses.len();
        let mut user = Buffers::default();
        user.put(PAGES, addresses.iter().flat_map(|address| address.to_le_bytes()).collect());
        user.put(NODES, (0..count).flat_map(|_| node.to_le_bytes()).collect());
        user.put(STATUS, vec![0; count * 4]);
        let arrays =
            MovePagesArrays { count: count as u64, pages: PAGES, nodes: NODES, status: STATUS };
        self.machine.move_pages(&mut user, self.task, 0, arrays, 4)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.machine.counters().clone()
    }

    pub(crate) fn since(&self, earlier: &Counters, counter: Counter) -> u64 {
        self.machine.counters().since(earlier, counter)
    }
}
