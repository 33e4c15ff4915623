//! The pagetide command: reads the command line, runs one subcommand, ends with its status.
//!
//! One binary, several names: called as `migratepages` it is the drop-in for numactl's tool; started
//! by a kernel as `/init` it is the agent of a lab guest.
//! A subcommand is a file in `cmd/`, with its `Args` for clap and its `run`; it is named in three
//! places below. It holds no logic of its own: it asks a library, and prints.

#![forbid(unsafe_code)]

mod cmd {
    pub(crate) mod actor;
    mod conformance;
    pub(crate) mod demo;
    pub(crate) mod explain;
    mod fuzz;
    pub(crate) mod lab;
    pub(crate) mod machine;
    pub(crate) mod migratepages;
    pub(crate) mod model;
    pub(crate) mod r#move;
    pub(crate) mod plan;
    pub(crate) mod run;
    mod selection;
    pub(crate) mod show;
    pub(crate) mod stat;
    mod stop;
    pub(crate) mod trace;
    mod wish;
}
mod exit;
mod output {
    pub(crate) mod cases;
    pub(crate) mod explain_text;
    pub(crate) mod json;
    pub(crate) mod outcome_text;
    pub(crate) mod paint;
    pub(crate) mod plan_text;
    pub(crate) mod progress;
    pub(crate) mod prometheus;
    pub(crate) mod replacement;
    pub(crate) mod show_text;
    pub(crate) mod stat_text;
    pub(crate) mod table;
    pub(crate) mod trace_text;
}

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{self, ExitCode};

use clap::Parser as _;
use clap::error::ErrorKind;
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
    Demo(cmd::demo::Args),
    Show(cmd::show::Args),
    Plan(cmd::plan::Args),
    Move(cmd::r#move::Args),
    Stat(cmd::stat::Args),
    Explain(cmd::explain::Args),
    Trace(cmd::trace::Args),
    Machine(cmd::machine::Args),
    Run(cmd::run::Args),
    Lab(cmd::lab::Args),
    Model(cmd::model::Args),
    Actor(cmd::actor::Args),
}

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().collect();
    if process::id() == 1 && words.first().is_some_and(|program| program == "/init") {
        agent::init::run();
    }
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
        Command::Demo(args) => cmd::demo::run(&args).map(ExitCode::from),
        Command::Show(args) => cmd::show::run(&args).map(ExitCode::from),
        Command::Plan(args) => cmd::plan::run(&args).map(ExitCode::from),
        Command::Move(args) => cmd::r#move::run(&args).map(ExitCode::from),
        Command::Explain(args) => cmd::explain::run(&args).map(ExitCode::from),
        Command::Stat(args) => cmd::stat::run(&args).map(ExitCode::from),
        Command::Trace(args) => cmd::trace::run(&args).map(ExitCode::from),
        Command::Machine(args) => cmd::machine::run(&args).map(ExitCode::from),
        Command::Model(args) => cmd::model::run(&args).map(ExitCode::from),
        // The exit code of the command that was run, whatever it means there.
        Command::Run(args) => cmd::run::run(&args).map(ExitCode::from),
        Command::Actor(args) => cmd::actor::run(&args).map(ExitCode::from),
        Command::Lab(args) => cmd::lab::run(&args).map(ExitCode::from),
    };
    // Text may still wait in the buffer: a full disk or a closed pipe must not go unnoticed.
    let ended = ended.and_then(|exit| Ok(io::stdout().flush().map(|()| exit)?));
    ended.unwrap_or_else(|error| report(&error).into())
}

/// Prints what clap has to say: help and version as they are, a usage error in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // When stdout is closed, the exit status is all that is left to say.
        let _ = error.print();
        return Exit::Done.into();
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage.into();
    }
    let text = error.render().to_string();
    let first_paragraph: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let line = first_paragraph.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let _ = writeln!(io::stderr(), "pagetide: {line} (see --help)");
    Exit::Usage.into()
}

/// Prints an error in one line, where the exit code is another's to choose.
fn complain(error: &dyn std::error::Error) {
    // When stderr is closed, the exit code is all that is left to say.
    let _ = writeln!(io::stderr(), "pagetide: {error}");
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
