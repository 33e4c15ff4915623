//! `pagetide lab -- COMMAND`: a real kernel with the nodes that this computer lacks.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use super::conformance;
use super::fuzz;
use lab::{Accel, KernelSource, LabOptions, Streams, interactive, run_command};

/// Boot a real Debian kernel under QEMU as the machine that a machine.toml describes, run a command
/// in it, and return its exit code. Without a command: a shell.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  pagetide lab --with numactl -- numactl -H
  pagetide lab --machine four-socket --kernel 6.1 -- pagetide machine
  pagetide lab --machine dram-cxl --with memhog"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    tool: Option<Tool>,

    /// A built-in machine (two-socket, four-socket, snc-4, dram-cxl), or a machine.toml.
    #[arg(long, value_name = "NAME|FILE", default_value = "two-socket")]
    machine: String,

    /// The kernel: 6.1, 6.12 or newest of Debian's, or the path of a vmlinuz.
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: KernelSource,

    /// Programs of this computer that the guest should have.
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    with: Vec<OsString>,

    /// The guest is ended after this time.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    time_limit: Duration,

    /// A clock that counts instructions: slow, but timings repeat.
    #[arg(long)]
    icount: bool,

    /// A thread of this computer for each CPU of the guest, which else take turns on one. QEMU before
    /// 8.1 may hang or end such a guest.
    #[arg(long, conflicts_with = "icount")]
    parallel: bool,

    /// Use KVM; refused where a probe boot with it fails.
    #[arg(long, conflicts_with_all = ["icount", "parallel"])]
    kvm: bool,

    /// More words for the kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,

    /// The command, with its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the lab does by itself.
#[derive(clap::Subcommand)]
enum Tool {
    Conformance(conformance::Args),
    Fuzz(fuzz::Args),
}

/// Runs the command and returns its exit code, which is that of `pagetide lab` too.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.tool {
        Some(Tool::Conformance(args)) => return conformance::run(args),
        Some(Tool::Fuzz(args)) => return fuzz::run(args),
        None => {}
    }
    let mut options = LabOptions::new(machine::load(&args.machine)?)?;
    options.kernel = args.kernel.clone();
    options.with.clone_from(&args.with);
    options.time_limit = args.time_limit;
    options.extra_cmdline.clone_from(&args.append);
    options.accel = match args {
        Args { icount: true, .. } => Accel::TcgIcount,
        Args { parallel: true, .. } => Accel::TcgParallel,
        Args { kvm: true, .. } => Accel::Kvm,
        _ => Accel::default(),
    };
    if args.command.is_empty() {
        return interactive(&options, &[]);
    }
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let streams =
        Streams { stdin: Some(Box::new(io::stdin())), stdout: &mut stdout, stderr: &mut stderr };
    run_command(&options, &args.command, streams)
}
