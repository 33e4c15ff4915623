//! A loop on the model.
//!
//! A pass takes no time there, and happens when it begins in the guest; then its thread burns what is
//! left of its part of the beat.

use machine::{CpuId, MachineFileError, NodeId};
use model::{
    Access, Advice, BalancingSettings, Buffers, Counter, Credentials, Event, FileKind,
    KernelVersion, Machine, MapKind, MovePagesArrays, Options, Protection, TaskId, ThpMode,
    VDSO_ADDRESS, VVAR_PAGES,
};

use super::{Loop, Memory, Seen, Thread};
use crate::player::PAGE;

/// Where the area lies.
const AREA: u64 = 0x10_0000_0000;
/// Where a mask lies in the caller's memory.
const MASK: u64 = 0x10_0000;
const BIND: i32 = 2;
/// Mappings of the program's own that the scanner walks too, a page each: data, heap and stacks below
/// the area, and the data of libraries, thread-local storage and stacks behind it. A thread uses one
/// on either side, its stack and its thread-local storage.
const OWN: [(u64, u64); 2] = [(AREA - 0x1000_0000, 4), (AREA + 0x1000_0000, 8)];
/// From one of them to the next.
const OWN_STRIDE: u64 = 2 * PAGE;
/// For how long the main thread has run when the loop begins, in the guest too.
const HEAD_START_MS: u64 = 545;

impl Loop {
    /// Performs the loop on the model of a kernel. After each pass `check` sees the machine.
    ///
    /// # Errors
    ///
    /// The machine is not one that is built in.
    pub fn play(
        &self,
        version: KernelVersion,
        mut check: impl FnMut(&Machine),
    ) -> Result<Seen, MachineFileError> {
        let options = Options { thp: ThpMode::Madvise, ..Options::default() };
        let mut machine = Machine::boot(machine::load(self.machine)?, version, options);
        let main = self.set_up(&mut machine);
        let before = machine.counters().clone();
        machine.trace_on();
        let tasks = self.start(&mut machine, main);
        let part_ms = u64::from(self.beat_ms) / tasks.len() as u64;
        for _ in 0..self.passes {
            for (index, (&task, &thread)) in (0..).zip(tasks.iter().zip(self.threads)) {
                self.use_own(&mut machine, task, index);
                self.pass(&mut machine, task, thread);
                machine.run(task, part_ms);
                check(&machine);
            }
        }
        Ok(self.seen(&mut machine, main, &before))
    }

    /// A process whose area is filled on its node, with balancing off.
    fn set_up(&self, machine: &mut Machine) -> TaskId {
        let task = machine.spawn(Credentials::ROOT, cpu(self.threads[0]));
        let vdso = VDSO_ADDRESS - VVAR_PAGES * PAGE;
        // Its hint faults would only blur the counters.
        machine.munmap(task, vdso, (VVAR_PAGES + 2) * PAGE).expect("the vdso can be unmapped");
        machine.set_balancing(self.settings(machine, 0)).expect("0 is a mode");
        self.map(machine, task);
        self.fill(machine, task);
        task
    }

    /// Fills the area from a thread that ends then.
    fn fill(&self, machine: &mut Machine, main: TaskId) {
        let task = machine.clone_thread(main).expect("the main thread lives");
        let mut user = Buffers::default();
        user.put(MASK, (1u64 << self.node).to_le_bytes().to_vec());
        let bound = machine.set_mempolicy(&user, task, BIND, MASK, 65);
        bound.expect("the machine has the node");
        let is_read = self.memory == Memory::ReadOnlyFile;
        let access = if is_read { Access::Read } else { Access::Write };
        for page in 0..u64::from(self.pages) {
            let touched = machine.access(task, AREA + page * PAGE, access);
            touched.expect("the node has room for the area");
        }
        machine.reap(task);
    }

