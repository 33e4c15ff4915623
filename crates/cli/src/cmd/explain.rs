//! `pagetide explain TARGET ADDRESS`: one page, and whether it would migrate.

use engine::page::{Ask, PageReport, Place};
use engine::planner::Planner;
use engine::target::Target;
use linux::Root;
use machine::NodeId;

use crate::exit::Exit;
use crate::output::{explain_text, json};

/// Explain one page: its mapping, policy, node, size, flags and sharers, and whether it would migrate
/// now and where to. Looks only, unless --try is given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide explain redis-server '[heap]+0'
  pagetide explain 4242 7fea29000000 --try
  pagetide explain 4242 7fea29000000 --try --to 2 --json")]
pub(crate) struct Args {
    /// The process: its pid, or its name as `ps -e` shows it.
    #[arg(value_name = "TARGET")]
    target: String,

    /// The page: an address in hexadecimal, as /proc/PID/maps has it, or MAPPING+OFFSET.
    #[arg(value_name = "ADDRESS")]
    place: Place,

    /// Ask the kernel: move the page to the nearest node that is open to it, and back. The whole folio
    /// goes along; what is in it does not change. Shared pages are left alone. Ends with status 1
    /// when it did not move there and back.
    #[arg(long = "try")]
    is_try: bool,

    /// The node that --try moves it to.
    #[arg(long, value_name = "NODE", requires = "is_try", value_parser = node)]
    to: Option<NodeId>,

    /// Print one JSON document; addresses as hexadecimal text, all else that is a number as integer.
    #[arg(long)]
    json: bool,
}

fn node(text: &str) -> Result<NodeId, String> {
    let node = text.parse().ok().and_then(NodeId::new);
    node.ok_or_else(|| format!("not a node number below {}", NodeId::LIMIT))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let planner = Planner::new(&root)?;
    let target = Target::find(&root, &args.target)?;
    let ask = if args.is_try { Ask::Try(args.to) } else { Ask::Look };
    let report = PageReport::take(&root, &planner, target, &args.place, ask)?;
    if args.json {
        json::print(&report)?;
    } else {
        explain_text::print(&report)?;
    }
    let stayed = report.trial.is_some_and(|trial| !trial.has_moved());
    Ok(if stayed { Exit::SomeStayed } else { Exit::Done })
}
