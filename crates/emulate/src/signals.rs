//! Signals to the supervisor.
//!
//! Ctrl-C and Ctrl-\ reach the program from the terminal, as they reach us: we go on. A signal that
//! was sent to us alone (a service manager's SIGTERM) is handed to the program.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use linux::Root;
use linux::proc::status;
use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::launch::Child;

const FORWARDED: [(i32, Signal); 4] = [
    (SIGTERM, Signal::TERM),
    (SIGHUP, Signal::HUP),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// Signals that came and are to be handed on.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    came: Vec<(Signal, Arc<AtomicBool>)>,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Signals {
    /// Takes over what may be taken over: signals that are ignored stay so, for us and the program.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub(crate) fn take() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let own = Root::default().parse("proc/self/status", status::parse);
        let is_ignored =
            |signal: i32| own.as_ref().is_ok_and(|own| own.ignores(signal.cast_unsigned()));
        let mut came = Vec::new();
        for (number, signal) in FORWARDED {
            if !is_ignored(number) {
                let flag = Arc::new(AtomicBool::new(false));
                signal_hook::flag::register(number, Arc::clone(&flag))?;
                signal_hook::low_level::pipe::register(number, waker.try_clone()?)?;
                came.push((signal, flag));
            }
        }
        for number in [SIGINT, SIGQUIT] {
            if !is_ignored(number) {
                signal_hook::flag::register(number, Arc::new(AtomicBool::new(false)))?;
            }
        }
        Ok(Self { wake, came })
    }

    /// Hands on what came.
    pub(crate) fn forward(&mut self, child: &Child) {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|count| count > 0) {}
        for (signal, flag) in &self.came {
            if flag.swap(false, std::sync::atomic::Ordering::Relaxed) {
                // A program that has ended needs no signal.
                let _ = pidfd_send_signal(&child.pidfd, *signal);
            }
        }
    }
}
