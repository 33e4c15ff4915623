//! The planner: a target, a route and what is known of the host make a plan.
//!
//! Called by `plan`, `move` and undo. It reads, asks the kernel about memory of its own, and
//! changes nothing of the target.

use std::cell::RefCell;
use std::collections::BTreeMap;

use linux::calls;
use linux::cgroup::Cgroup;
use linux::proc::{numa_maps, status, sysctl, task, zoneinfo};
use linux::sysfs::{node, topology};
use linux::{PolicyMode, ReadError, Root};
use machine::{Bytes, CpuSet, NodeId, NodeSet, Topology};

use crate::calibrate;
use crate::concern::{Arrival, Circumstances, Concern, Demands, Room, concerns};
use crate::filter::Filter;
use crate::memory::{Memory, Sharing};
use crate::placement::PageSize;
use crate::plan::{Draft, Flow, Flows, Plan, PlannedPass, SharedPart, draft, redraft};
use crate::route::Route;
use crate::sharers;
use crate::target::TargetId;

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A node that the machine does not have, or that has no memory.
    #[error(
        "node {node} is not a node with memory here: the machine has memory on node {}",
        present
    )]
    NoSuchNode {
        /// Nodes that were named and are not there.
        node: NodeSet,
        /// Nodes with memory.
        present: NodeSet,
    },
    /// `--near-cpus` with threads that may run only on nodes without memory.
    #[error(
        "the threads of process {pid} may run on node {cpus} only, and no memory is there: name a node with --to"
    )]
    NoNearMemory {
        /// The target.
        pid: u32,
        /// Nodes of its CPUs.
        cpus: NodeSet,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The nodes of this machine could not be read.
    #[error(transparent)]
    Topology(#[from] topology::ReadTopologyError),
}

/// What a user asks of a plan.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where pages are to go.
    pub route: Wanted,
    /// What it is narrowed to.
    pub filter: Filter,
    /// Whether shared pages move too.
    pub sharing: Sharing,
}

/// A route as a user names it: one of them needs to look at the target first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As given.
    Route(Route),
    /// To where the threads may run.
    NearCpus,
}

/// How much a plan has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What forbids the move; enough to begin one. Costs one survey.
    Refusals,
    /// Also what stays, what will not last, and how long it should take. That reads numa_maps and
    /// the mappings of all processes, and moves a little memory of our own.
    Everything,
}

/// Makes plans on this host, each for after those that it has made before: what they bring to a node is no
/// longer free. A plan that is refused brings nothing.
#[derive(Debug)]
pub struct Planner {
    root: Root,
    machine: Topology,
    /// What the plans so far bring to each node, and take from it.
    promised: RefCell<BTreeMap<NodeId, Promise>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    arriving: Arrival,
    leaving: Bytes,
}

impl Planner {
    /// A planner for the running computer.
    ///
    /// # Errors
    ///
    /// When its nodes cannot be read.
    pub fn new(root: &Root) -> Result<Self, PlanError> {
        let machine = topology::read(root, "this computer")?;
        Ok(Self { root: root.clone(), machine, promised: RefCell::default() })
    }

    /// The nodes of this host.
    pub fn machine(&self) -> &Topology {
        &self.machine
    }

    /// Nodes on which the threads of a process may run.
    ///
    /// # Errors
    ///
    /// When its threads cannot be read.
    pub fn cpu_nodes(&self, pid: u32) -> Result<NodeSet, ReadError> {
        let threads = task::ids(&self.root, pid)?;
        // A thread that has ended meanwhile runs nowhere.
        let cpus: Vec<CpuSet> =
            threads.into_iter().filter_map(|tid| self.thread_cpus(tid)).collect();
        if cpus.is_empty() {
            return Err(ReadError::NoProcess { pid });
        }
        let nodes = cpus.iter().map(|cpus| self.machine.nodes_of(cpus));
        Ok(nodes.fold(NodeSet::EMPTY, |all, nodes| all.union(&nodes)))
    }

    /// By the call, or by the thread's file where the machine has more CPUs than the call can tell.
    fn thread_cpus(&self, tid: u32) -> Option<CpuSet> {
        let from_file = |_| status::read(&self.root, tid).map(|status| status.cpus_allowed);
        calls::thread_cpus(tid).or_else(from_file).ok()
    }

