//! Error numbers of the kernel, by name: what a message shows, and what a caller compares.

use std::{fmt, io};

/// An error number of the kernel. One that we have no name for is kept as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

/// Defines the constants and the table of names and meanings from one list.
macro_rules! errnos {
    ($($name:ident: $meaning:literal,)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $meaning, ".")]
                pub const $name: Self = Self(libc::$name);
            )*

            fn entry(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$name => Some((stringify!($name), $meaning)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM: "operation not permitted",
    ENOENT: "no such file or directory",
    ESRCH: "no such process",
    EINTR: "interrupted system call",
    EIO: "input/output error",
    ENXIO: "no such device or address",
    E2BIG: "argument list too long",
    ENOEXEC: "not an executable format",
    EBADF: "bad file descriptor",
    ECHILD: "no child process",
    EAGAIN: "try again",
    ENOMEM: "cannot allocate memory",
    EACCES: "permission denied",
    EFAULT: "bad address",
    EBUSY: "device or resource busy",
    EEXIST: "file exists",
    EXDEV: "link across file systems",
    ENODEV: "no such device",
    ENOTDIR: "not a directory",
    EISDIR: "is a directory",
    EINVAL: "invalid argument",
    ENFILE: "too many open files in the system",
    EMFILE: "too many open files",
    ENOTTY: "no such ioctl",
    ETXTBSY: "executable file is being written",
    EFBIG: "file too large",
    ENOSPC: "no space left on device",
    EROFS: "read-only file system",
    EPIPE: "broken pipe",
    ENAMETOOLONG: "file name too long",
    ENOSYS: "no such system call",
    ELOOP: "too many symbolic links",
    ENODATA: "no data available",
    EOVERFLOW: "value too large for its type",
    EOPNOTSUPP: "operation not supported",
    ECONNRESET: "connection reset by peer",
    ECONNREFUSED: "connection refused",
    EDQUOT: "disk quota exceeded",
    ECANCELED: "operation cancelled",
}

impl Errno {
    /// The number itself, positive.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// `EPERM`; `None` for a number that is not in our table.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|(name, _)| name)
    }
}

impl From<i32> for Errno {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<&io::Error> for Errno {
    /// An error without a number of the kernel (an unexpected end, say) becomes `EIO`.
    fn from(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some((name, meaning)) => write!(f, "{name} ({meaning})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_number_shows_name_and_meaning() {
        assert_eq!(Errno::from(1).to_string(), "EPERM (operation not permitted)");
        assert_eq!(Errno::from(12).name(), Some("ENOMEM"));
    }

    #[test]
    fn an_unknown_number_survives() {
        let errno = Errno::from(4095);
        assert_eq!((errno.name(), errno.get()), (None, 4095));
        assert_eq!(errno.to_string(), "errno 4095");
    }

    #[test]
    fn an_io_error_goes_there_and_back() {
        let error = io::Error::from(Errno::EBUSY);
        assert_eq!(Errno::from(&error), Errno::EBUSY);
    }
}
