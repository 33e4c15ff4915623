//! How fast the model is: accesses to mapped pages, move_pages(2), and building a large machine.
//!
//! The working set of the accesses is 64 and 256 GiB; with `PAGETIDE_BENCH_TIB` set, 1 TiB too,
//! which takes 8 GiB of the host's memory. `docs/model.md`, "Speed", says what bounds each.
#![expect(clippy::unwrap_used, reason = "a benchmark may fail where it stands")]
#![expect(clippy::cast_possible_truncation, reason = "ranks are drawn below 2^53")]
#![expect(clippy::cast_sign_loss, reason = "ranks are not negative")]

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use machine::{Bytes, CpuId, Node, NodeId, Topology};
use pagetide_model::{
    Access, AccessCounts, BadAddress, Credentials, KernelVersion, Machine, MapKind,
    MovePagesArrays, Options, Protection, TaskId, ThpMode, UserMemory,
};

const BASE: u64 = 0x10_0000_0000;
const PAGE: u64 = 4096;
/// Accesses of a trace: more than any cache holds.
const TRACE: usize = 1 << 24;
/// Pages of a move_pages call.
const MOVED: u64 = 1 << 20;

/// Two nodes that hold `gib` GiB together with room to spare, and a process that uses them.
fn machine_with(gib: u64, thp: ThpMode) -> (Machine, TaskId) {
    let node = |id: u16, cpus: &str| Node {
        id: NodeId::new(id).unwrap(),
        cpus: cpus.parse().unwrap(),
        memory: Bytes::new((gib * 5 / 8) << 30),
        free: None,
        tier: None,
        latency_ns: None,
        bandwidth_per_s: None,
    };
    let topology = Topology::new("bench", vec![node(0, "0-1"), node(1, "2-3")], None).unwrap();
    let options = Options { thp, ..Options::default() };
    let mut machine = Machine::boot(topology, KernelVersion::V6_12, options);
    let task = machine.spawn(Credentials::ROOT, CpuId::new(0).unwrap());
    (machine, task)
}

fn populate(machine: &mut Machine, task: TaskId, pages: u64) {
    machine.mmap(task, BASE, pages, MapKind::Anon, Protection::READ_WRITE).unwrap();
    machine.populate(task, BASE, pages * PAGE, Some(Access::Write)).unwrap();
}

/// Numbers of pages with a zipf distribution of exponent 1, scattered over the working set.
fn zipf_trace(pages: u64) -> Vec<u32> {
    let mut state = 0x1357_9bdf_2468_aceeu64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let rank = |uniform: f64| (pages as f64).powf(uniform) as u64 - 1;
    (0..TRACE)
        .map(|_| rank(next()).wrapping_mul(0x9e37_79b9_7f4a_7c15) % pages)
        .map(|page| u32::try_from(page).unwrap())
        .collect()
}

fn accesses(c: &mut Criterion) {
    let mut group = c.benchmark_group("access");
    group.sample_size(10).throughput(Throughput::Elements(TRACE as u64));
    let with_tib = std::env::var_os("PAGETIDE_BENCH_TIB").is_some();
    for gib in [64, 256, 1024].into_iter().filter(|&gib| gib < 1024 || with_tib) {
        let pages = gib << 18;
        // Made when the first of the two runs, so that a filter on the command line saves time.
        let trace = LazyCell::new(|| zipf_trace(pages));
        let make = || {
            let (mut machine, task) = machine_with(gib, ThpMode::Never);
            populate(&mut machine, task, pages);
            (machine, task)
        };
        let mut mapped = None;
        let mut counts = AccessCounts::default();
        group.bench_function(format!("{gib} GiB of base pages"), |b| {
            let (machine, task) = mapped.get_or_insert_with(make);
            let mut access = |trace| {
                machine.access_pages(*task, BASE, trace, Access::Read, &mut counts).unwrap();
            };
            b.iter(|| access(&trace));
        });
        black_box(&counts);
        // The same loads from a bare table of one byte a page: what the host can do.
        group.bench_function(format!("{gib} GiB, a bare table"), |b| {
            let table = vec![0x80u8; usize::try_from(pages).unwrap()];
            let trace: &[u32] = &trace;
            b.iter(|| {
                let loads = trace.iter().map(|&page| u64::from(table[page as usize] & 0x1f));
                black_box(loads.sum::<u64>())
            });
        });
    }
}

/// The three arrays of move_pages(2), each at an address of its own.
struct Arrays {
    pages: Vec<u8>,
    nodes: Vec<u8>,
    status: Vec<u8>,
}

const PAGES_AT: u64 = 1 << 40;
const NODES_AT: u64 = 2 << 40;
const STATUS_AT: u64 = 3 << 40;

impl UserMemory for Arrays {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), BadAddress> {
        let (array, start) =
            if address >= NODES_AT { (&self.nodes, NODES_AT) } else { (&self.pages, PAGES_AT) };
        let at = usize::try_from(address - start).map_err(|_| BadAddress)?;
        buffer.copy_from_slice(array.get(at..at + buffer.len()).ok_or(BadAddress)?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let at = usize::try_from(address - STATUS_AT).map_err(|_| BadAddress)?;
        self.status.get_mut(at..at + bytes.len()).ok_or(BadAddress)?.copy_from_slice(bytes);
        Ok(())
    }
}

fn arrays_to(node: i32) -> Arrays {
    Arrays {
        pages: (0..MOVED).flat_map(|page| (BASE + page * PAGE).to_le_bytes()).collect(),
        nodes: (0..MOVED).flat_map(|_| node.to_le_bytes()).collect(),
        status: vec![0; usize::try_from(MOVED).unwrap() * 4],
    }
}

fn move_pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("move_pages");
    group.sample_size(20).throughput(Throughput::Elements(MOVED));
    let (mut machine, task) = machine_with(32, ThpMode::Never);
    populate(&mut machine, task, MOVED);
    let mut arrays = [arrays_to(1), arrays_to(0)];
    let count = MOVED;
    let addresses = MovePagesArrays { count, pages: PAGES_AT, nodes: NODES_AT, status: STATUS_AT };
    let mut turn = 0;
    group.bench_function("a million base pages", |b| {
        b.iter(|| {
            let user = &mut arrays[turn % 2];
            turn += 1;
            assert_eq!(machine.move_pages(user, task, 0, addresses, 2), Ok(0));
        });
    });
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for (name, thp) in [("base pages", ThpMode::Never), ("THPs", ThpMode::Always)] {
        let gib = 16;
        group.throughput(Throughput::Bytes(gib << 30));
        group.bench_function(format!("{gib} GiB of {name}"), |b| {
            b.iter_batched(
                || machine_with(gib, thp),
                |(mut machine, task)| {
                    populate(&mut machine, task, gib << 18);
                    machine
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, accesses, move_pages, build);
criterion_main!(benches);
