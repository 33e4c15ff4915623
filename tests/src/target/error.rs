//! Why the target program cannot do what it was asked to: one line, errno by name.

use std::fmt;
use std::io;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What stopped the program or one of its commands.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line, or a line on stdin, is wrong.
    Usage(String),
    /// The machine is not as the task needs it, or gave something else than what was asked for.
    Unmet(String),
    /// The kernel refused.
    Kernel {
        /// What was tried, and on what.
        tried: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Unmet(text) => f.write_str(text),
            Self::Kernel { tried, source } => match source.raw_os_error() {
                Some(number) => write!(f, "{tried}: {}", errno_name(number)),
                None => write!(f, "{tried}: {source}"),
            },
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Usage(_) | Self::Unmet(_) => None,
            Self::Kernel { source, .. } => Some(source),
        }
    }
}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Says what was tried when a call fails.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kernel { tried: what(), source })
    }
}

/// `EBUSY` for 16. A number that is not in our table stays a number.
pub(crate) fn errno_name(number: i32) -> String {
    let name = match number {
        libc::E2BIG => "E2BIG",
        libc::EACCES => "EACCES",
        libc::EAGAIN => "EAGAIN",
        libc::EBADF => "EBADF",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EFAULT => "EFAULT",
        libc::EINTR => "EINTR",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EISDIR => "EISDIR",
        libc::EMFILE => "EMFILE",
        libc::ENODEV => "ENODEV",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTDIR => "ENOTDIR",
        libc::EPERM => "EPERM",
        libc::EROFS => "EROFS",
        libc::ESRCH => "ESRCH",
        _ => return format!("errno {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_is_one_line_with_the_errno_by_name() {
        let error = Error::Kernel {
            tried: "cannot bind area a to node 7".into(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        };
        assert_eq!(error.to_string(), "cannot bind area a to node 7: EINVAL");
    }

    #[test]
    fn an_errno_without_a_name_keeps_its_number() {
        assert_eq!(errno_name(524), "errno 524");
    }
}
