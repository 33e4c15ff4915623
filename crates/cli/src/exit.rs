//! How a command ends: the exit statuses that every subcommand shares, in one place.
//!
//! The help of `pagetide` prints the table below. A subcommand returns an [`Exit`] when it has said
//! all there is to say, or an error, which `main` prints in one line. The drop-ins (`migratepages`)
//! do not use this table: they end as the tools they stand in for.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use engine::page::ExplainError;
use engine::planner::PlanError;
use engine::target::TargetError;
use lab::GuestError;
use linux::ReadError;
use linux::calls::MoveError;
use linux::cgroup::CgroupError;
use linux::sysfs::topology::ReadTopologyError;
use linux::tracefs::TraceError;
use trace::session::SessionError;

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
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_cause).unwrap_or(Self::Usage)
    }
}

/// What one error in a chain of them says about the end of the command, if it says anything.
fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(cause) = cause.downcast_ref::<io::Error>() {
        return (cause.kind() == io::ErrorKind::BrokenPipe).then_some(Exit::Done);
    }
    if let Some(ReadTopologyError::Read(cause)) = cause.downcast_ref() {
        return of_cause(cause);
    }
    if let Some(SessionError::Read(cause)) = cause.downcast_ref() {
        return of_cause(cause);
    }
    if let Some(SessionError::Trace(cause)) = cause.downcast_ref() {
        return match cause {
            TraceError::NotPermitted { .. } | TraceError::LockedDown { .. } => {
                Some(Exit::NotPermitted)
            }
            TraceError::Read(cause) => of_cause(cause),
            _ => None,
        };
    }
    if let Some(GuestError::Host { reason, .. }) = cause.downcast_ref() {
        return of_cause(reason);
    }
    if let Some(cause) = cause.downcast_ref::<PlanError>() {
        return match cause {
            PlanError::Read(cause) => of_cause(cause),
            PlanError::Topology(cause) => of_cause(cause),
            _ => None,
        };
    }
    if let Some(cause) = cause.downcast_ref::<CgroupError>() {
        return match cause {
            CgroupError::NoSuchGroup { .. } => Some(Exit::TargetGone),
            CgroupError::Read(cause) => of_cause(cause),
            _ => None,
        };
    }
    if let Some(cause) = cause.downcast_ref::<ExplainError>() {
        return match cause {
            ExplainError::Read(cause) => of_cause(cause),
            ExplainError::Topology(cause) => of_cause(cause),
            ExplainError::Plan(cause) => of_cause(cause),
            _ => None,
        };
    }
    if let Some(cause) = cause.downcast_ref::<TargetError>() {
        return match cause {
            TargetError::Read(cause) => of_cause(cause),
            TargetError::Cgroup(cause) => of_cause(cause),
            TargetError::NoProcess { .. }
            | TargetError::NoMemory { .. }
            | TargetError::NoName { .. }
            | TargetError::EmptyCgroup { .. }
            | TargetError::Replaced { .. } => Some(Exit::TargetGone),
            _ => None,
        };
    }
    if let Some(cause) = cause.downcast_ref::<ReadError>() {
        return match cause {
            ReadError::NotPermitted { .. } => Some(Exit::NotPermitted),
            ReadError::NoProcess { .. } => Some(Exit::TargetGone),
            _ => None,
        };
    }
    match cause.downcast_ref::<MoveError>()? {
        MoveError::NotPermitted { .. } | MoveError::NotPrivileged { .. } => {
            Some(Exit::NotPermitted)
        }
        MoveError::TargetGone { .. } => Some(Exit::TargetGone),
        _ => None,
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
    use agent::actor::ActorError;
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

    #[test]
    fn so_is_a_reader_of_what_a_command_in_the_lab_wrote() {
        let reason = io::ErrorKind::BrokenPipe.into();
        let error = GuestError::Host { what: "write what the command wrote", reason };
        assert_eq!(Exit::of(&error.into()), Exit::Done);
    }

    #[test]
    fn who_reads_the_records_of_an_actor_may_close_the_pipe_too() {
        let error = ActorError::Stream(io::ErrorKind::BrokenPipe.into());
        assert_eq!(Exit::of(&error.into()), Exit::Done);
        let error = anyhow::Error::from(ActorError::Stream(io::ErrorKind::IsADirectory.into()));
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert_eq!(format!("{error:#}"), "the actor's stream failed: is a directory");
    }

    #[test]
    fn what_the_kernel_said_is_found_below_what_we_say_about_it() {
        let refused = anyhow::Error::from(MoveError::NotPermitted { pid: 7, call: "move pages" });
        assert_eq!(Exit::of(&refused.context("cannot move")), Exit::NotPermitted);
        let gone = ReadTopologyError::Read(ReadError::NoProcess { pid: 7 });
        assert_eq!(Exit::of(&anyhow::Error::from(gone)), Exit::TargetGone);
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_no_such_target() {
        let absent = || CgroupError::NoSuchGroup { path: "/a".into(), mount: "/sys".into() };
        let ends = |error: anyhow::Error| Exit::of(&error);
        assert_eq!(ends(absent().into()), Exit::TargetGone);
        assert_eq!(ends(TargetError::Cgroup(absent()).into()), Exit::TargetGone);
        let empty = TargetError::EmptyCgroup { path: "/a".to_owned() };
        assert_eq!(ends(empty.into()), Exit::TargetGone);
        assert_eq!(ends(CgroupError::NotMounted.into()), Exit::Usage);
    }

    #[test]
    fn why_the_files_of_a_cgroup_could_not_be_read_is_the_status() {
        let of_group = |cause: ReadError| CgroupError::Read(cause);
        let refused = || ReadError::NotPermitted {
            path: "/sys/fs/cgroup/a/cgroup.procs".into(),
            errno: linux::Errno::EACCES,
            needs: "root",
        };
        let ends = |error: anyhow::Error| Exit::of(&error);
        assert_eq!(ends(of_group(refused()).into()), Exit::NotPermitted);
        assert_eq!(ends(TargetError::Cgroup(of_group(refused())).into()), Exit::NotPermitted);
        let gone = TargetError::Cgroup(of_group(ReadError::NoProcess { pid: 7 }));
        assert_eq!(ends(gone.into()), Exit::TargetGone);
    }

    #[test]
    fn what_kept_a_plan_from_reading_the_nodes_is_the_status() {
        let gone = ReadTopologyError::Read(ReadError::NoProcess { pid: 7 });
        assert_eq!(Exit::of(&anyhow::Error::from(PlanError::Topology(gone))), Exit::TargetGone);
    }
}
