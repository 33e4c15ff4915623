//! The mover against migrate_pages(2) and bare move_pages(2).

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::ensure;
use engine::filter::Filter;
use engine::memory::{Memory as _, Sharing};
use engine::mover::{MoveOptions, Mover};
use engine::outcome::Outcome;
use engine::pace::Limits;
use engine::planner::{Depth, Planner, Wanted, Wish};
use engine::route::Route;
use linux::Root;
use linux::calls::{MoveFlags, migrate_pages, move_pages};
use machine::{BASE_PAGE_BYTES, NodeId, NodeSet};

use crate::sample::{Sample, note, row, timed};
use crate::target::Target;

/// A small node number.
pub(crate) fn node(raw: u16) -> NodeId {
    NodeId::new(raw).unwrap_or_else(|| unreachable!("nodes of a benchmark are small"))
}

/// The other one of nodes 0 and 1.
fn other(at: NodeId) -> NodeId {
    node(1 - at.get().min(1))
}

/// `pagetide move --to`, all of it: open, survey, plan, move, verify.
fn our_move(
    target: &Target,
    planner: &Planner,
    to: NodeId,
    options: MoveOptions,
) -> anyhow::Result<(Outcome, Duration)> {
    let wish = Wish {
        route: Wanted::Route(Route::To(to)),
        filter: Filter::default(),
        sharing: Sharing::OwnOnly,
    };
    timed(|| {
        let (id, memory) = target.open()?;
        let plan = planner.plan(&id, &memory, &wish, Depth::Refusals)?;
        let stop = AtomicBool::new(false);
        Ok(Mover::new(&memory, &plan, options, &stop, &|_| ()).run(None)?)
    })
}

/// One migrate_pages(2) call for the whole process.
fn their_move(target: &Target, to: NodeId) -> anyhow::Result<Duration> {
    let (from, to) = (NodeSet::only(other(to)), NodeSet::only(to));
    Ok(timed(|| Ok(migrate_pages(target.pid(), &from, &to)?))?.1)
}

/// Times and stalls of both, in turn.
#[derive(Default)]
struct Duel {
    ours: Sample,
    theirs: Sample,
    our_stalls: Sample,
    their_stalls: Sample,
    /// The part of our time that the calls of move_pages took.
    calls: Sample,
}

impl Duel {
    fn fight(target: &mut Target, rounds: usize, options: MoveOptions) -> anyhow::Result<Self> {
        let planner = Planner::new(&Root::default())?;
        let mut duel = Self::default();
        let mut at = node(0);
        for _ in 0..rounds {
            at = other(at);
            target.stall_us()?;
            duel.theirs.add(their_move(target, at)?);
            duel.their_stalls.add(Duration::from_secs_f64(target.stall_us()? / 1e6));
            at = other(at);
            target.stall_us()?;
            let (outcome, took) = our_move(target, &planner, at, options)?;
            duel.ours.add(took);
            duel.calls.add(Duration::from_nanos(outcome.calls_ns));
            duel.our_stalls.add(Duration::from_secs_f64(target.stall_us()? / 1e6));
            let pages = target.areas[0].pages();
            ensure!(outcome.moved_pages >= pages, "only {} pages moved", outcome.moved_pages);
        }
        target.check()?;
        Ok(duel)
    }

    fn report(&self, name: &str) -> anyhow::Result<()> {
        row(name, &self.ours, "migrate_pages", &self.theirs)?;
        row("of which in the kernel's calls", &self.calls, "migrate_pages", &self.theirs)?;
        Ok(row(
            "longest stall of the target",
            &self.our_stalls,
            "migrate_pages",
            &self.their_stalls,
        )?)
    }
}

const DEFAULTS: MoveOptions =
    MoveOptions { limits: Limits { rate_per_s: None, stall_max: None }, threads: 1 };

/// 256 MiB at default settings, idle and while a thread keeps touching it.
pub(crate) fn against_migrate_pages() -> anyhow::Result<()> {
    let mut target = Target::start(&["a=anon:256M,node=0"])?;
    Duel::fight(&mut target, 7, DEFAULTS)?.report("move of 256 MiB, idle")?;
    drop(target);
    let mut target = Target::start(&["--cpu", "1", "a=anon:256M,node=0,touch"])?;
    Duel::fight(&mut target, 7, DEFAULTS)?.report("move of 256 MiB, being touched")
}

/// The same with `--max-stall`, for several limits.
pub(crate) fn with_bounded_stall() -> anyhow::Result<()> {
    let mut target = Target::start(&["--cpu", "1", "a=anon:256M,node=0,touch"])?;
    let mut undisturbed = Sample::default();
    for _ in 0..5 {
        target.stall_us()?;
        std::thread::sleep(Duration::from_millis(1300));
        undisturbed.add(Duration::from_secs_f64(target.stall_us()? / 1e6));
    }
    note(format!("longest stall while nothing moves: {:.1} ms", undisturbed.median() * 1e3))?;
    for limit_ms in [2, 10, 60] {
        let limit = Duration::from_millis(limit_ms);
        let limits = Limits { rate_per_s: None, stall_max: Some(limit) };
        let options = MoveOptions { limits, threads: 1 };
        Duel::fight(&mut target, 5, options)?
            .report(&format!("move of 256 MiB, --max-stall {limit_ms}ms"))?;
    }
    Ok(())
}

