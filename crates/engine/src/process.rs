//! One process as `show` shows it: its survey, with the policies and CPUs that explain it.

use std::collections::BTreeMap;

use linux::proc::{numa_maps, status};
use linux::{MemPolicy, ReadError, Root};
use machine::NodeSet;
use serde::Serialize;

use crate::finding;
use crate::memory::LinuxMemory;
use crate::placement::Tally;
use crate::planner::Planner;
use crate::survey::{MappingSurvey, Survey};
use crate::target::{Target, TargetId};

/// Where the memory of a process lies, and what there is to say about it.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessSurvey {
    /// Which process.
    #[serde(flatten)]
    pub id: TargetId,
    /// Nodes on whose CPUs its threads may run.
    pub cpu_nodes: NodeSet,
    /// Nodes that its cpuset allows for memory.
    pub allowed_nodes: NodeSet,
    /// Its pages by node, size and kind.
    pub tally: Tally,
    /// Its mappings that hold pages.
    pub mappings: Vec<MappingView>,
    /// What is wrong, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
}

/// A mapping with its policy and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct MappingView {
    /// Where its pages lie.
    #[serde(flatten)]
    pub survey: MappingSurvey,
    /// Its memory policy as numa_maps has it; `None` where that could not be read.
    pub policy: Option<String>,
    /// What is wrong, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

impl ProcessSurvey {
    /// Surveys `target`.
    ///
    /// # Errors
    ///
    /// When it may not be looked into, or has exited.
    pub fn take(root: &Root, planner: &Planner, target: Target) -> Result<Self, ReadError> {
        let id = target.id;
        let status = status::read(root, id.pid)?;
        let cpu_nodes = planner.cpu_nodes(id.pid)?;
        let memory = LinuxMemory::open(root, id.pid, target.pidfd)?;
        let mut unseen: Vec<String> =
            memory.sight().shortfall().map(str::to_owned).into_iter().collect();
        let policies = read_policies(root, id.pid, &mut unseen);
        let survey = Survey::take(&memory)?;
        let tally = survey.tally();
        let view = |survey: MappingSurvey| {
            let policy = policies.get(&survey.mapping.range.start());
            let finding = finding::of_mapping(&survey.tally.by_node(), policy, &cpu_nodes);
            MappingView { policy: policy.map(ToString::to_string), finding, survey }
        };
        let holds_something = |mapping: &MappingSurvey| {
            mapping.tally.pages() + mapping.swapped_pages + mapping.zero_pages > 0
        };
        Ok(Self {
            finding: finding::of_process(&tally.by_node(), &cpu_nodes),
            mappings: survey.mappings.into_iter().filter(holds_something).map(view).collect(),
            allowed_nodes: status.mems_allowed,
            id,
            cpu_nodes,
            tally,
            unseen,
        })
    }
}

/// Policies by the start of their mapping; a mapping without a line has the default.
fn read_policies(root: &Root, pid: u32, unseen: &mut Vec<String>) -> BTreeMap<u64, MemPolicy> {
    match numa_maps::read(root, pid) {
        Ok(lines) => lines.into_iter().map(|line| (line.start, line.policy)).collect(),
        Err(error) => {
            unseen.push(format!("policies are not known: {error}"));
            BTreeMap::new()
        }
    }
}
