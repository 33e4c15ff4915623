//! Why tracing is impossible, in one line that says what to mount or to grant.

use std::path::PathBuf;

use crate::{Errno, ReadError};

/// Why there is nothing to trace with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The kernel has it; nobody mounted it.
    #[error("tracefs is not mounted: as root, `mount -t tracefs tracefs /sys/kernel/tracing`")]
    NotMounted,

    /// The kernel has none.
    #[error("this kernel has no tracefs: it was built without CONFIG_TRACING")]
    NotBuilt,

    /// The kernel has no such event.
    #[error("this kernel has no event {event}: it was built without it")]
    NoEvent {
        /// As `migrate/mm_migrate_pages`.
        event: String,
    },

    /// The kernel is locked down, which not even root can change.
    #[error(
        "no permission for {}: the kernel is locked down ({lockdown} in \
         /sys/kernel/security/lockdown) and lets nobody trace; boot with lockdown=integrity or none",
        path.display()
    )]
    LockedDown {
        /// What was to be opened.
        path: PathBuf,
        /// The mode in force.
        lockdown: String,
    },

    /// The caller lacks a right.
    #[error(
        "no permission for {}: {errno}; tracing needs root, or CAP_DAC_OVERRIDE (setcap \
         cap_dac_override+ep on the program)",
        path.display()
    )]
    NotPermitted {
        /// What was to be opened or written.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },

    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),

    /// A file could not be written, or a folder not made or removed.
    #[error("cannot {tried} {}: {errno}", path.display())]
    Io {
        /// `write 1 to`, `make`, `remove`.
        tried: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What a failed read means here. `lockdown` gives the text of the lockdown file, if there is one.
pub(super) fn explain(error: ReadError, lockdown: impl FnOnce() -> String) -> TraceError {
    match error {
        ReadError::NotPermitted { path, errno, .. } => refused(path, errno, lockdown),
        error => TraceError::Read(error),
    }
}

/// What a refusal means. Lockdown answers `EPERM`, missing rights answer `EACCES`.
pub(super) fn refused(
    path: PathBuf,
    errno: Errno,
    lockdown: impl FnOnce() -> String,
) -> TraceError {
    if errno == Errno::EPERM {
        // `none integrity [confidentiality]`: the mode in force is in brackets.
        let text = lockdown();
        let mode = text.split('[').nth(1).and_then(|rest| rest.split(']').next());
        if let Some(mode) = mode.filter(|&mode| mode != "none") {
            return TraceError::LockedDown { path, lockdown: mode.to_owned() };
        }
    }
    TraceError::NotPermitted { path, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errno: Errno, lockdown: &str) -> TraceError {
        refused("/sys/kernel/tracing".into(), errno, || lockdown.to_owned())
    }

    #[test]
    fn a_locked_down_kernel_is_named_as_the_cause() {
        let error = refusal(Errno::EPERM, "none integrity [confidentiality]\n");
        assert!(error.to_string().contains("locked down (confidentiality in"), "{error}");
    }

    #[test]
    fn a_missing_right_is_answered_by_the_capability() {
        for (errno, lockdown) in [(Errno::EACCES, "none [integrity] x"), (Errno::EPERM, "[none]")] {
            let error = refusal(errno, lockdown);
            assert!(error.to_string().contains("CAP_DAC_OVERRIDE"), "{error}");
        }
    }
}