    fn thread_with_memory(&self, pid: u32) -> Result<u32, ReadError> {
        Ok(task::with_memory(&self.root, pid)?.unwrap_or(pid))
    }

    /// Plans what `wish` asks for.
    ///
    /// # Errors
    ///
    /// [`PlanError`]. What merely stands in the way is a concern of the plan.
    pub fn plan(
        &self,
        target: &TargetId,
        memory: &dyn Memory,
        wish: &Wish,
        depth: Depth,
    ) -> Result<Plan, PlanError> {
        let route = self.route(target.pid, &wish.route)?;
        let draft = draft(memory, &self.machine, &route, &wish.filter, wish.sharing)?;
        self.finish(target, route, &wish.filter, wish.sharing, draft, depth)
    }

    /// Looks at an earlier plan again: what it would move now, and what forbids it now.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn renew(&self, plan: Plan, memory: &dyn Memory) -> Result<Plan, PlanError> {
        let Plan { target, route, filter, sharing, passes, .. } = plan;
        let draft = redraft(memory, passes, &filter, sharing)?;
        self.finish(&target, route, &filter, sharing, draft, Depth::Refusals)
    }

    /// Plans the way back of a move, or of what `filter` lets through of it, from the passes of its
    /// [record](crate::journal::Record).
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn plan_back(
        &self,
        target: &TargetId,
        memory: &dyn Memory,
        passes: Vec<PlannedPass>,
        filter: &Filter,
        sharing: Sharing,
    ) -> Result<Plan, PlanError> {
        let draft = redraft(memory, passes, filter, sharing)?;
        self.finish(target, Route::Back, filter, sharing, draft, Depth::Refusals)
    }

    fn route(&self, pid: u32, wanted: &Wanted) -> Result<Route, PlanError> {
        let present = self.machine.memory_nodes();
        let route = match wanted {
            Wanted::Route(route) => route.clone(),
            Wanted::NearCpus => {
                let cpus = self.cpu_nodes(pid)?;
                let near = cpus.intersection(&present);
                if near.is_empty() {
                    return Err(PlanError::NoNearMemory { pid, cpus });
                }
                Route::Near(near)
            }
        };
        let absent = route.destinations().difference(&present);
        if absent.is_empty() {
            Ok(route)
        } else {
            Err(PlanError::NoSuchNode { node: absent, present })
        }
    }

    fn finish(
        &self,
        target: &TargetId,
        route: Route,
        filter: &Filter,
        sharing: Sharing,
        draft: Draft,
        depth: Depth,
    ) -> Result<Plan, PlanError> {
        let demands = demands(target.pid, &draft);
        let mut circumstances = self.limits(target.pid)?;
        let is_confined = !demands.destinations.difference(&circumstances.allowed).is_empty();
        if is_confined || depth == Depth::Everything {
            let cgroup = Cgroup::of_process(&self.root, target.pid).ok();
            circumstances.cgroup = cgroup.map(|group| group.path().display().to_string());
        }
        let flows = flows(&draft.flows);
        let mut expected_ns = None;
        if depth == Depth::Everything {
            self.look_around(target.pid, &draft.shared_parts, &mut circumstances)?;
            expected_ns = self::expected_ns(&flows);
        }
        let mut concerns = concerns(&demands, &circumstances);
        if !concerns.iter().any(Concern::is_refusal) {
            self.promise(&draft.flows);
        }
        if depth == Depth::Refusals {
            concerns.retain(Concern::is_refusal);
        }
        Ok(Plan {
            target: target.clone(),
            route,
            filter: filter.clone(),
            sharing,
            expected_ns,
            flows,
            passes: draft.passes,
            shared_pages: draft.shared_pages,
            concerns,
            look: draft.look,
        })
    }

    fn promise(&self, flows: &Flows) {
        let mut promised = self.promised.borrow_mut();
        for &((from, to, size), pages) in flows.iter() {
            let bytes = Bytes::from_pages(pages);
            if let PageSize::Hugetlb(_) = size {
                promised.entry(to).or_default().arriving.hugetlb += bytes;
            } else {
                promised.entry(to).or_default().arriving.ordinary += bytes;
                promised.entry(from).or_default().leaving += bytes;
            }
        }
    }

    /// What may forbid a move.
    fn limits(&self, pid: u32) -> Result<Circumstances, PlanError> {
        let allowed = status::read(&self.root, pid)?.mems_allowed;
        let with_memory = status::read(&self.root, self.thread_with_memory(pid)?)?;
        let mut rooms = self.rooms()?;
        for (node, promise) in &*self.promised.borrow() {
            if let Some(room) = rooms.get_mut(node) {
                room.free = (room.free + promise.leaving).saturating_sub(promise.arriving.ordinary);
                room.hugetlb_free = room.hugetlb_free.saturating_sub(promise.arriving.hugetlb);
            }
        }
        Ok(Circumstances {
            rooms,
            allowed,
            pinned: with_memory.pinned.unwrap_or_default(),
            ..Circumstances::default()
        })
    }

    /// What will stay, and what will not last.
    fn look_around(
        &self,
        pid: u32,
        shared: &[SharedPart],
        circumstances: &mut Circumstances,
    ) -> Result<(), PlanError> {
        circumstances.cpu_nodes = self.cpu_nodes(pid)?;
        circumstances.numa_balancing = sysctl::numa_balancing(&self.root)?;
        circumstances.policies = self.policies(pid)?;
        circumstances.sharers = sharers::find(&self.root, pid, shared)?;
        Ok(())
    }

    /// Policies of mappings that hold pages or may, and name nodes.
    fn policies(
        &self,
        pid: u32,
    ) -> Result<Vec<(machine::AddrRange, String, linux::MemPolicy)>, PlanError> {
        let tid = self.thread_with_memory(pid)?;
        let maps = linux::proc::maps::read(&self.root, tid)?;
        let lines = numa_maps::read(&self.root, pid).unwrap_or_default();
        let named = lines.into_iter().filter(|line| line.policy.mode != PolicyMode::Default);
        Ok(named
            .filter_map(|line| {
                let map = maps.iter().find(|map| map.range.start() == line.start)?;
                let name = if map.name.is_empty() { "[anon]" } else { &map.name };
                Some((map.range, name.to_owned(), line.policy))
            })
            .collect())
    }

    /// What each node with memory has room for now.
    ///
    /// # Errors
    ///
    /// When its memory cannot be read.
    pub fn rooms(&self) -> Result<BTreeMap<NodeId, Room>, PlanError> {
        let zones = zoneinfo::read(&self.root)?;
        let mut rooms = BTreeMap::new();
        for id in self.machine.memory_nodes().iter() {
            let memory = node::memory(&self.root, id)?;
            let of_node = zones.iter().filter(|zone| zone.node == id);
            let pools = node::huge_pools(&self.root, id)?;
            let free_in_pool = |pool: &node::HugePool| Bytes::new(pool.page_size.get() * pool.free);
            let room = Room {
                free: memory.free(),
                reserve: Bytes::from_pages(of_node.map(|zone| zone.min).sum()),
                cache: memory.size("Active(file)") + memory.inactive_file(),
                hugetlb_free: pools.iter().map(free_in_pool).sum(),
            };
            rooms.insert(id, room);
        }
        Ok(rooms)
    }
}

