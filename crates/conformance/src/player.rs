//! The player: who the actors are, where the areas lie, and the steps that touch memory.

use std::collections::BTreeMap;

use machine::{Bytes, CpuId, Node, NodeId, Topology};
use model::{
    Access, Advice, Buffers, Counters, CpusetId, Credentials, Errno, Fault, FileId, FileKind,
    KernelVersion, Machine, MapKind, Options, PMD_ORDER, PinKind, Protection, TaskId, ThpMode,
    VDSO_ADDRESS, VVAR_PAGES,
};
use scenario::layout::{FIRST_HOG, HOG_STRIDE, Span, area_address};
use scenario::{
    Act, Actor, Base, Credential, Kernel, Kind, Mask, Place, Record, Scenario, Seen, Step,
};

use crate::words::{FIRST_MASK, put_mask};

pub(crate) use scenario::layout::PAGE_BYTES as PAGE;

/// Content of a page that was touched and never filled.
const TOUCHED: u32 = 1;
/// Content of a page that `store r V` filled is this plus V.
const STORED: u32 = 0x100;

/// A mapping of the scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) address: u64,
    pub(crate) pages: u64,
    pub(crate) file: Option<FileId>,
}

/// The policy that an actor last set, to be set again after a `fill`.
type LastPolicy = (i32, Vec<u16>);

/// Plays one scenario on one machine.
pub struct Player {
    pub(crate) machine: Machine,
    pub(crate) actors: BTreeMap<char, TaskId>,
    pub(crate) areas: BTreeMap<char, Area>,
    pub(crate) groups: BTreeMap<String, CpusetId>,
    pub(crate) kthread: TaskId,
    pub(crate) counted: Counters,
    policies: BTreeMap<TaskId, LastPolicy>,
    hogs: u64,
}

/// Why a scenario ended early.
pub(crate) enum End {
    /// A signal killed the process.
    Dead,
    /// A step could not be performed, and why.
    Unable(String),
}

impl From<Fault> for End {
    fn from(_: Fault) -> Self {
        Self::Dead
    }
}

/// What a step gave: nothing, or a result.
pub(crate) type Performed = Result<Option<Seen>, End>;

/// The kernel of a column of the case files.
pub const fn kernel_version(kernel: Kernel) -> KernelVersion {
    match kernel {
        Kernel::V6_1 => KernelVersion::V6_1,
        Kernel::V6_12 => KernelVersion::V6_12,
        Kernel::V7_3 => KernelVersion::V7_3,
    }
}

/// The machine of the conformance cases: two nodes with two CPUs each, and a memory-only one.
///
/// # Panics
///
/// Never: the description is a valid one.
pub fn case_machine(version: KernelVersion) -> Machine {
    let options = Options { thp: ThpMode::Madvise, ..Options::default() };
    Machine::boot(case_topology(), version, options)
}

/// What [`case_machine`] is made of, and a guest in which the cases are played.
///
/// # Panics
///
/// Never: the description is a valid one.
pub fn case_topology() -> Topology {
    let node = |id: u16, cpus: &str| Node {
        id: NodeId::new(id).expect("a small number is a node number"),
        cpus: cpus.parse().expect("a CPU list"),
        memory: Bytes::new(512 << 20),
        free: None,
        tier: None,
        latency_ns: None,
        bandwidth_per_s: None,
    };
    let distances = vec![vec![10, 21, 31], vec![21, 10, 41], vec![31, 41, 10]];
    let nodes = vec![node(0, "0-1"), node(1, "2-3"), node(2, "")];
    Topology::new("cases", nodes, Some(distances)).expect("a valid machine")
}

impl Player {
    /// A player with process P, privileged, on CPU 0 of `machine`.
    ///
    /// # Panics
    ///
    /// Never: 0 is a CPU number.
    pub fn new(mut machine: Machine) -> Self {
        let cpu = CpuId::new(0).expect("0 is a CPU number");
        let kthread = machine.spawn_kthread();
        let first = machine.spawn(Credentials::ROOT, cpu);
        let counted = machine.counters().clone();
        Self {
            machine,
            actors: BTreeMap::from([(Actor::FIRST.0, first)]),
            areas: BTreeMap::new(),
            groups: BTreeMap::from([("root".to_owned(), CpusetId::ROOT)]),
            kthread,
            counted,
            policies: BTreeMap::new(),
            hogs: 0,
        }
    }

