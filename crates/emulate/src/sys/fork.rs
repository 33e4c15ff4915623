//! `fork(2)`: a child that runs code of ours before it execs; and whether children that have ended
//! can be waited for.

use std::{fs, io, process};

/// Starts a child that runs `body`, which ends in exec or exit.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM`: what fork(2) says. `EINVAL`: this process has more than one thread.
pub(crate) fn fork(body: impl FnOnce()) -> io::Result<u32> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: this is the only thread (checked), so that no lock is held by another and the child
    // may run any code. It ends here at the latest, so no frame above runs twice.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            body();
            process::abort()
        }
        pid => Ok(pid.cast_unsigned()),
    }
}

/// Whether SIGCHLD is to be ignored: then the kernel keeps no exit status of children. Whether it was
/// ignored before.
///
/// Source: wait(2), "NOTES".
pub(crate) fn ignore_ends(ignore: bool) -> bool {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither of the two is a function that would be called.
    unsafe { libc::signal(libc::SIGCHLD, action) == libc::SIG_IGN }
}
