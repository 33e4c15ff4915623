//! `pagetide actor SCENARIO`: what this kernel does, step by step, with real system calls.

use std::ffi::c_int;
use std::io::{self, BufReader, PipeReader, Read, Write as _};

use agent::actor::{Director, play_stream};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use scenario::{End, Scenario};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::stop;
use crate::exit::Exit;

/// Signals at which all that was changed is put back. The second one ends the actor as it is.
const SIGNALS: [c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Perform a scenario with real system calls and print what each step gave.
///
/// Without a scenario: cases from standard input, one a line (NUMBER STEPS), and a record of each.
/// It runs as root, on CPU 0, in processes of its own, and puts back what it changed, also when a
/// signal ends it: best in a guest of `pagetide lab`.
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
        let cases = UntilSignal::new().context("cannot catch signals")?;
        let stop = stop::on_signals(&SIGNALS)?;
        play_stream(BufReader::new(cases), &mut out, stop)?;
        return Ok(Exit::Done);
    };
    let scenario: Scenario = text.parse()?;
    let record = Director::new(stop::on_signals(&SIGNALS)?)?.play(&scenario);
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

/// Standard input, which a signal ends.
struct UntilSignal {
    /// Has something to read once a signal came.
    signalled: PipeReader,
}

impl UntilSignal {
    fn new() -> io::Result<Self> {
        let (signalled, signal) = io::pipe()?;
        for number in SIGNALS {
            signal_hook::low_level::pipe::register(number, signal.try_clone()?)?;
        }
        Ok(Self { signalled })
    }
}

impl Read for UntilSignal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let mut polled =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.signalled, PollFlags::IN)];
        retry_on_intr(|| poll(&mut polled, None))?;
        if !polled[1].revents().is_empty() {
            return Ok(0);
        }
        Ok(retry_on_intr(|| rustix::io::read(&stdin, &mut *buffer))?)
    }
}
