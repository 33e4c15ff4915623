//! `pidfd_open(2)`: hold on to a process, so that a reused pid is never taken for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
/// `ENOMEM` from poll(2); `EINTR` is not possible, because it does not wait.
///
/// Source: pidfd_open(2), "can be monitored using poll(2)".
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    let mut files = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut files, Some(&now))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_pidfd_knows_when_its_process_exits() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        assert!(!has_exited(&pidfd).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(has_exited(&pidfd).unwrap());
    }

    #[test]
    fn pid_zero_and_a_pid_too_large_are_no_process() {
        for pid in [0, u32::MAX] {
            assert_eq!(open_pidfd(pid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
    }
}
