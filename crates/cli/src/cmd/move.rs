//! `pagetide move TARGET`: moves pages, and says what became of each.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use engine::filter::Filter;
use engine::journal::{Journal, JournalError, Record};
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

    /// Carry out a plan that `pagetide plan --json` wrote, as it is there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "cgroup", "undo", "WishArgs"])]
    plan: Option<PathBuf>,

    /// Return what the last move of this process changed, or as much of it as --range, --mapping,
    /// --kind, --page-size and --limit say; pages that have gone elsewhere since are left alone.
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

/// What is to be done.
#[derive(Default)]
struct Jobs {
    jobs: Vec<Job>,
    /// What stands in the way of single plans of a file.
    gone: Vec<anyhow::Error>,
}

/// What a move has come to: its account comes first, whatever else has failed.
struct Moved {
    outcome: Outcome,
    /// What became of its record.
    record: Result<(), JournalError>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let planner = Planner::new(&root)?;
    let Jobs { jobs, gone } = jobs(args, &root, &planner)?;
    if refused(&jobs)? {
        return Ok(Exit::SomeStayed);
    }
    let stop = stop::on_signals(&[SIGINT, SIGTERM])?;
    let mut outcomes = Vec::new();
    let (mut printed, mut failed) = (anyhow::Ok(()), None);
    for job in jobs {
        match move_one(args, job, &stop) {
            Ok(Moved { outcome, record }) => {
                if !args.json && printed.is_ok() {
                    printed = outcome_text::print(&outcome).map_err(anyhow::Error::from);
                }
                outcomes.push(outcome);
                failed = failed.or(record.err().map(anyhow::Error::from));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if args.json {
        printed = json::print(&Document { outcomes: &outcomes });
    }
    if let Some(error) = failed {
        return Err(error);
    }
    match printed {
        // Who closes the pipe has read enough; what was done is the same.
        Err(error) if Exit::of(&error) != Exit::Done => Err(error),
        _ if gone.is_empty() => Ok(exit_of(&outcomes)),
        _ => Ok(Exit::TargetGone),
    }
}

fn jobs(args: &Args, root: &Root, planner: &Planner) -> anyhow::Result<Jobs> {
    if let Some(path) = &args.plan {
        return planned_jobs(root, planner, path);
    }
    let jobs = if args.undo {
        ensure!(!args.wish.is_named(), "--undo knows where pages were: leave the destination out");
        args.selection.each(root, |target| undo_job(args, root, planner, target))?
    } else {
        let wish = args.wish.wish(planner.machine())?;
        args.selection.each(root, |target| {
            let (memory, plan) = plan_one(root, planner, target, &wish, Depth::Refusals)?;
            Ok(Job { memory, plan, undoes: None })
        })?
    };
    Ok(Jobs { jobs, gone: Vec::new() })
}

/// Plans from a file are checked against the host anew: room and cpusets change. Of several, the plan of a
/// process that has gone is told and left out.
fn planned_jobs(root: &Root, planner: &Planner, path: &PathBuf) -> anyhow::Result<Jobs> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the plan {}", path.display()))?;
    let file = PlanFile::from_json(&text).with_context(|| path.display().to_string())?;
    let job = |plan: Plan| {
        let Target { id, pidfd } = Target::reopen(root, &plan.target)?;
        let memory = LinuxMemory::open(root, id.pid, pidfd)?;
        let plan = planner.renew(plan, &memory)?;
        anyhow::Ok(Job { memory, plan, undoes: None })
    };
    let mut all = Jobs::default();
    for plan in file.plans {
        match job(plan) {
            Err(error) if Exit::of(&error) == Exit::TargetGone => all.gone.push(error),
            result => all.jobs.push(result?),
        }
    }
    if all.jobs.is_empty()
        && let Some(error) = all.gone.pop()
    {
        return Err(error);
    }
    let mut err = anstream::stderr().lock();
    for error in &all.gone {
        writeln!(err, "pagetide: {error:#}")?;
    }
    Ok(all)
}

fn undo_job(args: &Args, root: &Root, planner: &Planner, target: Target) -> anyhow::Result<Job> {
    let record = Record::last_of(&record_folder()?, &target.id)?;
    let Target { id, pidfd } = target;
    let memory = LinuxMemory::open(root, id.pid, pidfd)?;
    let (filter, sharing) = (args.wish.filter(), args.wish.sharing());
    let plan = planner.plan_back(&id, &memory, record.passes_back(), &filter, sharing)?;
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

fn move_one(args: &Args, job: Job, stop: &AtomicBool) -> anyhow::Result<Moved> {
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
    let is_all = outcome.end == End::Completed && outcome.stayed_pages() == 0;
    let record = match (journal, undoes) {
        (Some(journal), _) => journal.finish(),
        (None, Some(record)) if is_all && plan.filter == Filter::default() => record.forget(),
        _ => Ok(()),
    };
    Ok(Moved { outcome, record })
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
