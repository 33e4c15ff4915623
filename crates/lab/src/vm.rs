//! One QEMU process: it is started, it has a time limit, and it never outlives us.
//!
//! A thread of its own starts QEMU, waits until it may end, and ends it. That thread is also the
//! one whose death the kernel watches (`PR_SET_PDEATHSIG` is about the thread that started the
//! child, not about its process), so a guest that one test thread booted serves the others too.
//! `setpriv` sets the signal: the standard library could only do it with unsafe code. When both
//! fail, in the instant before setpriv has run, the agent sees its port closed and powers off.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How QEMU came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmEnd {
    /// By itself: the guest powered off, panicked, or QEMU did not like its arguments.
    Exited(ExitStatus),
    /// We killed it.
    Killed,
    /// We killed it since its time was over.
    TimeLimit,
}

/// How long a QEMU that has closed its port may take to end.
const DYING_LIMIT: Duration = Duration::from_secs(5);

/// What the keeper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Kill it.
    Now,
    /// It is dying: see how, but do not wait for long.
    Dying,
}

/// A QEMU that runs.
#[derive(Debug)]
pub(crate) struct Vm {
    stop: mpsc::Sender<Stop>,
    keeper: Option<JoinHandle<VmEnd>>,
    /// How it ended, once that is known.
    end: VmEnd,
}

impl Vm {
    /// Starts QEMU. `command` makes the process, on the keeper's thread.
    pub(crate) fn start(mut command: Command, limit: Duration) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let keeper = thread::Builder::new().name("qemu".into()).spawn(move || {
            let spawned = command.spawn();
            // Holds our copies of QEMU's ends of sockets: open, they would hide its death.
            drop(command);
            match spawned {
                Ok(child) => {
                    let _ = started.send(Ok(()));
                    keep(child, limit, &stopped)
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    VmEnd::Killed
                }
            }
        })?;
        let gone = |_| Err(io::Error::other("the thread that starts QEMU is gone"));
        start.recv().unwrap_or_else(gone)?;
        Ok(Self { stop, keeper: Some(keeper), end: VmEnd::Killed })
    }

    /// Tells how a QEMU ended that has closed its port, or kills it when it has not ended after all.
    pub(crate) fn post_mortem(&mut self) -> VmEnd {
        self.stop(Stop::Dying)
    }

    fn stop(&mut self, stop: Stop) -> VmEnd {
        // Fails when the time limit was faster.
        let _ = self.stop.send(stop);
        if let Some(Ok(end)) = self.keeper.take().map(JoinHandle::join) {
            self.end = end;
        }
        self.end
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}

fn keep(mut child: Child, limit: Duration, stopped: &mpsc::Receiver<Stop>) -> VmEnd {
    let stop = stopped.recv_timeout(limit);
    if stop == Ok(Stop::Dying) {
        wait_a_little(&mut child);
    }
    if let Ok(Some(status)) = child.try_wait() {
        return VmEnd::Exited(status);
    }
    // Both fail only for a child that is gone.
    let _ = child.kill();
    let _ = child.wait();
    if stop == Err(RecvTimeoutError::Timeout) { VmEnd::TimeLimit } else { VmEnd::Killed }
}

fn wait_a_little(child: &mut Child) {
    let upto = Instant::now() + DYING_LIMIT;
    while Instant::now() < upto && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(2));
    }
}

/// A command that kills `program` when the thread that starts it ends.
pub(crate) fn dies_with_its_starter(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn sleeper() -> Command {
        let mut command = dies_with_its_starter("sleep".into());
        command.arg("1000").stdin(Stdio::null());
        command
    }

    #[test]
    fn what_is_over_its_time_is_killed() {
        let mut vm = Vm::start(sleeper(), Duration::from_millis(1)).unwrap();
        let keeper = vm.keeper.take().unwrap();
        assert_eq!(keeper.join().unwrap(), VmEnd::TimeLimit);
    }

    #[test]
    fn what_is_ended_in_time_was_killed_by_us() {
        let mut vm = Vm::start(sleeper(), Duration::from_secs(900)).unwrap();
        assert_eq!(vm.stop(Stop::Now), VmEnd::Killed);
    }

    #[test]
    fn of_what_is_dying_the_way_is_told() {
        let mut command = dies_with_its_starter("sh".into());
        command.args(["-c", "exit 7"]);
        let mut vm = Vm::start(command, Duration::from_secs(900)).unwrap();
        let VmEnd::Exited(status) = vm.post_mortem() else { panic!("it had not ended") };
        assert_eq!(status.code(), Some(7));
        assert_eq!(vm.post_mortem(), VmEnd::Exited(status), "and told again");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_the_start() {
        let command = Command::new("no-such-program");
        let error = Vm::start(command, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
