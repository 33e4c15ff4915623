//! `pagetide actor SCENARIO`: what this kernel does, step by step, with real system calls.

use std::io::{self, Write as _};

use agent::actor::{Director, play_stream};
use scenario::{End, Scenario};

use crate::exit::Exit;

/// Perform a scenario with real system calls and print what each step gave.
///
/// Without a scenario: cases from standard input, one a line (NUMBER STEPS), and a record of each.
/// It runs as root, on CPU 0, in processes of its own, and puts back what it changed: best in a
/// guest of `pagetide lab`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide lab -- pagetide actor 'map a 4; fill a 0; mp 0 {0} {1}; where a'
  pagetide lab -- pagetide actor <cases.txt")]
pub(crate) struct Args {
    /// Steps with semicolons between them; docs/scenarios.md has the notation.
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut out = io::stdout();
    let Some(text) = &args.scenario else {
        play_stream(io::stdin().lock(), &mut out)?;
        return Ok(Exit::Done);
    };
    let scenario: Scenario = text.parse()?;
    let record = Director::new()?.play(&scenario);
    for (number, act) in scenario.acts.iter().enumerate() {
        match record.result(number) {
            Some(result) => writeln!(out, "{act} -> {result}")?,
            None => writeln!(out, "{act}")?,
        }
    }
    match record.end {
        End::Done => Ok(Exit::Done),
        End::Dead(signal) => anyhow::bail!("signal {signal} killed a process of the scenario"),
        End::Stuck => anyhow::bail!("a step of the scenario did not come to an end"),
        End::Failed(reason) => anyhow::bail!("{reason}"),
    }
}
