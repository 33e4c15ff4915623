//! Why a program could not be run, in one line that names the way out.

use std::ffi::OsString;
use std::io;

use linux::Errno;
use model::Misfit;

/// Why [`crate::run()`] gave up before the program ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The model has no room for the machine.
    #[error(transparent)]
    Machine(#[from] Misfit),

    /// The program cannot be executed. A shell would end with 127 or 126.
    #[error("cannot run {}: {errno}", program.display())]
    Exec {
        /// As it was given.
        program: OsString,
        /// What execve said.
        errno: Errno,
    },

    /// The kernel has no seccomp user notification.
    #[error(
        "cannot intercept system calls: {errno} from seccomp: this kernel has no user \
         notification (it came with Linux 5.0); `pagetide lab` runs the program in a guest instead"
    )]
    NoNotification {
        /// `EINVAL` or `ENOSYS`.
        errno: Errno,
    },

    /// Somebody listens already.
    #[error(
        "cannot intercept system calls: EBUSY from seccomp: another supervisor (a container \
         engine, or `pagetide run` itself) intercepts calls here already; run it outside of that"
    )]
    HasListener,

    /// A step of the launch failed.
    #[error("cannot {what}: {errno}")]
    Launch {
        /// The step.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl RunError {
    /// An error of the step `what`.
    pub(crate) fn launch(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Launch { what, errno: Errno::from(&error) }
    }

    /// The exit code of a shell that cannot run a program; `None` for all else.
    pub fn shell_code(&self) -> Option<u8> {
        match self {
            Self::Exec { errno, .. } => Some(if *errno == Errno::ENOENT { 127 } else { 126 }),
            _ => None,
        }
    }
}
