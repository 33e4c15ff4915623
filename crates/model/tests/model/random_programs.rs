//! Random programs of a few processes: after every step the machine keeps its promises, and at the
//! end every page holds what was written to it last.

use std::collections::BTreeMap;

use machine::{Bytes, CpuId, Node, NodeId, NodeSet, Topology};
use pagetide_model as model;
use pagetide_model::{
    Access, Advice, Buffers, Credentials, Errno, FileId, FileKind, KernelVersion, Machine, MapKind,
    MbindArgs, MovePagesArrays, Options, PinKind, Protection, TaskId, ThpMode,
};
use proptest::prelude::*;

const PAGE: u64 = 4096;
/// Where area `i` lies.
const AREA: u64 = 0x4000_0000;
/// Pages of an area: two THPs, so that both halves matter.
const AREA_PAGES: u64 = 1024;
const AREAS: u64 = 4;
const MASK: u64 = 0x1000;
const NEW_MASK: u64 = 0x2000;
const ARRAY: u64 = 0x10_0000;

#[derive(Clone, Debug)]
enum Op {
    Map { area: u64, kind: u8 },
    Unmap { area: u64, from: u64, pages: u64 },
    Move { area: u64 },
    Write { area: u64, page: u64, count: u64 },
    Read { area: u64, page: u64 },
    Discard { area: u64, from: u64, pages: u64 },
    ReadOnly { area: u64, from: u64, pages: u64, writable: bool },
    Lock { area: u64, from: u64, pages: u64 },
    Advise { area: u64, advice: u8 },
    Ksm,
    Fork,
    Exit,
    Switch(u8),
    Cpu(u32),
    Pin { area: u64, page: u64, buffer: bool },
    Unpin,
    Bind { area: u64, from: u64, pages: u64, mode: i32, nodes: u64, flags: u32 },
    Policy { mode: i32, nodes: u64 },
    Migrate { from: u64, to: u64, nice: bool },
    MovePages { area: u64, from: u64, step: u64, nodes: Vec<i32>, all: bool },
    Cpuset { nodes: u64 },
    Scan { seconds: u64 },
    Compact { node: u8 },
    Offline { node: u8 },
    Demote { node: u8 },
}

fn any_op() -> impl Strategy<Value = Op> {
    let area = 0..AREAS;
    let page = 0..AREA_PAGES;
    let range = (0..AREAS, 0..AREA_PAGES, 1..AREA_PAGES);
    prop_oneof![
        4 => (area.clone(), 0u8..6).prop_map(|(area, kind)| Op::Map { area, kind }),
        1 => range.clone().prop_map(|(area, from, pages)| Op::Unmap { area, from, pages }),
        1 => area.clone().prop_map(|area| Op::Move { area }),
        8 => (area.clone(), page.clone(), 1u64..40)
            .prop_map(|(area, page, count)| Op::Write { area, page, count }),
        2 => (area.clone(), page.clone()).prop_map(|(area, page)| Op::Read { area, page }),
        1 => range.clone().prop_map(|(area, from, pages)| Op::Discard { area, from, pages }),
        1 => (range.clone(), any::<bool>()).prop_map(|((area, from, pages), writable)| {
            Op::ReadOnly { area, from, pages, writable }
        }),
        1 => range.clone().prop_map(|(area, from, pages)| Op::Lock { area, from, pages }),
        2 => (area.clone(), 0u8..4).prop_map(|(area, advice)| Op::Advise { area, advice }),
        1 => Just(Op::Ksm),
        2 => Just(Op::Fork),
        1 => Just(Op::Exit),
        2 => any::<u8>().prop_map(Op::Switch),
        1 => (0u32..4).prop_map(Op::Cpu),
        1 => (area.clone(), page, any::<bool>())
            .prop_map(|(area, page, buffer)| Op::Pin { area, page, buffer }),
        1 => Just(Op::Unpin),
        3 => (range.clone(), 0i32..6, 0u64..8, 0u32..8).prop_map(
            |((area, from, pages), mode, nodes, flags)| {
                Op::Bind { area, from, pages, mode, nodes, flags }
            }
        ),
        1 => (0i32..7, 0u64..8).prop_map(|(mode, nodes)| Op::Policy { mode, nodes }),
        3 => (0u64..8, 0u64..8, any::<bool>())
            .prop_map(|(from, to, nice)| Op::Migrate { from, to, nice }),
        3 => (area, 0..AREA_PAGES, 1u64..200, prop::collection::vec(-1i32..4, 1..8), any::<bool>())
            .prop_map(|(area, from, step, nodes, all)| {
                Op::MovePages { area, from, step, nodes, all }
            }),
        1 => (1u64..8).prop_map(|nodes| Op::Cpuset { nodes }),
        2 => (1u64..4).prop_map(|seconds| Op::Scan { seconds }),
        1 => (0u8..3).prop_map(|node| Op::Compact { node }),
        1 => (0u8..3).prop_map(|node| Op::Offline { node }),
        1 => (0u8..3).prop_map(|node| Op::Demote { node }),
    ]
}