fn demands(pid: u32, draft: &Draft) -> Demands {
    let mut demands = Demands { pid, shared_pages: draft.shared_pages, ..Demands::default() };
    for pass in &draft.passes {
        demands.destinations = demands.destinations.union(&pass.to.nodes());
    }
    for &((from, to, size), pages) in draft.flows.iter() {
        let bytes = Bytes::from_pages(pages);
        let arrival: &mut Arrival = demands.arriving.entry(to).or_default();
        match size {
            PageSize::Hugetlb(_) => arrival.hugetlb += bytes,
            _ => arrival.ordinary += bytes,
        }
        *demands.leaving.entry(from).or_default() += bytes;
    }
    demands
}

fn flows(flows: &Flows) -> Vec<Flow> {
    flows
        .iter()
        .map(|&((from, to, size), pages)| Flow { from, to, size: size.to_string(), pages })
        .collect()
}

/// Pages of each pair of nodes by what a base page costs between them here.
fn expected_ns(flows: &[Flow]) -> Option<u64> {
    let mut pairs: BTreeMap<(NodeId, NodeId), u64> = BTreeMap::new();
    for flow in flows {
        *pairs.entry((flow.from, flow.to)).or_default() += flow.pages;
    }
    pairs.into_iter().map(|((from, to), pages)| Some(calibrate::page_ns(from, to)? * pages)).sum()
}
