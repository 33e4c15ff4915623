//! `pagetide machine [FILE]`: what a machine is made of.

use crate::exit::Exit;

/// Show this computer's nodes, CPUs, memory and distances, or those of a machine file.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