fn any_version() -> impl Strategy<Value = KernelVersion> {
    prop::sample::select(KernelVersion::ALL.to_vec())
}

fn small_machine(version: KernelVersion, thp: ThpMode) -> Machine {
    let node = |id: u16, cpus: &str, tier: u8| Node {
        id: NodeId::new(id).unwrap(),
        cpus: cpus.parse().unwrap(),
        memory: Bytes::new(24 << 20),
        free: None,
        tier: Some(tier),
        latency_ns: None,
        bandwidth_per_s: None,
    };
    let nodes = vec![node(0, "0-1", 0), node(1, "2-3", 0), node(2, "", 1)];
    let topology = Topology::new("small", nodes, None).unwrap();
    Machine::boot(topology, version, Options { thp, ..Options::default() })
}

/// What a process should read: its private pages, or those of the file that it maps.
#[derive(Clone, Copy, PartialEq)]
enum Behind {
    Private,
    Shared(FileId),
    /// Private mapping of a file.
    Copied(FileId),
}

struct World {
    machine: Machine,
    current: TaskId,
    processes: Vec<TaskId>,
    behind: BTreeMap<(TaskId, u64), Behind>,
    private: BTreeMap<(TaskId, u64), u32>,
    files: BTreeMap<(FileId, u64), u32>,
    cpuset: Option<model::CpusetId>,
    next_token: u32,
}

impl World {
    fn new(version: KernelVersion, thp: ThpMode) -> Self {
        let mut machine = small_machine(version, thp);
        let first = machine.spawn(Credentials::ROOT, CpuId::new(0).unwrap());
        Self {
            machine,
            current: first,
            processes: vec![first],
            behind: BTreeMap::new(),
            private: BTreeMap::new(),
            files: BTreeMap::new(),
            cpuset: None,
            next_token: 1,
        }
    }

    fn address(area: u64, page: u64) -> u64 {
        AREA + area * 0x1000_0000 + page * PAGE
    }

    fn range(area: u64, from: u64, pages: u64) -> (u64, u64) {
        (Self::address(area, from), pages.min(AREA_PAGES - from) * PAGE)
    }

    fn expected(&self, task: TaskId, address: u64) -> Option<u32> {
        let behind = self.behind.get(&(task, address / PAGE))?;
        let private = self.private.get(&(task, address / PAGE)).copied();
        Some(match *behind {
            Behind::Private => private.unwrap_or(0),
            Behind::Shared(file) => self.of_file(file, address),
            Behind::Copied(file) => private.unwrap_or_else(|| self.of_file(file, address)),
        })
    }

    fn of_file(&self, file: FileId, address: u64) -> u32 {
        self.files.get(&(file, address / PAGE)).copied().unwrap_or(0)
    }

    fn map(&mut self, area: u64, kind: u8) {
        let start = Self::address(area, 0);
        let (behind, how) = match kind {
            0..=2 => (Behind::Private, MapKind::Anon),
            3 => {
                let file = self.machine.create_file(FileKind::Memfd, "/memfd:r (deleted)");
                (Behind::Shared(file), MapKind::Shared(file, 0))
            }
            4 => {
                let file = self.machine.create_file(FileKind::Tmpfs, "/r");
                (Behind::Copied(file), MapKind::Private(file, 0))
            }
            _ => {
                let file = self.machine.create_file(FileKind::SharedAnon, "/dev/zero (deleted)");
                (Behind::Shared(file), MapKind::Shared(file, 0))
            }
        };
        let mapped =
            self.machine.mmap(self.current, start, AREA_PAGES, how, Protection::READ_WRITE);
        if mapped.is_ok() {
            for page in 0..AREA_PAGES {
                self.behind.insert((self.current, start / PAGE + page), behind);
            }
        }
    }

    fn forget(&mut self, start: u64, length: u64, unmap: bool) {
        for page in start / PAGE..(start + length) / PAGE {
            self.private.remove(&(self.current, page));
            if unmap {
                self.behind.remove(&(self.current, page));
            }
        }
    }

