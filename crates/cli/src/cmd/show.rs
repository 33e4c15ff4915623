//! `pagetide show [TARGET]`: where the memory of a process lives.

use engine::census::Census;
use engine::planner::Planner;
use engine::process::ProcessSurvey;
use linux::Root;
use linux::cgroup::{Cgroup, NumaStat};
use serde::Serialize;

use super::selection::Selection;
use crate::exit::Exit;
use crate::output::{json, show_text};

/// Processes that are listed without a target.
const WORST: usize = 10;

/// Show where the memory of a process lies: by node, page size, kind and mapping. Without a target:
/// the ten processes with most memory away from their CPUs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide show
  pagetide show redis-server
  pagetide show --cgroup /system.slice/postgresql.service --json")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,

    /// Print one JSON document; sizes are integers, in bytes or base pages of 4 KiB as named.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints for targets.
#[derive(Serialize)]
struct Document<'a> {
    processes: &'a [ProcessSurvey],
    /// Processes of the cgroup that may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a NumaStat>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let planner = Planner::new(&root)?;
    if args.selection.is_empty() {
        return worst(args, &root, &planner);
    }
    let survey = |target| Ok(ProcessSurvey::take(&root, &planner, target)?);
    let (processes, unreadable) = args.selection.each_readable(&root, survey)?;
    let cgroup = args.selection.cgroup.as_ref();
    let charged = match cgroup {
        Some(path) => Cgroup::open(&root, path)?.numa_stat()?,
        None => None,
    };
    if args.json {
        let unreadable = cgroup.map(|_| unreadable);
        json::print(&Document { processes: &processes, unreadable, cgroup: charged.as_ref() })?;
    } else {
        show_text::print(&processes, unreadable, charged.as_ref())?;
    }
    Ok(Exit::Done)
}

fn worst(args: &Args, root: &Root, planner: &Planner) -> anyhow::Result<Exit> {
    let mut census = Census::take(root, planner)?;
    census.processes.truncate(WORST);
    if args.json {
        json::print(&census)?;
    } else {
        show_text::print_census(&census)?;
    }
    Ok(Exit::Done)
}
