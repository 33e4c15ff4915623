//! Why a file of the kernel could not be read, in one line that names it and the way out.

use std::fmt::Display;
use std::path::PathBuf;

use crate::Errno;

/// Why a reader has nothing to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The process exited, before or while we read.
    #[error("process {pid} has exited, or never was")]
    NoProcess {
        /// The process.
        pid: u32,
    },

    /// This kernel has no such file: too old, built without it, or not mounted.
    #[error(
        "{} does not exist: this kernel lacks it, or its file system is not mounted",
        path.display()
    )]
    NotFound {
        /// The file.
        path: PathBuf,
    },

    /// The kernel refused.
    #[error("no permission to read {}: {errno}; it needs {needs}", path.display())]
    NotPermitted {
        /// The file.
        path: PathBuf,
        /// `EACCES` or `EPERM`.
        errno: Errno,
        /// Who may.
        needs: &'static str,
    },

    /// The kernel is too old for what was asked of the file.
    #[error("{} has no {what}: it came with Linux {since}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was asked.
        what: &'static str,
        /// The first version that has it.
        since: &'static str,
    },

    /// The text is not what we believe this file to hold. Worth a bug report.
    #[error("cannot make sense of {}: {malformed}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        malformed: Malformed,
    },

    /// Any other errno.
    #[error("cannot read {}: {errno}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// Where a parser stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Malformed {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl Malformed {
    pub(crate) fn new(line: usize, what: impl Display) -> Self {
        Self { line, what: what.to_string() }
    }
}

/// Runs `parse` over the lines of `text`, and says on which line it failed.
pub(crate) fn parse_lines<'a, T, E: Display>(
    text: &'a str,
    parse: impl Fn(&'a str) -> Result<T, E>,
) -> Result<Vec<T>, Malformed> {
    text.lines()
        .enumerate()
        .map(|(index, line)| parse(line).map_err(|what| Malformed::new(index + 1, what)))
        .collect()
}
