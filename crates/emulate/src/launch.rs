//! Starts the program: a child that shows itself the files, installs the filter, and execs.
//!
//! The child reports through a pipe: first the byte of [`Shown::enter`] and the number of its
//! listener, of which the supervisor takes a copy with pidfd_getfd(2); later, if exec fails, why.
//! It may not be waited for in between: its execve is handed over already, and waits for us.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use linux::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdGetfdFlags, Signal};

use crate::error::RunError;
use crate::filter;
use crate::shown::Shown;
use crate::sys::notify::Listener;
use crate::sys::{fork, seccomp};
use crate::tracers::Tracers;

/// Which step of the child a report is about.
const STARTED: u8 = 0;
const FILTER: u8 = 1;
const EXEC: u8 = 2;
/// Bytes of a report: step, the byte of `enter`, and a number.
const REPORT: usize = 6;

/// A child that waits in its first execve.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id.
    pub(crate) pid: u32,
    /// It can be told when the child ends.
    pub(crate) pidfd: OwnedFd,
    /// Where its calls come from.
    pub(crate) listener: Listener,
    /// What [`Shown::enter`] said.
    pub(crate) entered: u8,
    reports: File,
}

impl Child {
    /// Why exec failed; `None`: it did not. Ask when the child has ended.
    pub(crate) fn exec_error(&mut self) -> Option<Errno> {
        let (step, _, number) = receive(&mut self.reports)?;
        (step == EXEC).then(|| Errno::from(number))
    }
}

/// Starts `command`, which is told where `tracers` are heard. It has SIGCHLD ignored if
/// `ends_ignored`: as we had.
///
/// # Errors
///
/// [`RunError`], all but `Exec`.
pub(crate) fn launch(
    command: &[OsString],
    shown: &mut Shown,
    tracers: Option<&Tracers>,
    ends_ignored: bool,
) -> Result<Child, RunError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(io::Error::from)
        .map_err(RunError::launch("make a pipe"))?;
    let supervisor = rustix::process::getpid();
    let pid = fork::fork(|| {
        // A supervisor that is killed takes the program with it: without it, calls fail.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        if rustix::process::getppid() != Some(supervisor) {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).ok();
        }
        if ends_ignored {
            fork::ignore_ends(true);
        }
        become_program(command, shown, tracers, File::from(writer_copy(&writer)))
    })
    .map_err(RunError::launch("start a process"))?;
    drop(writer);
    let mut reports = File::from(reader);
    let (step, entered, number) = receive(&mut reports).ok_or(RunError::Launch {
        what: "start the program: its process ended before it ran",
        errno: Errno::ESRCH,
    })?;
    if step == FILTER {
        return Err(match Errno::from(number) {
            Errno::EBUSY => RunError::HasListener,
            errno @ (Errno::EINVAL | Errno::ENOSYS) => RunError::NoNotification { errno },
            errno => RunError::Launch { what: "install a seccomp filter", errno },
        });
    }
    let pidfd = linux::sys::open_pidfd(pid).map_err(RunError::launch("open a pidfd"))?;
    let listener = rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())
        .map_err(io::Error::from)
        .map_err(RunError::launch("take the listener of the seccomp filter (pidfd_getfd)"))?;
    let listener = Listener::new(listener).map_err(RunError::launch("map memory to receive in"))?;
    Ok(Child { pid, pidfd, listener, entered, reports })
}

fn writer_copy(writer: &OwnedFd) -> OwnedFd {
    // A child without a descriptor to spare ends without a report, which is one too.
    writer.try_clone().unwrap_or_else(|_| end())
}

/// In the child: never comes back.
fn become_program(
    command: &[OsString],
    shown: &mut Shown,
    tracers: Option<&Tracers>,
    mut reports: File,
) -> ! {
    let entered = shown.enter();
    let installed = rustix::thread::set_no_new_privs(true)
        .map_err(io::Error::from)
        .and_then(|()| seccomp::install(&filter::program(shown.traps())));
    let listener: RawFd = match installed {
        Ok(listener) => listener.into_raw_fd(),
        Err(error) => {
            send(&mut reports, FILTER, entered, Errno::from(&error).get());
            end()
        }
    };
    send(&mut reports, STARTED, entered, listener);
    let Some((program, arguments)) = command.split_first() else { end() };
    let mut command = Command::new(program);
    command.args(arguments).env(TUNABLES, tunables()).env(MARK, "1");
    if let Some(tracers) = tracers {
        command.env(trace::stream::VARIABLE, tracers.name());
    }
    let error = command.exec();
    send(&mut reports, EXEC, entered, Errno::from(&error).get());
    end()
}

/// The environment variable by which a program can know that its machine is a model.
pub const MARK: &str = "PAGETIDE_RUN";

const TUNABLES: &str = "GLIBC_TUNABLES";

/// Without rseq glibc asks the vDSO for the CPU, which is answered by us.
fn tunables() -> OsString {
    const NO_RSEQ: &str = "glibc.pthread.rseq=0";
    match std::env::var_os(TUNABLES) {
        Some(mut others) if !others.is_empty() => {
            others.push(":");
            others.push(NO_RSEQ);
            others
        }
        _ => NO_RSEQ.into(),
    }
}

/// Ends a forked child that did not exec.
#[expect(clippy::exit, reason = "a forked child ends here, and must not run the supervisor's code")]
pub(crate) fn end() -> ! {
    std::process::exit(127)
}

fn send(reports: &mut File, step: u8, entered: u8, number: i32) {
    let [a, b, c, d] = number.to_ne_bytes();
    // A supervisor that is gone needs no report.
    let _ = reports.write_all(&[step, entered, a, b, c, d]);
}

fn receive(reports: &mut File) -> Option<(u8, u8, i32)> {
    let mut report = [0; REPORT];
    reports.read_exact(&mut report).ok()?;
    let [step, entered, number @ ..] = report;
    Some((step, entered, i32::from_ne_bytes(number)))
}