    fn write(&mut self, address: u64) {
        let token = self.next_token;
        if self.machine.write(self.current, address, token).is_err() {
            return;
        }
        self.next_token += 1;
        let page = address / PAGE;
        match self.behind[&(self.current, page)] {
            Behind::Shared(file) => {
                self.files.insert((file, page), token);
            }
            Behind::Private | Behind::Copied(_) => {
                self.private.insert((self.current, page), token);
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        let task = self.current;
        match *op {
            Op::Map { area, kind } => self.map(area, kind),
            Op::Unmap { area, from, pages } => {
                let (start, length) = Self::range(area, from, pages);
                if self.machine.munmap(task, start, length).is_ok() {
                    self.forget(start, length, true);
                }
            }
            Op::Move { area } => self.move_area(area),
            Op::Write { area, page, count } => {
                for page in page..(page + count).min(AREA_PAGES) {
                    self.write(Self::address(area, page));
                }
            }
            Op::Read { area, page } => {
                let address = Self::address(area, page);
                if let Ok(token) = self.machine.read(task, address) {
                    assert_eq!(Some(token), self.expected(task, address), "content of a page");
                }
            }
            Op::Discard { area, from, pages } => self.discard(area, from, pages),
            Op::ReadOnly { area, from, pages, writable } => {
                let (start, length) = Self::range(area, from, pages);
                let protection = if writable { Protection::READ_WRITE } else { Protection::READ };
                let _ = self.machine.mprotect(task, start, length, protection);
            }
            Op::Lock { area, from, pages } => {
                let (start, length) = Self::range(area, from, pages);
                let _ = self.machine.mlock(task, start, length, false);
            }
            Op::Advise { area, advice } => {
                let advice = [Advice::HugePage, Advice::Mergeable, Advice::Collapse, Advice::Cold]
                    [usize::from(advice)];
                let (start, length) = Self::range(area, 0, AREA_PAGES);
                let _ = self.machine.madvise(task, start, length, advice);
            }
            Op::Ksm => self.machine.ksm_scan(),
            Op::Fork => self.fork(),
            Op::Exit => self.exit(),
            Op::Switch(which) => {
                self.current = self.processes[usize::from(which) % self.processes.len()];
            }
            Op::Cpu(cpu) => self.machine.set_cpu(task, CpuId::new(cpu).unwrap()).unwrap(),
            Op::Pin { area, page, buffer } => {
                let kind = if buffer { PinKind::Buffer } else { PinKind::Reference };
                let _ = self.machine.pin(task, Self::address(area, page), kind);
            }
            Op::Unpin => self.machine.unpin_all(task),
            _ => self.call(op),
        }
    }

    /// MADV_DONTNEED: private pages are zero again, those of files are read again.
    fn discard(&mut self, area: u64, from: u64, pages: u64) {
        let (start, length) = Self::range(area, from, pages);
        let mut discard =
            |start, length| self.machine.madvise(self.current, start, length, Advice::DontNeed);
        let discarded = match discard(start, length) {
            // A hole is told in the end, when the rest is gone.
            Ok(()) | Err(Errno::ENOMEM) => pages,
            // Gone is what lies before the mapping that refused.
            Err(_) => (0..pages)
                .take_while(|page| discard(start + page * PAGE, PAGE) != Err(Errno::EINVAL))
                .count() as u64,
        };
        self.forget(start, discarded * PAGE, false);
    }

    fn move_area(&mut self, area: u64) {
        let (from, to) = (Self::address(area, 0), Self::address(area, 0) + 0x8000_0000);
        if self.machine.mremap(self.current, from, to).is_err() {
            return;
        }
        assert!(self.machine.check().is_ok(), "after a mapping was moved away");
        // And back, so that addresses stay what the other steps think they are.
        self.machine.mremap(self.current, to, from).expect("the old place is free");
    }

    fn fork(&mut self) {
        if self.processes.len() >= 4 {
            return;
        }
        let child = self.machine.fork(self.current).unwrap();
        let copy = |map: &BTreeMap<(TaskId, u64), u32>| -> Vec<((TaskId, u64), u32)> {
            let ours = map.iter().filter(|((task, _), _)| *task == self.current);
            ours.map(|(&(_, page), &token)| ((child, page), token)).collect()
        };
        let private = copy(&self.private);
        self.private.extend(private);
        let ours = self.behind.iter().filter(|((task, _), _)| *task == self.current);
        let behind: Vec<_> = ours.map(|(&(_, page), &behind)| ((child, page), behind)).collect();
        self.behind.extend(behind);
        self.processes.push(child);
    }

    fn exit(&mut self) {
        if self.processes.len() < 2 {
            return;
        }
        self.machine.exit(self.current);
        self.machine.reap(self.current);
        let gone = self.current;
        self.processes.retain(|&task| task != gone);
        self.private.retain(|&(task, _), _| task != gone);
        self.behind.retain(|&(task, _), _| task != gone);
        self.current = self.processes[0];
    }

    fn call(&mut self, op: &Op) {
        let task = self.current;
        let mut user = Buffers::default();
        match *op {
            Op::Bind { area, from, pages, mode, nodes, flags } => {
                user.put(MASK, nodes.to_le_bytes().to_vec());
                let (start, length) = Self::range(area, from, pages);
                let args = MbindArgs { start, length, mode, mask: MASK, maxnode: 65, flags };
                let _ = self.machine.mbind(&user, task, args);
            }
            Op::Policy { mode, nodes } => {
                user.put(MASK, nodes.to_le_bytes().to_vec());
                let _ = self.machine.set_mempolicy(&user, task, mode, MASK, 65);
            }
            Op::Migrate { from, to, nice } => {
                user.put(MASK, from.to_le_bytes().to_vec());
                user.put(NEW_MASK, to.to_le_bytes().to_vec());
                let mut credentials = Credentials::ROOT;
                credentials.sys_nice = nice;
                self.machine.set_credentials(task, credentials);
                let target = self.processes[0].get();
                let _ = self.machine.migrate_pages(&user, task, target, 65, MASK, NEW_MASK);
                self.machine.set_credentials(task, Credentials::ROOT);
            }
            Op::MovePages { area, from, step, ref nodes, all } => {
                let pages: Vec<u64> = (from..AREA_PAGES)
                    .step_by(usize::try_from(step).unwrap())
                    .map(|page| Self::address(area, page))
                    .collect();
                let count = pages.len() as u64;
                let nodes = nodes.iter().cycle().take(pages.len());
                user.put(ARRAY, pages.iter().flat_map(|page| page.to_le_bytes()).collect());
                user.put(2 * ARRAY, nodes.flat_map(|node| node.to_le_bytes()).collect());
                user.put(3 * ARRAY, vec![0; pages.len() * 4]);
                let (pages, nodes, status) = (ARRAY, 2 * ARRAY, 3 * ARRAY);
                let arrays = MovePagesArrays { count, pages, nodes, status };
                let flags = if all { 4 } else { 2 };
                let _ = self.machine.move_pages(&mut user, task, 0, arrays, flags);
            }
            Op::Cpuset { nodes } => {
                let nodes: NodeSet =
                    (0..3).filter(|bit| nodes >> bit & 1 == 1).filter_map(NodeId::new).collect();
                let root = model::CpusetId::ROOT;
                let group = *self.cpuset.get_or_insert_with(|| self.machine.make_cpuset(root));
                self.machine.join_cpuset(group, task).unwrap();
                self.machine.set_mems(group, nodes).unwrap();
            }
            _ => self.around(op),
        }
    }

    fn around(&mut self, op: &Op) {
        let task = self.current;
        let id = |node: u8| NodeId::new(node.into()).unwrap();
        match *op {
            Op::Scan { seconds } => {
                let settings = model::BalancingSettings { mode: 3, ..self.machine.balancing() };
                self.machine.set_balancing(settings).unwrap();
                self.machine.run(task, seconds * 1000);
            }
            Op::Compact { node } => {
                self.machine.compact_node(id(node));
            }
            Op::Offline { node } => {
                let (first, _) = self.machine.frames_of(id(node)).unwrap();
                let pages = 4 * model::PMD_PAGES;
                if self.machine.offline(task, first, pages).is_ok() {
                    assert_eq!(self.machine.check(), Ok(()), "with memory offline");
                    self.machine.online(first, pages);
                }
            }
            Op::Demote { node } => {
                self.machine.set_demotion(true);
                self.machine.demote(id(node), 512, model::Reclaimer::Proactive, None);
            }
            _ => unreachable!("every other step is played elsewhere"),
        }
    }

    fn check_contents(&mut self) {
        for task in self.processes.clone() {
            let pages: Vec<u64> = self
                .behind
                .range((task, 0)..=(task, u64::MAX))
                .map(|(&(_, page), _)| page)
                .collect();
            for page in pages {
                let address = page * PAGE;
                if self.machine.access(task, address, Access::Read).is_ok() {
                    let token = self.machine.read(task, address).unwrap();
                    assert_eq!(Some(token), self.expected(task, address), "page {page:#x}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_keeps_its_promises_after_every_step_of_any_program(
        version in any_version(),
        always in any::<bool>(),
        ops in prop::collection::vec(any_op(), 1..60),
    ) {
        let thp = if always { ThpMode::Always } else { ThpMode::Madvise };
        let mut world = World::new(version, thp);
        world.map(0, 0);
        world.map(1, 3);
        for (step, op) in ops.iter().enumerate() {
            world.apply(op);
            if let Err(broken) = world.machine.check() {
                panic!("after step {step}, {op:?}: {broken}");
            }
        }
        world.check_contents();
        prop_assert_eq!(world.machine.check(), Ok(()));
    }

    #[test]
    fn the_same_program_makes_the_same_machine(
        version in any_version(),
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        let run = || {
            let mut world = World::new(version, ThpMode::Always);
            world.map(0, 0);
            ops.iter().for_each(|op| world.apply(op));
            world.machine
        };
        prop_assert!(run() == run());
    }
}
