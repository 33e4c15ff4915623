//! Which migrations a user wants to see: by reason, and by whom they concern.
//!
//! The kernel runs a migration in the context of whoever causes it: the process that calls, the
//! thread that faults, kswapd, kcompactd. Its events name that thread, and not the owner of the pages.
//! A target is matched by both, as far as the owner can be known: for a system call it is the pid
//! that the call names; for a hint fault, mbind and a long-term pin it is the thread's own process.
//! Of compaction, demotion, hotplug and DAMON nobody can tell whose pages they move.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::tasks::Task;

/// What to show. The default is everything.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Reasons as a user writes them: the kernel's words, or a part that only one has.
    pub reasons: Vec<String>,
    /// Whom it must concern.
    pub target: Option<Target>,
}

/// Whom a migration must concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This process, with all its threads.
    Process(u32),
    /// Every process or thread of this name, also one that starts later.
    Name(String),
    /// Every process of this control group and those below it; its full path.
    Cgroup(PathBuf),
}

/// A reason that this kernel does not have, or that may mean several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no one reason is meant by `{asked}`; this kernel has: {known}")]
pub struct UnknownReason {
    /// What the user wrote.
    pub asked: String,
    /// All that the kernel has.
    pub known: String,
}

impl Target {
    /// Whether a thread, or a process that events name, belongs to it.
    pub(crate) fn is(&self, task: &Task) -> bool {
        match self {
            Self::Process(pid) => task.pid == Some(*pid),
            Self::Name(name) => task.name == *name,
            Self::Cgroup(path) => task.cgroup.as_ref().is_some_and(|own| own.starts_with(path)),
        }
    }
}

/// The kernel's numbers of the reasons that a user wrote.
pub(crate) fn numbers(
    asked: &[String],
    known: &BTreeMap<i64, String>,
) -> Result<BTreeSet<i64>, UnknownReason> {
    asked.iter().map(|asked| number(asked, known)).collect()
}

/// The reasons that a user wrote, of those that are known.
pub(crate) fn words(
    asked: &[String],
    known: Vec<String>,
) -> Result<BTreeSet<String>, UnknownReason> {
    let known = (0..).zip(known).collect();
    let asked = numbers(asked, &known)?;
    Ok(known
        .into_iter()
        .filter(|(number, _)| asked.contains(number))
        .map(|(_, word)| word)
        .collect())
}

fn number(asked: &str, known: &BTreeMap<i64, String>) -> Result<i64, UnknownReason> {
    let word = asked.trim().to_lowercase().replace(['-', ' '], "_");
    let exact = known.iter().find(|(_, name)| **name == word);
    let mut holding = known.iter().filter(|(_, name)| !word.is_empty() && name.contains(&word));
    let only = holding.next().filter(|_| holding.next().is_none());
    exact.or(only).map(|(&number, _)| number).ok_or_else(|| UnknownReason {
        asked: asked.to_owned(),
        known: known.values().map(String::as_str).collect::<Vec<_>>().join(", "),
    })
}

/// Whether a migration for this reason moves pages of the very process in whose context it runs.
pub(crate) fn moves_own_pages(reason: &str) -> bool {
    ["numa_misplaced", "mempolicy_mbind", "longterm_pin"].contains(&reason)
}

/// Whether a migration for this reason may have been asked for by a call that names a process.
pub(crate) fn is_called_for(reason: &str) -> bool {
    reason.contains("syscall")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<BTreeSet<i64>, UnknownReason> {
        let known = ["compaction", "memory_failure", "memory_hotplug", "syscall_or_cpuset"];
        let known = (0..).zip(known.map(str::to_owned)).collect();
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        numbers(&words, &known)
    }

    #[test]
    fn a_reason_is_known_by_its_name_by_other_spelling_and_by_a_part_that_only_it_has() {
        assert_eq!(asked(&["compaction", "Memory-Failure", "syscall"]), Ok([0, 1, 3].into()));
    }

    #[test]
    fn a_part_that_several_have_or_none_is_answered_by_the_list() {
        for word in ["memory", "kswapd", ""] {
            let error = asked(&[word]).unwrap_err().to_string();
            assert!(error.ends_with("memory_hotplug, syscall_or_cpuset"), "{error}");
        }
    }

    #[test]
    fn a_target_is_a_process_a_name_or_a_group_with_those_below_it() {
        let cgroup = Some("/a/b/c".into());
        let task = Task { pid: Some(7), name: "db".into(), cgroup, ..Task::default() };
        assert!(Target::Process(7).is(&task) && !Target::Process(8).is(&task));
        assert!(Target::Name("db".into()).is(&task) && !Target::Name("d".into()).is(&task));
        assert!(
            Target::Cgroup("/a/b".into()).is(&task) && !Target::Cgroup("/a/bc".into()).is(&task)
        );
        assert!(!Target::Cgroup("/".into()).is(&Task::default()));
    }
}