    /// Performs the steps, and records what each gave. After each step `check` sees the machine.
    pub fn play(&mut self, scenario: &Scenario, mut check: impl FnMut(&Machine)) -> Record {
        let mut record = Record::default();
        for (step, act) in scenario.acts.iter().enumerate() {
            match self.perform(act) {
                Ok(seen) => record.results.extend(seen.map(|seen| (step, seen.to_string()))),
                Err(End::Dead) => {
                    // The model does not say which: a signal of a bad access.
                    record.end = scenario::End::Dead(0);
                    return record;
                }
                Err(End::Unable(why)) => {
                    record.end = scenario::End::Failed(format!("cannot {}: {why}", act.step));
                    return record;
                }
            }
            check(&self.machine);
        }
        record
    }

    /// The machine as it is now.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine as it is now, to switch its trace on or take its events.
    pub const fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn perform(&mut self, act: &Act) -> Performed {
        let Some(&task) = self.actors.get(&act.actor.0) else { return Ok(None) };
        if !self.machine.runs(task) {
            // Who has exited performs nothing any more.
            return Err(End::Dead);
        }
        match &act.step {
            Step::Map { .. } => Ok(self.map(task, &act.step)),
            Step::Fill { place, digits } => self.fill(task, *place, digits),
            Step::Touch(place) => self.touch(task, *place),
            Step::Read(place) => {
                for address in self.addresses(*place) {
                    self.machine.access(task, address, Access::Read)?;
                }
                Ok(None)
            }
            Step::Store(place, byte) => {
                for address in self.addresses(*place) {
                    self.machine.write(task, address, STORED + u32::from(*byte))?;
                }
                Ok(None)
            }
            Step::Check(place, byte) => {
                let mut same = true;
                for address in self.addresses(*place) {
                    same &= self.machine.read(task, address)? == STORED + u32::from(*byte);
                }
                Ok(Some(Seen::Text(if same { "same" } else { "bad" }.to_owned())))
            }
            Step::Pin(place) => {
                for address in self.addresses(*place) {
                    self.machine.pin(task, address, PinKind::Reference)?;
                }
                Ok(None)
            }
            Step::Hog { node, give_back_mib } => self.hog(task, *node, *give_back_mib),
            Step::Protect(..)
            | Step::Lock(_)
            | Step::LockOnFault(_)
            | Step::Unmap(_)
            | Step::Advise(..) => Ok(self.change_memory(task, &act.step)),
            Step::MigratePages { .. }
            | Step::MovePages { .. }
            | Step::Mbind { .. }
            | Step::SetMempolicy { .. }
            | Step::GetMempolicy { .. }
            | Step::HomeNode { .. } => Ok(Some(self.call(task, &act.step))),
            _ => Ok(self.process_or_look(task, act)),
        }
    }

    fn process_or_look(&mut self, task: TaskId, act: &Act) -> Option<Seen> {
        match &act.step {
            Step::Cpu(cpu) => {
                let cpu = CpuId::new(*cpu)?;
                errno(self.machine.set_cpu(task, cpu))
            }
            Step::Unpin => {
                self.machine.unpin_all(task);
                None
            }
            Step::Fork(actor) => self.join(task, *actor, Machine::fork),
            Step::Thread(actor) => self.join(task, *actor, Machine::clone_thread),
            Step::Exit => {
                self.machine.exit(task);
                None
            }
            Step::Wait(actor) => {
                self.machine.reap(*self.actors.get(&actor.0)?);
                None
            }
            Step::User(..) | Step::Drop | Step::UserNamespace => {
                self.change_credentials(task, &act.step);
                None
            }
            Step::NoDump => {
                self.machine.set_dumpable(task, false);
                None
            }
            Step::Stop => None,
            step => self.look(task, step),
        }
    }

    fn join(
        &mut self,
        from: TaskId,
        actor: Actor,
        start: fn(&mut Machine, TaskId) -> Result<TaskId, Errno>,
    ) -> Option<Seen> {
        match start(&mut self.machine, from) {
            Ok(task) => {
                // Real actors populate memory of their own before they go on.
                self.machine.drain_lru_batch(task);
                self.actors.insert(actor.0, task);
                if let Some(policy) = self.policies.get(&from).cloned() {
                    self.policies.insert(task, policy);
                }
                None
            }
            Err(error) => errno(Err(error)),
        }
    }