    fn map(&self, machine: &mut Machine, task: TaskId) {
        let pages = u64::from(self.pages);
        let (kind, protection) = match self.memory {
            Memory::Anon | Memory::Thp => (MapKind::Anon, Protection::READ_WRITE),
            Memory::Memfd => {
                let file = machine.create_file(FileKind::Memfd, "/memfd:a (deleted)");
                (MapKind::Shared(file, 0), Protection::READ_WRITE)
            }
            Memory::ReadOnlyFile => {
                let file = machine.create_file(FileKind::Tmpfs, "/root/loop");
                (MapKind::Shared(file, 0), Protection::READ)
            }
        };
        for (start, count) in OWN {
            for own in 0..count {
                let address = start + own * OWN_STRIDE;
                let mapped = machine.mmap(task, address, 1, MapKind::Anon, Protection::READ_WRITE);
                mapped.expect("the program has a place");
                // The stacks of other threads are first touched by them.
                if own == 0 || own >= self.threads.len() as u64 {
                    machine.access(task, address, Access::Write).expect("there is room");
                }
            }
        }
        machine.mmap(task, AREA, pages, kind, protection).expect("the area has a place");
        if self.memory == Memory::Thp {
            let advised = machine.madvise(task, AREA, pages * PAGE, Advice::HugePage);
            advised.expect("a fresh mapping takes advice");
        }
    }

    /// Starts the other threads and turns balancing on.
    fn start(&self, machine: &mut Machine, main: TaskId) -> Vec<TaskId> {
        let other = |&thread: &Thread| {
            let task = machine.clone_thread(main).expect("the main thread lives");
            machine.set_cpu(task, cpu(thread)).expect("the machine has the CPU");
            task
        };
        let others: Vec<TaskId> = self.threads.iter().skip(1).map(other).collect();
        let tasks: Vec<TaskId> = std::iter::once(main).chain(others).collect();
        for (&task, index) in tasks.iter().zip(0..) {
            self.use_own(machine, task, index);
        }
        empty_lru_batches(machine, main);
        machine.run(main, HEAD_START_MS);
        let settings = self.settings(machine, self.switches.mode);
        machine.set_balancing(settings).expect("the mode is one of the kernel's");
        tasks
    }

    fn settings(&self, machine: &Machine, mode: u8) -> BalancingSettings {
        BalancingSettings {
            mode,
            scan_delay_ms: self.switches.scan_delay_ms,
            scan_period_min_ms: self.switches.scan_period_min_ms,
            scan_period_max_ms: self.switches.scan_period_max_ms,
            hot_threshold_ms: self.switches.hot_threshold_ms,
            ..machine.balancing()
        }
    }

    /// Thread number `index` uses its own memory.
    fn use_own(&self, machine: &mut Machine, task: TaskId, index: u64) {
        for (start, _) in OWN {
            let used = machine.access(task, start + index * OWN_STRIDE, Access::Write);
            used.expect("a loop has fewer threads than that");
        }
    }

    fn pass(&self, machine: &mut Machine, task: TaskId, thread: Thread) {
        let access = if self.writes { Access::Write } else { Access::Read };
        for page in thread.from..thread.upto {
            let accessed = machine.access(task, AREA + u64::from(page) * PAGE, access);
            accessed.expect("the area is mapped and filled");
        }
    }

    fn seen(&self, machine: &mut Machine, task: TaskId, before: &model::Counters) -> Seen {
        let mut seen = Seen::default();
        for page in 0..u64::from(self.pages) {
            if let Some(node) = machine.node_of(task, AREA + page * PAGE) {
                *seen.nodes.entry(NodeId::get(node)).or_default() += 1;
            }
        }
        for &counter in Counter::ALL {
            let change = machine.counters().since(before, counter);
            if change > 0 {
                seen.counters.insert(counter.name().to_owned(), change);
            }
        }
        for event in machine.take_events() {
            if let Event::MigratePages { counts, reason, .. } = event {
                *seen.migrated.entry(reason.name().to_owned()).or_default() += counts.succeeded;
            }
        }
        seen
    }
}

/// As the program does: a move_pages(2) that names no page.
fn empty_lru_batches(machine: &mut Machine, task: TaskId) {
    let nothing = MovePagesArrays { count: 0, pages: MASK, nodes: MASK, status: MASK };
    let drained = machine.move_pages(&mut Buffers::default(), task, 0, nothing, 0);
    drained.expect("a call without pages succeeds");
}

fn cpu(thread: Thread) -> CpuId {
    CpuId::new(thread.cpu).expect("a loop names CPUs of its machine")
}
