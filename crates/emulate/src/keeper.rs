//! Lets the programs of a run go on when the supervisor dies.
//!
//! Once nobody has the listener any more, the kernel answers every call that would be handed over by
//! `ENOSYS`: exit(2) of a thread too, which a C library then tries without end. So a second process
//! has the listener. It sleeps for as long as the supervisor lives, and never receives meanwhile. After
//! that it lets calls through, the one included that the supervisor had received and not answered, and
//! ends when no process uses the filter any longer.
//!
//! The folder of files that the supervisor would have removed at its end, it removes.
//!
//! It must keep nothing else of what it was forked with: a lease, a socket or a pipe in its hands would
//! look to others as if the supervisor lived.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::call::{Answer, Call};
use crate::calls;
use crate::filter::ARCH;
use crate::launch::end;
use crate::sys::notify::Listener;
use crate::sys::{close, fork};

/// As ps(1) shows it. It does not contain our name, for who kills everything of that name means the
/// supervisor.
const NAME: &std::ffi::CStr = c"run-keeper";

/// The keeper, as the supervisor has it.
#[derive(Debug)]
pub(crate) struct Keeper(OwnedFd);

impl Keeper {
    /// Starts a keeper of `listener`, which removes `folder` when the supervisor has died.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `ENOMEM`, `EMFILE`: no process or no descriptor is left.
    pub(crate) fn start(listener: &Listener, folder: Option<&Path>) -> io::Result<Self> {
        let supervisor = linux::sys::open_pidfd(std::process::id())?;
        let pid = fork::fork(|| {
            // A run that goes on without a keeper is as good until the supervisor dies.
            let _ = leave_everything_but(listener, &supervisor)
                .and_then(|()| keep(listener, &supervisor, folder));
            end()
        })?;
        Ok(Self(linux::sys::open_pidfd(pid)?))
    }

    /// Ends it, and waits until it has: the run is over.
    pub(crate) fn end(&self) {
        // One that was killed by somebody else has ended.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
        let id = WaitId::PidFd(self.0.as_fd());
        let _ = retry_on_intr(|| waitid(id.clone(), WaitIdOptions::EXITED));
    }
}

/// Neither the terminal's signals nor those to the process group are for the keeper.
fn leave_everything_but(listener: &Listener, supervisor: &OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    close::all_but(listener.as_fd(), supervisor.as_fd())?;
    rustix::process::chdir("/")?;
    Ok(rustix::thread::set_name(NAME)?)
}

fn keep(listener: &Listener, supervisor: &OwnedFd, folder: Option<&Path>) -> io::Result<()> {
    wait(supervisor)?;
    let last = listener.last();
    // ENOENT: the supervisor has answered it.
    let _ = listener.send(last.id, answer(&last));
    if let Some(folder) = folder {
        // What cannot be removed stays: nobody is left to be told.
        let _ = fs::remove_dir_all(folder);
    }
    loop {
        let events = wait(listener)?;
        if events.contains(PollFlags::IN) {
            // ENOENT: the caller has gone.
            if let Ok(call) = listener.receive() {
                let _ = listener.send(call.id, answer(&call));
            }
        } else if events.contains(PollFlags::HUP) {
            return Ok(());
        }
    }
}

/// What can be had of a descriptor, as soon as anything can.
fn wait(descriptor: &impl AsFd) -> io::Result<PollFlags> {
    let mut files = [PollFd::new(descriptor, PollFlags::IN)];
    retry_on_intr(|| poll(&mut files, None))?;
    Ok(files[0].revents())
}

/// This computer's answers about NUMA would be another machine's than those before.
fn answer(call: &Call) -> Answer {
    if call.arch != ARCH || calls::is_about_numa(call.number) {
        Answer::Error(libc::ENOSYS)
    } else {
        Answer::Continue
    }
}
