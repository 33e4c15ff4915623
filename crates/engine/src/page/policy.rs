//! The mempolicy in force on a page, and where it comes from.
//!
//! numa_maps gives for each mapping the policy in force: its own, else that of the process's first
//! thread. No file tells the two apart; but `[vdso]` is a mapping on which nobody sets a policy, so
//! its line is the thread's.

use linux::proc::maps::Mapping;
use linux::proc::numa_maps::{self, NumaMapping};
use linux::{MemPolicy, PolicyMode, ReadError, Root};
use serde::Serialize;

/// Where a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySource {
    /// Nobody set one: the node of the CPU that touches first.
    Nobody,
    /// It is set on the mapping (mbind), or on the shared memory behind it.
    Mapping,
    /// It is that of the process's first thread (set_mempolicy); the same one set on the mapping
    /// would look alike.
    Process,
    /// Of the mapping or the process: nothing tells which.
    MappingOrProcess,
}

impl PolicySource {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nobody => {
                "neither the mapping nor the process has one: the node of the CPU that touches first"
            }
            Self::Mapping => "set on the mapping (mbind), or on the shared memory behind it",
            Self::Process => {
                "of the process's first thread (set_mempolicy), or the same one set on the mapping"
            }
            Self::MappingOrProcess => "of the mapping or of the process: nothing tells which",
        }
    }
}

/// A policy and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInForce {
    /// As numa_maps writes it: `bind:0`.
    #[serde(serialize_with = "as_text")]
    pub policy: MemPolicy,
    /// Where it comes from.
    pub source: PolicySource,
}

fn as_text<S: serde::Serializer>(policy: &MemPolicy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(policy)
}

/// The policy of a mapping of a process, whose memory is that of the thread `tid`; `None` when it has
/// gone meanwhile.
pub(super) fn in_force(
    root: &Root,
    (pid, tid): (u32, u32),
    map: &Mapping,
) -> Result<Option<PolicyInForce>, ReadError> {
    let lines = numa_maps::read(root, pid)?;
    let maps = linux::proc::maps::read(root, tid)?;
    let vdso = maps.iter().find(|map| map.name == "[vdso]").map(|map| map.range.start());
    Ok(of_lines(&lines, map.range.start(), vdso))
}

fn of_lines(lines: &[NumaMapping], start: u64, vdso: Option<u64>) -> Option<PolicyInForce> {
    let policy_at =
        |start: u64| lines.iter().find(|line| line.start == start).map(|line| &line.policy);
    let policy = policy_at(start)?.clone();
    let threads = vdso.and_then(policy_at);
    let source = match threads {
        _ if policy.mode == PolicyMode::Default => PolicySource::Nobody,
        None => PolicySource::MappingOrProcess,
        Some(threads) if *threads == policy => PolicySource::Process,
        Some(_) => PolicySource::Mapping,
    };
    Some(PolicyInForce { policy, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_the_vdso_has_too_is_the_threads_and_another_the_mappings() {
        let source = |text: &str| {
            let lines = numa_maps::parse(text).unwrap();
            of_lines(&lines, 0x1000, Some(0x9000)).map(|found| found.source)
        };
        assert_eq!(source("1000 default\n9000 default\n"), Some(PolicySource::Nobody));
        assert_eq!(source("1000 bind:0\n9000 default\n"), Some(PolicySource::Mapping));
        assert_eq!(source("1000 bind:0\n9000 bind:0\n"), Some(PolicySource::Process));
        assert_eq!(source("1000 bind:0\n9000 bind:1\n"), Some(PolicySource::Mapping));
        assert_eq!(source("1000 bind:0\n"), Some(PolicySource::MappingOrProcess));
        assert_eq!(source("9000 bind:0\n"), None);
    }
}
