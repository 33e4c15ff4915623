//! Which processes a command is about: the arguments that `show`, `plan` and `move` share.

use std::cell::RefCell;

use engine::journal::JournalError;
use engine::target::{Target, TargetError, pids_of_cgroup};
use linux::Root;

use crate::exit::Exit;

/// Which processes.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// A process: its pid, or its name as `ps -e` shows it.
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,

    /// All processes of this cgroup and those below it: a path under /sys/fs/cgroup.
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub(crate) cgroup: Option<String>,
}

impl Selection {
    /// Whether any process is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.target.is_none() && self.cgroup.is_none()
    }

    /// Opens the processes and takes what `with` makes of each. One of a cgroup that exits meanwhile, or
    /// of which no move is on record, is left out; unless that is true of all.
    pub(crate) fn each<T>(
        &self,
        root: &Root,
        with: impl Fn(Target) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let mut taken = Vec::new();
        let mut left_out = None;
        for target in self.open(root)? {
            match with(target) {
                Err(error) if self.cgroup.is_some() && may_be_left_out(&error) => {
                    left_out = Some(error);
                }
                result => taken.push(result?),
            }
        }
        match left_out {
            Some(error) if taken.is_empty() => Err(error),
            _ => Ok(taken),
        }
    }

    /// The same for who only looks: one of a cgroup that may not be read is left out too, unless that is
    /// true of all. Also says how many those are.
    pub(crate) fn each_readable<T>(
        &self,
        root: &Root,
        with: impl Fn(Target) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Vec<T>, usize)> {
        let refusals = RefCell::new(Vec::new());
        let taken = self.each(root, |target| match with(target) {
            Err(error) if self.cgroup.is_some() && Exit::of(&error) == Exit::NotPermitted => {
                refusals.borrow_mut().push(error);
                Ok(None)
            }
            result => result.map(Some),
        })?;
        let taken: Vec<T> = taken.into_iter().flatten().collect();
        let mut refusals = refusals.into_inner();
        let count = refusals.len();
        match refusals.pop() {
            Some(refusal) if taken.is_empty() => Err(refusal),
            _ => Ok((taken, count)),
        }
    }

    /// Opens the processes. One of a cgroup that has exited meanwhile, or that is a kernel thread, is
    /// left out.
    pub(crate) fn open(&self, root: &Root) -> anyhow::Result<Vec<Target>> {
        if let Some(name) = &self.target {
            return Ok(vec![Target::find(root, name)?]);
        }
        let Some(path) = &self.cgroup else {
            anyhow::bail!("name a target: a pid, a process name, or --cgroup PATH");
        };
        let mut targets = Vec::new();
        for pid in pids_of_cgroup(root, path)? {
            match Target::open(root, pid) {
                Ok(target) => targets.push(target),
                Err(TargetError::NoProcess { .. } | TargetError::NoMemory { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if targets.is_empty() {
            return Err(TargetError::EmptyCgroup { path: path.clone() }.into());
        }
        Ok(targets)
    }
}

fn may_be_left_out(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(JournalError::NoRecord { .. }))
        || Exit::of(error) == Exit::TargetGone
}
