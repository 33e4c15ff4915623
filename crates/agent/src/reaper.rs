//! Starts children and collects them, and with them every orphan: process 1 inherits all.
//!
//! Traps:
//! - `wait` for any child would also take one that the standard library waits for itself: it does
//!   so when the program of a new child cannot be executed. So the reaper only peeks while it
//!   waits, and collects under the lock that every start holds.
//! - A child may end before its parent has noted it: the same lock.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

use rustix::io::Errno;
use rustix::process::{self, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

use crate::port::lock;
use crate::protocol::End;

/// The one that waits for children.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    /// Children that somebody wants to hear of, by process id.
    awaited: Mutex<BTreeMap<u32, mpsc::Sender<End>>>,
    started: Condvar,
}

impl Reaper {
    /// Starts a child; the receiver hears how it ended.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<(Child, mpsc::Receiver<End>)> {
        let (sender, receiver) = mpsc::channel();
        let mut awaited = lock(&self.awaited);
        let child = command.spawn()?;
        awaited.insert(child.id(), sender);
        self.started.notify_all();
        Ok((child, receiver))
    }

    /// Collects children for ever.
    pub(crate) fn run(&self) -> ! {
        loop {
            let peek = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            if process::waitid(WaitId::All, peek).err() == Some(Errno::CHILD) {
                self.wait_for_a_start();
            }
            self.collect();
        }
    }

    /// Nothing can become our child but by a start, once there is none.
    fn wait_for_a_start(&self) {
        let none = |awaited: &mut BTreeMap<_, _>| awaited.is_empty();
        let awaited = self.started.wait_while(lock(&self.awaited), none);
        drop(awaited.unwrap_or_else(PoisonError::into_inner));
    }

    fn collect(&self) {
        let mut awaited = lock(&self.awaited);
        while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
            let Some(end) = end(status) else { continue };
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if let Some(sender) = awaited.remove(&pid) {
                // Whoever no longer listens does not want to know.
                let _ = sender.send(end);
            }
        }
    }
}

/// `None` for a child that only stopped.
fn end(status: WaitStatus) -> Option<End> {
    let byte = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(End::Code(byte(code))),
        (None, Some(signal)) => Some(End::Signal(byte(signal))),
        (None, None) => None,
    }
}
