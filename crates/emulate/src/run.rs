//! One run, from the machine to the exit code.

use std::ffi::OsString;
use std::io;

use linux::Errno;
use machine::Topology;
use model::{KernelVersion, Machine, Options};
use rustix::event::epoll::{self, CreateFlags};
use rustix::process::WaitStatus;

use crate::callers::Callers;
use crate::error::RunError;
use crate::explain::Explain;
use crate::keeper::Keeper;
use crate::launch::launch;
use crate::report::{Recorder, Report};
use crate::shown::{Files, Shown};
use crate::signals::Signals;
use crate::supervisor::Supervisor;
use crate::sys::fork;
use crate::tracers::Tracers;
use crate::world::World;

/// The machine, and what to tell of the run.
#[derive(Debug)]
pub struct RunOptions {
    /// The hardware.
    pub topology: Topology,
    /// The kernel that the model plays.
    pub kernel: KernelVersion,
    /// How files are shown.
    pub files: Files,
    /// Tell each call.
    pub explain: Option<Explain>,
    /// Write what the run was like, at its end.
    pub report: Option<Report>,
}

/// Runs `command` on the machine. Returns when it and all that it started have ended, with the
/// exit code that a shell would give it: its own, or 128 and the signal that ended it.
///
/// # Errors
///
/// [`RunError`].
pub fn run(options: RunOptions, command: &[OsString]) -> Result<u8, RunError> {
    Machine::fits(&options.topology)?;
    let machine = Machine::boot(options.topology, options.kernel, Options::default());
    let watch = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from);
    let watch = watch.map_err(RunError::launch("make an epoll"))?;
    let worlds = watch.try_clone().map_err(RunError::launch("make an epoll"))?;
    let world = World::new(machine, worlds);
    // Whoever started us may have had it ignored, and exec keeps that.
    let ends_ignored = fork::ignore_ends(false);
    let mut shown =
        Shown::prepare(&world, options.files).map_err(RunError::launch("prepare the files"))?;
    let signals = Signals::take().map_err(RunError::launch("take over signals"))?;
    // Whoever loses its parent becomes our child, so that it is still known as one of ours.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // Without a socket (a sandbox without any) the run has no traces, and is fine otherwise.
    let tracers = Tracers::new().ok();
    let child = launch(command, &mut shown, tracers.as_ref(), ends_ignored)?;
    let keeper = Keeper::start(&child.listener, shown.folder())
        .map_err(RunError::launch("start a second process"))?;
    let recorder = options.report.as_ref().map(|_| {
        let words = command.iter().map(|word| word.to_string_lossy().into_owned());
        Recorder::new(&world, words.collect())
    });
    let explain = options.explain;
    let mut supervisor = Supervisor {
        world,
        shown,
        explain,
        recorder,
        tracers,
        watch,
        signals,
        child,
        callers: Callers::default(),
        keeper,
        status: None,
    };
    let status = supervisor.serve().map_err(RunError::launch("wait for system calls"))?;
    if let Some(errno) = supervisor.child.exec_error() {
        let program = command.first().cloned().unwrap_or_default();
        return Err(RunError::Exec { program, errno });
    }
    let Some(status) = status else {
        return Err(RunError::Launch {
            what: "learn how the program ended (it was waited for by somebody else)",
            errno: Errno::from(libc::ECHILD),
        });
    };
    let code = code(status);
    if let (Some(recorder), Some(report)) = (supervisor.recorder, options.report) {
        let written = recorder.write(&supervisor.world, code, report);
        written.map_err(RunError::launch("write the report"))?;
    }
    Ok(code)
}

fn code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal).unwrap_or(0);
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