    fn change_credentials(&mut self, task: TaskId, step: &Step) {
        let Some(mut credentials) = self.machine.credentials(task) else { return };
        match *step {
            Step::User(Credential::All, id) => credentials.uids = [id; 3],
            Step::User(Credential::Real, id) => credentials.uids[0] = id,
            Step::User(Credential::Effective, id) => credentials.uids[1] = id,
            _ => {}
        }
        let privileged = credentials.uids[1] == 0 && *step != Step::UserNamespace;
        credentials.sys_nice &= privileged && *step != Step::Drop;
        credentials.sys_ptrace &= privileged;
        self.machine.set_credentials(task, credentials);
    }

    // ---- places ----

    /// Start, pages and stride of a place; nothing for an area that could not be mapped.
    pub(crate) fn span(&self, place: Place) -> Option<Span> {
        let (address, pages) = match place.base {
            Base::Area(letter) => {
                let area = self.areas.get(&letter)?;
                (area.address, area.pages)
            }
            Base::Vdso => (VDSO_ADDRESS, 1),
            Base::Vvar => (VDSO_ADDRESS - VVAR_PAGES * PAGE, 1),
            base => (base.fixed_address()?, 1),
        };
        Some(Span::of(place, address, pages))
    }

    /// The address of each page of a place.
    pub(crate) fn addresses(&self, place: Place) -> Vec<u64> {
        self.span(place).map(|span| span.addresses().collect()).unwrap_or_default()
    }

    /// First byte and length of a place.
    pub(crate) fn range(&self, place: Place) -> (u64, u64) {
        self.span(place).map_or((0, 0), |span| (span.start, span.bytes()))
    }

    // ---- memory ----

    fn map(&mut self, task: TaskId, step: &Step) -> Option<Seen> {
        let Step::Map { area, pages, kind, of, private, at } = *step else { return None };
        let address = at.unwrap_or_else(|| area_address(area));
        let file = match of.and_then(|of| self.areas.get(&of)) {
            Some(area) => area.file,
            None => self.new_file(area, kind),
        };
        let how = match file {
            None => MapKind::Anon,
            Some(file) if private || kind == Kind::Huge => MapKind::Private(file, 0),
            Some(file) => MapKind::Shared(file, 0),
        };
        if let Err(error) = self.machine.mmap(task, address, pages, how, Protection::READ_WRITE) {
            return Some(Seen::NotMapped(error.name().to_owned()));
        }
        if kind == Kind::Thp {
            let advised = self.machine.madvise(task, address, pages * PAGE, Advice::HugePage);
            advised.expect("a fresh mapping takes advice");
        }
        self.areas.insert(area, Area { address, pages, file });
        None
    }

    fn new_file(&mut self, area: char, kind: Kind) -> Option<FileId> {
        let (kind, name) = match kind {
            Kind::Anon | Kind::Thp => return None,
            Kind::Shm => (FileKind::SharedAnon, "/dev/zero (deleted)".to_owned()),
            Kind::Memfd => (FileKind::Memfd, "/memfd:m (deleted)".to_owned()),
            Kind::Tmpfs => (FileKind::Tmpfs, format!("TMPFS/f_{area}")),
            Kind::Ramfs => (FileKind::Ramfs, format!("RAMFS/f_{area}")),
            Kind::Huge | Kind::HugeShared => {
                (FileKind::Hugetlb(PMD_ORDER), "/anon_hugepage (deleted)".to_owned())
            }
            Kind::Secret => (FileKind::Secret, "/secretmem (deleted)".to_owned()),
        };
        Some(self.machine.create_file(kind, &name))
    }

    fn touch(&mut self, task: TaskId, place: Place) -> Performed {
        for address in self.addresses(place) {
            self.touch_page(task, address)?;
        }
        Ok(None)
    }

    fn touch_page(&mut self, task: TaskId, address: u64) -> Result<(), Fault> {
        self.machine.access(task, address, Access::Write)?;
        if self.machine.read(task, address)? == 0 {
            self.machine.write(task, address, TOUCHED)?;
        }
        Ok(())
    }

    fn fill(&mut self, task: TaskId, place: Place, digits: &[u8]) -> Performed {
        let nodes = digits.iter().chain(std::iter::repeat(digits.last().unwrap_or(&0)));
        for (address, &node) in self.addresses(place).into_iter().zip(nodes) {
            self.set_policy(task, 2, &[u16::from(node)]);
            self.touch_page(task, address)?;
        }
        let (mode, nodes) = self.policies.get(&task).cloned().unwrap_or_default();
        self.set_policy(task, mode, &nodes);
        Ok(None)
    }

