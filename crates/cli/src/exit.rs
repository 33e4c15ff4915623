//! How a command ends: the exit statuses that every subcommand shares, in one place.
//!
//! The help of `pagetide` prints the table below. A subcommand returns an [`Exit`] when it has said
//! all there is to say, or an error, which `main` prints in one line. The drop-ins (`migratepages`)
//! do not use this table: they end as the tools they stand in for.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything that was asked for is done.
    Done = 0,
    /// Some pages stayed; the Outcome says which and why.
    SomeStayed = 1,
    /// The command line or an input file is wrong.
    Usage = 2,
    /// The kernel refused.
    NotPermitted = 3,
    /// The target exited.
    TargetGone = 4,
}

impl Exit {
    const ALL: [Self; 5] =
        [Self::Done, Self::SomeStayed, Self::Usage, Self::NotPermitted, Self::TargetGone];

    /// The status, for the shell.
    pub(crate) const fn status(self) -> u8 {
        self as u8
    }

    /// What the status says, in a few words.
    const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "all done",
            Self::SomeStayed => "some pages stayed",
            Self::Usage => "the command line or an input file is wrong",
            Self::NotPermitted => "no permission",
            Self::TargetGone => "no such target, or it has gone",
        }
    }

    /// The exit status of a command that an error ended.
    ///
    /// A reader that closes the pipe (`pagetide show | head`) has what it wanted: that is success.
    /// Errors that mean a refusal or a missing target are turned into their [`Exit`] by the
    /// subcommand, which knows what it asked for.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let closed_pipe = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
        if closed_pipe { Self::Done } else { Self::Usage }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// The table of exit statuses, for the end of `pagetide --help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit status:");
    for exit in Exit::ALL {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}  {}", exit.status(), exit.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn statuses_are_the_five_that_scripts_rely_on() {
        assert_eq!(Exit::ALL.map(Exit::status), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_reader_that_closes_the_pipe_is_no_failure() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe))
            .context("cannot write the table")
            .unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Done);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything else")), Exit::Usage);
    }
}
