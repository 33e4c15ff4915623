//! `pagetide model explain SCENARIO`: what Linux would do, step by step, and by which functions.
//!
//! No process is touched and no kernel asked: the model answers.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use conformance::{explain, kernel_version};
use machine::CpuId;
use model::{Machine, Options};
use scenario::{Kernel, Scenario};

use crate::exit::Exit;

/// Ask the model: Linux's page migration, re-implemented.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    Explain(ExplainArgs),
}

/// Run a scenario and tell of each migration by which functions it came, why, how, and with what
/// result.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide model explain 'map a 4; fill a 0; mp 0 {0} {1}; where a'
  pagetide model explain --machine dram-cxl --kernel 6.1 --file steps.txt")]
struct ExplainArgs {
    /// Steps with semicolons between them; docs/scenarios.md has the notation.
    #[arg(value_name = "SCENARIO", required_unless_present = "file")]
    scenario: Option<String>,

    /// Read the steps from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    file: Option<PathBuf>,

    /// A built-in machine (two-socket, four-socket, snc-4, dram-cxl), or a machine.toml.
    #[arg(long, value_name = "NAME|FILE", default_value = "two-socket")]
    machine: String,

    /// The kernel whose behaviour is shown.
    #[arg(long, value_name = "KERNEL", default_value = "6.12", value_parser = parse_kernel)]
    kernel: Kernel,
}

pub(crate) fn parse_kernel(text: &str) -> Result<Kernel, String> {
    let kernels = [Kernel::V6_1, Kernel::V6_12, Kernel::V7_3];
    let known = || kernels.map(Kernel::name).join(", ");
    kernels
        .into_iter()
        .find(|kernel| kernel.name() == text)
        .ok_or_else(|| format!("the model knows the kernels {}", known()))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Task::Explain(args) = &args.task;
    let text = match (&args.scenario, &args.file) {
        (_, Some(path)) => fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?
            .replace('\n', ";"),
        (scenario, None) => scenario.clone().unwrap_or_default(),
    };
    let scenario: Scenario = text.parse()?;
    let topology = machine::load(&args.machine)?;
    Machine::fits(&topology)?;
    ensure!(
        CpuId::new(0).is_some_and(|first| topology.cpus().contains(first)),
        "the machine {} has no CPU 0, on which a scenario begins",
        topology.name
    );
    let machine = Machine::boot(topology, kernel_version(args.kernel), Options::default());
    let mut out = io::stdout().lock();
    let (steps, unable) = explain(machine, &scenario);
    for step in steps {
        writeln!(out, "{step}")?;
    }
    unable.map_or(Ok(Exit::Done), |why| Err(anyhow::Error::msg(why)))
}