/// Every second page of a running process is home already: one move_pages call over all pages against ours.
pub(crate) fn half_home() -> anyhow::Result<()> {
    let planner = Planner::new(&Root::default())?;
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    let words = ["--cpu", "1", "a=anon:128M,nodes=0,1,touch"];
    for _ in 0..5 {
        let target = Target::start(&words)?;
        let (first, pages) = (target.areas[0].start(), target.areas[0].pages());
        let addresses: Vec<u64> = (0..pages).map(|page| first + page * BASE_PAGE_BYTES).collect();
        let nodes = vec![1; addresses.len()];
        let mut status = vec![0; addresses.len()];
        let flags = MoveFlags::MOVE_ALL;
        let call = || Ok(move_pages(target.pid(), &addresses, &nodes, &mut status, flags)?);
        theirs.add(timed(call)?.1);
        drop(target);
        let target = Target::start(&words)?;
        let (outcome, took) = our_move(&target, &planner, node(1), DEFAULTS)?;
        ensure!(outcome.moved_pages >= pages / 2, "only {} pages moved", outcome.moved_pages);
        ours.add(took);
    }
    Ok(row("move, every second page home", &ours, "one move_pages over all pages", &theirs)?)
}

/// One and two threads on 1 GiB, against migrate_pages.
pub(crate) fn with_threads() -> anyhow::Result<()> {
    let mut target = Target::start(&["a=anon:1G,node=0"])?;
    for threads in [1, 2] {
        let options = MoveOptions { threads, ..DEFAULTS };
        let planner = Planner::new(&Root::default())?;
        let (mut ours, mut theirs) = (Sample::default(), Sample::default());
        for _ in 0..5 {
            theirs.add(their_move(&target, node(1))?);
            ours.add(our_move(&target, &planner, node(0), options)?.1);
        }
        target.check()?;
        row(&format!("move of 1 GiB, {threads} threads"), &ours, "migrate_pages", &theirs)?;
    }
    Ok(())
}

/// What the mover adds to the bare calls that it makes: all its time against the time in them.
pub(crate) fn own_cost() -> anyhow::Result<()> {
    let target = Target::start(&["a=anon:256M,node=0"])?;
    let planner = Planner::new(&Root::default())?;
    let (mut ours, mut calls) = (Sample::default(), Sample::default());
    let mut at = node(0);
    for _ in 0..9 {
        at = other(at);
        let (id, memory) = target.open()?;
        let route = Wanted::Route(Route::To(at));
        let wish = Wish { route, filter: Filter::default(), sharing: Sharing::OwnOnly };
        let plan = planner.plan(&id, &memory, &wish, Depth::Refusals)?;
        let stop = AtomicBool::new(false);
        let outcome = Mover::new(&memory, &plan, DEFAULTS, &stop, &|_| ()).run(None)?;
        ensure!(memory.is_alive());
        ours.add(Duration::from_nanos(outcome.elapsed_ns));
        calls.add(Duration::from_nanos(outcome.calls_ns));
    }
    Ok(row("the mover, all of its time", &ours, "the bare calls within it", &calls)?)
}

/// What a call costs by its size: bare move_pages(2) over 32 MiB, idle and while being touched.
pub(crate) fn call_sizes() -> anyhow::Result<()> {
    for touch in ["", ",touch"] {
        let mut target = Target::start(&["--cpu", "1", &format!("a=anon:32M,node=0{touch}")])?;
        let (first, pages) = (target.areas[0].start(), target.areas[0].pages());
        let addresses: Vec<u64> = (0..pages).map(|page| first + page * BASE_PAGE_BYTES).collect();
        let mut at = node(0);
        for size in [16, 64, 256, 512, 1024, 4096, 8192] {
            at = other(at);
            target.stall_us()?;
            let mut calls = Sample::default();
            for chunk in addresses.chunks(size) {
                let nodes = vec![at.as_raw(); chunk.len()];
                let mut status = vec![0; chunk.len()];
                let flags = MoveFlags::MOVE;
                let call = || Ok(move_pages(target.pid(), chunk, &nodes, &mut status, flags)?);
                calls.add(timed(call)?.1);
            }
            let touched = if touch.is_empty() { "idle" } else { "being touched" };
            let median_us = calls.median() * 1e6;
            let stall_us = target.stall_us()?;
            note(format!(
                "{touched}, {size} pages a call: {median_us:.0} us a call, longest stall {stall_us:.0} us"
            ))?;
        }
    }
    Ok(())
}
