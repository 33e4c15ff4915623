//! `fork(2)`: a child that runs code of ours before it execs.

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
