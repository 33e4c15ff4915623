//! `pagetide run -- COMMAND`: the program here, the NUMA machine from the model.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use emulate::{Explain, Files, Report, ReportFormat, RunOptions};
use model::KernelVersion;

/// Run an unmodified program on a NUMA machine that this computer is not: its NUMA system calls are
/// answered by the model, everything else by the kernel. Needs no root and no VM.
#[derive(clap::Args)]
#[command(after_help = "\
The exit code is the program's. docs/run.md says how it works and what it cannot do.

Examples:
  pagetide run --machine four-socket -- numactl --show
  pagetide run --explain -- numactl --membind=1 ./program
  pagetide run --report run.html -- ./program
  pagetide run --machine dram-cxl -- bash")]
pub(crate) struct Args {
    /// A built-in machine (two-socket, four-socket, snc-4, dram-cxl), or a machine.toml.
    #[arg(long, value_name = "NAME|FILE", default_value = "two-socket")]
    machine: String,

    /// The kernel that the model plays: 6.1, 6.12 or newest.
    #[arg(long, value_name = "KERNEL", default_value = "6.12", value_parser = kernel)]
    kernel: KernelVersion,

    /// How the files that describe NUMA are shown: by mounts, by injected descriptors, or none. The
    /// default, auto, is mounts where the kernel allows them, else injected.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = files)]
    files: Files,

    /// Tell each call that the model answers, on stderr or in a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    explain: Option<Option<PathBuf>>,

    /// Write at the end where memory was placed, what moved, when and why: a page (FILE.html) or
    /// numbers (FILE.json).
    #[arg(long, value_name = "FILE", value_parser = report_path)]
    report: Option<PathBuf>,

    /// The program, with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn kernel(name: &str) -> Result<KernelVersion, String> {
    match name {
        "6.1" => Ok(KernelVersion::V6_1),
        "6.12" => Ok(KernelVersion::V6_12),
        "newest" | "7.3" => Ok(KernelVersion::V7_3),
        _ => Err("the model plays 6.1, 6.12 and newest".to_owned()),
    }
}

fn files(how: &str) -> Result<Files, String> {
    match how {
        "auto" => Ok(Files::Auto),
        "mounts" => Ok(Files::Mounts),
        "injected" => Ok(Files::Injected),
        "none" => Ok(Files::None),
        _ => Err("files are shown by mounts, injected, none, or auto".to_owned()),
    }
}

fn report_path(name: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(name);
    match report_format(&path) {
        Some(_) => Ok(path),
        None => Err("the name of a report ends in .html or .json".to_owned()),
    }
}

fn report_format(path: &Path) -> Option<ReportFormat> {
    match path.extension()?.to_str()? {
        "html" => Some(ReportFormat::Html),
        "json" => Some(ReportFormat::Json),
        _ => None,
    }
}

/// Where the report goes: opened before the run, so that it does not fail after it.
fn report(path: &Path) -> anyhow::Result<Option<Report>> {
    let Some(format) = report_format(path) else { return Ok(None) };
    let file = File::create(path)
        .with_context(|| format!("cannot write the report to {}", path.display()))?;
    Ok(Some(Report { format, sink: Box::new(io::BufWriter::new(file)) }))
}

/// Runs the command and returns its exit code, which is that of `pagetide run` too.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let explain = match &args.explain {
        None => None,
        Some(None) => Some(Explain::new(Box::new(io::stderr()))),
        Some(Some(path)) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write the calls to {}", path.display()))?;
            Some(Explain::new(Box::new(file)))
        }
    };
    let topology = machine::load(&args.machine)?;
    let report = args.report.as_deref().map(report).transpose()?.flatten();
    let options = RunOptions { topology, kernel: args.kernel, files: args.files, explain, report };
    emulate::run(options, &args.command).or_else(|error| match error.shell_code() {
        Some(code) => {
            crate::complain(&error);
            Ok(code)
        }
        None => Err(error.into()),
    })
}
