//! The pagetide command: reads the command line, runs one subcommand, ends with its status.
//!
//! One binary, several names: called as `migratepages` it is the drop-in for numactl's tool.
//! A subcommand is a file in `cmd/`, with its `Args` for clap and its `run`; it is named in three
//! places below. It holds no logic of its own: it asks a library, and prints.

#![forbid(unsafe_code)]

mod cmd {
    pub(crate) mod machine;
    pub(crate) mod migratepages;
}
mod exit;
mod output {
    pub(crate) mod table;
}

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use exit::Exit;

/// Page migration for Linux: see where a process's memory lives, and move it.
#[derive(clap::Parser)]
#[command(name = "pagetide", version, arg_required_else_help = true, after_help = exit::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Machine(cmd::machine::Args),
}

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().collect();
    let name = words.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == "migratepages") {
        return cmd::migratepages::run(&words);
    }
    pagetide(words)
}

fn pagetide(words: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let ended = match cli.command {
        Command::Machine(args) => cmd::machine::run(&args),
    };
    // Text may still wait in the buffer: a full disk or a closed pipe must not go unnoticed.
    let ended = ended.and_then(|exit| Ok(io::stdout().flush().map(|()| exit)?));
    ended.unwrap_or_else(|error| report(&error)).into()
}

/// Prints what clap has to say: help and version succeed, anything else is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    // When neither stream can be written, the exit status is all that is left to say.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }.into()
}

/// Prints the error that ended a subcommand, in one line.
fn report(error: &anyhow::Error) -> Exit {
    let exit = Exit::of(error);
    if exit != Exit::Done {
        // When stderr is closed, the exit status is all that is left to say.
        let _ = writeln!(io::stderr(), "pagetide: {error:#}");
    }
    exit
}