    fn set_policy(&mut self, task: TaskId, mode: i32, nodes: &[u16]) {
        let mut user = Buffers::default();
        let nodes = Mask::Nodes { nodes: nodes.to_vec(), words: None };
        let mask = put_mask(&mut user, &nodes, FIRST_MASK);
        // A node outside the cpuset is refused; the page then goes where the old policy says.
        let _ = self.machine.set_mempolicy(&user, task, mode, mask, 1025);
    }

    pub(crate) fn remember_policy(&mut self, task: TaskId, mode: i32, mask: &Mask) {
        let nodes = match mask {
            Mask::Nodes { nodes, .. } => nodes.clone(),
            Mask::Null | Mask::Bad => Vec::new(),
        };
        self.policies.insert(task, (mode, nodes));
    }

    /// Fills a node from a mapping of its own until a page comes from elsewhere.
    fn hog(&mut self, task: TaskId, node: u16, give_back_mib: u64) -> Performed {
        let on = NodeId::new(node).and_then(|id| self.machine.topology().node(id));
        let Some((target, pages)) =
            on.map(|on| (on.id, on.memory.pages())).filter(|&(_, pages)| pages > 0)
        else {
            // A kernel takes no policy for it.
            return Err(End::Unable(format!("node {node} has no memory")));
        };
        let unable = |error: Errno| End::Unable(format!("map {pages} pages: {}", error.name()));
        let address = FIRST_HOG + self.hogs * HOG_STRIDE;
        self.hogs += 1;
        self.machine
            .mmap(task, address, pages, MapKind::Anon, Protection::READ_WRITE)
            .map_err(unable)?;
        self.set_policy(task, 1, &[node]);
        let mut filled = 0;
        while filled < pages {
            let page = address + filled * PAGE;
            self.touch_page(task, page)?;
            filled += 1;
            if self.machine.node_of(task, page) != Some(target) {
                break;
            }
        }
        let (mode, nodes) = self.policies.get(&task).cloned().unwrap_or_default();
        self.set_policy(task, mode, &nodes);
        let kept = (filled - 1).saturating_sub(give_back_mib.saturating_mul((1 << 20) / PAGE));
        self.machine.munmap(task, address + kept * PAGE, (pages - kept) * PAGE).map_err(unable)?;
        Ok(None)
    }

    fn change_memory(&mut self, task: TaskId, step: &Step) -> Option<Seen> {
        let machine = &self.machine;
        debug_assert!(machine.credentials(task).is_some(), "an actor is a task");
        let result = match *step {
            Step::Protect(place, protection) => {
                let (start, length) = self.range(place);
                let protection = match protection {
                    scenario::Protection::None => Protection::NONE,
                    scenario::Protection::ReadOnly => Protection::READ,
                    scenario::Protection::ReadWrite => Protection::READ_WRITE,
                };
                self.machine.mprotect(task, start, length, protection)
            }
            Step::Lock(place) | Step::LockOnFault(place) => {
                let (start, length) = self.range(place);
                let on_fault = matches!(step, Step::LockOnFault(_));
                self.machine.mlock(task, start, length, on_fault)
            }
            Step::Unmap(place) => {
                let (start, length) = match place.base {
                    Base::Vdso => (VDSO_ADDRESS, 2 * PAGE),
                    Base::Vvar => (VDSO_ADDRESS - VVAR_PAGES * PAGE, VVAR_PAGES * PAGE),
                    _ => self.range(place),
                };
                self.machine.munmap(task, start, length)
            }
            Step::Advise(place, advice) => {
                let (start, length) = self.range(place);
                self.machine.madvise(task, start, length, advice_of(advice))
            }
            _ => Ok(()),
        };
        errno(result)
    }
}

const fn advice_of(advice: scenario::Advice) -> Advice {
    match advice {
        scenario::Advice::Cold => Advice::Cold,
        scenario::Advice::Collapse => Advice::Collapse,
        scenario::Advice::DontNeed => Advice::DontNeed,
        scenario::Advice::HugePage => Advice::HugePage,
        scenario::Advice::Mergeable => Advice::Mergeable,
        scenario::Advice::PageOut => Advice::PageOut,
        scenario::Advice::PopulateRead => Advice::PopulateRead,
        scenario::Advice::PopulateWrite => Advice::PopulateWrite,
    }
}

/// An errno if there is one, else nothing.
pub(crate) fn errno(result: Result<(), Errno>) -> Option<Seen> {
    result.err().map(|error| Seen::Errno(error.name().to_owned()))
}
