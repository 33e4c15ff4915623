//! `pagetide plan TARGET`: what a move would do, before it does anything.

use engine::memory::LinuxMemory;
use engine::plan::Plan;
use engine::planner::{Depth, Planner, Wish};
use engine::target::Target;
use linux::Root;
use serde::Serialize;

use super::selection::Selection;
use super::wish::WishArgs;
use crate::exit::Exit;
use crate::output::{json, plan_text};

/// Show what a move would do: what moves where, whether it fits, what stays, whether it lasts.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide plan redis-server --to 1
  pagetide plan 4242 --interleave 0=3,1=1 --kind anon
  pagetide plan 4242 --to 1 --json > plan.json; pagetide move --plan plan.json")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    wish: WishArgs,

    /// Print one JSON document, which `pagetide move --plan` reads.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints: an [`engine::plan::PlanFile`].
#[derive(Serialize)]
struct Document<'a> {
    plans: &'a [Plan],
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let planner = Planner::new(&root)?;
    let wish = args.wish.wish(planner.machine())?;
    let plan = |target| Ok(plan_one(&root, &planner, target, &wish, Depth::Everything)?.1);
    let plans = args.selection.each(&root, plan)?;
    let refused = plans.iter().any(|plan| plan.refusals().next().is_some());
    if args.json {
        json::print(&Document { plans: &plans })?;
    } else {
        plans.iter().try_for_each(plan_text::print)?;
    }
    Ok(if refused { Exit::SomeStayed } else { Exit::Done })
}

/// Opens the memory of a target and plans what `wish` asks for.
pub(crate) fn plan_one(
    root: &Root,
    planner: &Planner,
    target: Target,
    wish: &Wish,
    depth: Depth,
) -> anyhow::Result<(LinuxMemory, Plan)> {
    let Target { id, pidfd } = target;
    let memory = LinuxMemory::open(root, id.pid, pidfd)?;
    let plan = planner.plan(&id, &memory, wish, depth)?;
    Ok((memory, plan))
}
