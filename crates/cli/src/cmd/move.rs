//! `pagetide move TARGET`: moves pages, and says what became of each.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use engine::journal::{Journal, Record};
use engine::memory::LinuxMemory;
use engine::mover::{MoveOptions, Mover};
use engine::outcome::{End, Outcome};
use engine::pace::Limits;
use engine::plan::{Plan, PlanFile};
use engine::planner::{Depth, Planner};
use engine::target::Target;
use linux::Root;
use machine::Bytes;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::plan::plan_one;
use super::selection::Selection;
use super::stop;
use super::wish::WishArgs;
use crate::exit::Exit;
use crate::output::progress::ProgressLine;
use crate::output::{json, outcome_text, plan_text};

/// Move pages of a process to other nodes, and account for every one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide move redis-server --to 1
  pagetide move 4242 --from 0 --to 1 --max-stall 2ms
  pagetide move 4242 --undo")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    wish: WishArgs,

    /// Carry out a plan that `pagetide plan --json` wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "cgroup", "undo"])]
    plan: Option<PathBuf>,

    /// Return what the last move of this process changed; pages that have gone elsewhere since are
    /// left alone.
    #[arg(long)]
    undo: bool,

    /// At most this much a second: 500MiB/s.
    #[arg(long, value_name = "BYTES/s", value_parser = parse_rate)]
    rate: Option<Bytes>,

    /// Hold pages no longer than this at a time: 2ms. Shorter is gentler and slower.
    #[arg(long, value_name = "TIME", value_parser = parse_stall)]
    max_stall: Option<Duration>,

    /// Threads that move pages.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,

    /// Do not record what changes; the move cannot be undone then.
    #[arg(long)]
    no_record: bool,

    /// No progress; only the outcome.
    #[arg(long, short)]
    quiet: bool,

    /// Print the outcome as one JSON document; no progress.
    #[arg(long)]
    json: bool,
}

fn parse_rate(text: &str) -> Result<Bytes, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    match size.parse() {
        Ok(Bytes::ZERO) => Err("a rate of nothing would never end".to_owned()),
        Ok(rate) => Ok(rate),
        Err(_) => Err("not a rate: write a size a second, such as 500MiB/s".to_owned()),
    }
}

fn parse_stall(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no call is that short".to_owned()),
        Ok(time) => Ok(time),
        Err(_) => Err("not a time: write a number with a unit, such as 2ms or 500us".to_owned()),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    outcomes: &'a [Outcome],
}

/// A plan, with the opened memory that it is about.
struct Job {
    memory: LinuxMemory,
    plan: Plan,
    /// The record that it undoes.
    undoes: Option<Record>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let planner = Planner::new(&root)?;
    let jobs = jobs(args, &root, &planner)?;
    if refused(&jobs)? {
        return Ok(Exit::SomeStayed);
    }
    let stop = stop::on_signals(&[SIGINT, SIGTERM])?;
    let mut outcomes = Vec::new();
    for job in jobs {
        let outcome = move_one(args, job, &stop)?;
        if !args.json {
            outcome_text::print(&outcome)?;
        }
        outcomes.push(outcome);
    }
    if args.json {
        json::print(&Document { outcomes: &outcomes })?;
    }
    Ok(exit_of(&outcomes))
}

fn jobs(args: &Args, root: &Root, planner: &Planner) -> anyhow::Result<Vec<Job>> {
    if let Some(path) = &args.plan {
        return planned_jobs(root, planner, path);
    }
    let targets = args.selection.open(root)?;
    if args.undo {
        ensure!(!args.wish.is_named(), "--undo knows where pages were: leave the destination out");
        return targets.into_iter().map(|target| undo_job(args, root, planner, target)).collect();
    }
    let wish = args.wish.wish(planner.machine())?;
    let job = |target| {
        let (memory, plan) = plan_one(root, planner, target, &wish, Depth::Refusals)?;
        Ok(Job { memory, plan, undoes: None })
    };
    targets.into_iter().map(job).collect()
}

/// Plans from a file are checked against the host anew: room and cpusets change.
fn planned_jobs(root: &Root, planner: &Planner, path: &PathBuf) -> anyhow::Result<Vec<Job>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the plan {}", path.display()))?;
    let file = PlanFile::from_json(&text).with_context(|| path.display().to_string())?;
    let job = |plan: Plan| {
        let Target { id, pidfd } = Target::reopen(root, &plan.target)?;
        let memory = LinuxMemory::open(root, id.pid, pidfd)?;
        let plan = planner.renew(plan, &memory)?;
        Ok(Job { memory, plan, undoes: None })
    };
    file.plans.into_iter().map(job).collect()
}

fn undo_job(args: &Args, root: &Root, planner: &Planner, target: Target) -> anyhow::Result<Job> {
    let record = Record::last_of(&record_folder()?, &target.id)?;
    let Target { id, pidfd } = target;
    let memory = LinuxMemory::open(root, id.pid, pidfd)?;
    let plan = planner.plan_back(&id, &memory, record.passes_back(), args.wish.sharing())?;
    Ok(Job { memory, plan, undoes: Some(record) })
}

/// Prints why a plan must not begin; all of them are looked at before the first page moves.
fn refused(jobs: &[Job]) -> anyhow::Result<bool> {
    let mut refused = false;
    for job in jobs.iter().filter(|job| job.plan.refusals().next().is_some()) {
        refused = true;
        let mut err = anstream::stderr().lock();
        writeln!(err, "pagetide: process {}: nothing was moved:", job.plan.target.pid)?;
        plan_text::write_concerns(&mut err, job.plan.refusals())?;
    }
    Ok(refused)
}

fn move_one(args: &Args, job: Job, stop: &AtomicBool) -> anyhow::Result<Outcome> {
    let Job { memory, plan, undoes } = job;
    let mut journal = if args.no_record || undoes.is_some() {
        None
    } else {
        let journal = Journal::begin(&record_folder()?, &plan);
        Some(journal.context("use --no-record to move without a way back")?)
    };
    let limits = Limits { rate_per_s: args.rate, stall_max: args.max_stall };
    let options = MoveOptions { limits, threads: args.threads };
    let progress = ProgressLine::new(&plan, args.quiet || args.json);
    let outcome = {
        let on_progress = |state: &engine::mover::Progress| progress.show(state);
        Mover::new(&memory, &plan, options, stop, &on_progress).run(journal.as_mut())?
    };
    progress.finish();
    if let Some(journal) = journal {
        journal.finish()?;
    }
    if let Some(record) = undoes
        && outcome.end == End::Completed
        && outcome.stayed_pages() == 0
    {
        record.forget()?;
    }
    Ok(outcome)
}

/// Where records of moves are kept: `$XDG_STATE_HOME/pagetide/moves`.
fn record_folder() -> anyhow::Result<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    match state {
        Some(state) => Ok(state.join("pagetide/moves")),
        None => bail!(
            "neither XDG_STATE_HOME nor HOME is set: there is no place for the record of moves; set one, or use --no-record"
        ),
    }
}

fn exit_of(outcomes: &[Outcome]) -> Exit {
    let any = |test: fn(&Outcome) -> bool| outcomes.iter().any(test);
    if any(|outcome| outcome.end == End::NotPermitted) {
        Exit::NotPermitted
    } else if any(|outcome| outcome.end == End::TargetGone) {
        Exit::TargetGone
    } else if any(|outcome| outcome.end != End::Completed || outcome.stayed_pages() > 0) {
        Exit::SomeStayed
    } else {
        Exit::Done
    }
}
