//! `pidfd_open(2)`: hold on to a process, so that a reused pid is never taken for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `pidfd_open(pid, 0)`: a file that stands for the process that has this pid now. Needs no
/// permission.
///
/// # Errors
///
/// - `ESRCH`: no such process.
/// - `EINVAL` (`ENOENT` since 6.15): the id of a thread that is not the leader of its process.
///
/// Source: pidfd_open(2).
#[doc(alias = "pidfd_open")]
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether the process of `pidfd` has exited. A zombie has.
///
/// # Errors
///
/// `ENOMEM` from poll(2). `EINTR`, which a poll that does not wait may give too, is tried again.
///
/// Source: pidfd_open(2), "can be monitored using poll(2)".
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    let mut files = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(retry_on_intr(|| poll(&mut files, Some(&now)))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::{mem, ptr};

    #[test]
    fn a_pidfd_knows_when_its_process_exits() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        assert!(!has_exited(&pidfd).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(has_exited(&pidfd).unwrap());
    }

    /// Runs a handler in this thread every 20 us.
    struct Interruptions(libc::timer_t);

    impl Interruptions {
        fn start() -> Self {
            extern "C" fn nothing(_: libc::c_int) {}
            let handler: extern "C" fn(libc::c_int) = nothing;
            // SAFETY: the handler does nothing, and no other test uses this signal.
            unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
            // SAFETY: a structure of integers and pointers may be all zeroes.
            let mut event: libc::sigevent = unsafe { mem::zeroed() };
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGUSR1;
            // SAFETY: it only gives a number.
            event.sigev_notify_thread_id = unsafe { libc::gettid() };
            let often = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
            let often = libc::itimerspec { it_interval: often, it_value: often };
            let mut timer = ptr::null_mut();
            // SAFETY: it reads and writes what is ours, and lives as long as the call.
            let created =
                unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
            // SAFETY: it reads what is ours, and lives as long as the call.
            let set = unsafe { libc::timer_settime(timer, 0, &often, ptr::null_mut()) };
            assert_eq!((created, set), (0, 0));
            Self(timer)
        }
    }

    impl Drop for Interruptions {
        fn drop(&mut self) {
            // SAFETY: it is ours, and nobody uses it afterwards.
            unsafe { libc::timer_delete(self.0) };
        }
    }

    #[test]
    fn a_signal_that_is_handled_meanwhile_is_no_exit() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        let interruptions = Interruptions::start();
        let answers = (0..100_000).map(|_| has_exited(&pidfd));
        let others = answers.filter(|answer| !matches!(answer, Ok(false))).count();
        drop(interruptions);
        assert_eq!(others, 0, "answers other than that it lives");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn pid_zero_and_a_pid_too_large_are_no_process() {
        for pid in [0, u32::MAX] {
            assert_eq!(open_pidfd(pid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
    }
}
