//! The plan: what would move, from where to where, and what stands in its way.
//!
//! Made from a survey that streams by, so a plan is as small as the number of mappings, whatever
//! they hold. It names ranges, not pages: the mover looks the pages up when their turn comes, and
//! takes those that still lie on a source node. Only a new plan of a small process has its pages at hand,
//! for the `sweep` that may follow at once. Written as JSON by `plan --json`, read back by
//! `move --plan`. Making one changes nothing.

use std::collections::BTreeMap;

use linux::ReadError;
use machine::{AddrRange, Bytes, NodeId, NodeSet, Topology};
use serde::{Deserialize, Serialize};

use crate::concern::Concern;
use crate::few::Few;
use crate::filter::Filter;
use crate::look::Look;
use crate::memory::{Memory, Sharing};
use crate::placement::{Mapping, PageSize, Run};
use crate::route::{Destination, Pass, Route};
use crate::survey::for_each_run;
use crate::target::TargetId;

/// The version of the JSON form of plans and all other documents.
pub const SCHEMA: u32 = 1;

/// What `plan --json` prints and `move --plan` reads: a plan for each process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    /// The version of this form: [`SCHEMA`].
    pub schema: u32,
    /// One for each target.
    pub plans: Vec<Plan>,
}

/// What would move, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The process; its successor under the same number is another one.
    pub target: TargetId,
    /// What was asked for.
    pub route: Route,
    /// What it is narrowed to.
    #[serde(default)]
    pub filter: Filter,
    /// Whether shared pages move too.
    pub sharing: Sharing,
    /// What the mover does, in order.
    pub passes: Vec<PlannedPass>,
    /// What would move, summed up.
    pub flows: Vec<Flow>,
    /// Pages that would stay since other page table entries map them too.
    pub shared_pages: u64,
    /// How long it should take; `None` where it was not asked for, or this host gave no measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ns: Option<u64>,
    /// What stands in the way, and what will not last.
    pub concerns: Vec<Concern>,
    /// What the survey saw, for a sweep that follows at once.
    #[serde(skip)]
    pub(crate) look: Option<Look>,
}

/// One sweep: pages on `from` within `ranges` go to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPass {
    /// Pages on these nodes are taken.
    pub from: NodeSet,
    /// Where they go.
    pub to: Destination,
    /// Ranges that hold such pages, ascending.
    pub ranges: Vec<PlannedRange>,
}

/// A range of one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRange {
    /// Its addresses.
    pub range: AddrRange,
    /// The name of the mapping. When another mapping has taken its place, the mover leaves it alone.
    pub mapping: String,
    /// The file behind the mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Base pages that would move.
    pub pages: u64,
}

/// Pages that would go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Where they are.
    pub from: NodeId,
    /// Where they would be.
    pub to: NodeId,
    /// The size of each, as in the survey: `4KiB`, `thp`, `hugetlb-2MiB`.
    pub size: String,
    /// Base pages.
    pub pages: u64,
}

/// Why a text is not a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// Nothing in it.
    #[error("the plan is empty: make one with `pagetide plan --json TARGET ... > FILE`")]
    Empty,
    /// It is no JSON of this form.
    #[error("not a plan ({why}): make one with `pagetide plan --json TARGET ... > FILE`")]
    Malformed {
        /// Where it differs.
        why: String,
    },
    /// It was written by a pagetide whose plans look different.
    #[error("the plan has schema {found}, and this pagetide reads schema {SCHEMA}: make it anew")]
    Schema {
        /// The number in the file.
        found: u32,
    },
}

impl PlanFile {
    /// Reads the JSON that `plan --json` wrote.
    ///
    /// # Errors
    ///
    /// Why it is no plan.
    pub fn from_json(text: &str) -> Result<Self, PlanFileError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        if text.trim().is_empty() {
            return Err(PlanFileError::Empty);
        }
        let malformed =
            |error: serde_json::Error| PlanFileError::Malformed { why: error.to_string() };
        let head: Head = serde_json::from_str(text).map_err(malformed)?;
        if head.schema != SCHEMA {
            return Err(PlanFileError::Schema { found: head.schema });
        }
        serde_json::from_str(text).map_err(malformed)
    }
}

impl Plan {
    /// Base pages that would move.
    pub fn pages(&self) -> u64 {
        self.flows.iter().map(|flow| flow.pages).sum()
    }

    /// Bytes that each destination would receive.
    pub fn arriving(&self) -> BTreeMap<NodeId, Bytes> {
        let mut arriving = BTreeMap::new();
        for flow in &self.flows {
            *arriving.entry(flow.to).or_insert(Bytes::ZERO) += Bytes::from_pages(flow.pages);
        }
        arriving
    }

    /// What forbids to begin.
    pub fn refusals(&self) -> impl Iterator<Item = &Concern> {
        self.concerns.iter().filter(|concern| concern.is_refusal())
    }
}

impl PlannedPass {
    /// Whether it speaks of any page of `range`.
    pub(crate) fn touches(&self, range: AddrRange) -> bool {
        let behind = self.ranges.partition_point(|planned| planned.range.end() <= range.start());
        self.ranges.get(behind).is_some_and(|planned| planned.range.start() < range.end())
    }

    /// The parts of today's mappings that the plan speaks of. A mapping that has taken the place of
    /// a planned one has none.
    pub fn parts(&self, mappings: &[Mapping]) -> Vec<(Mapping, AddrRange)> {
        let mut parts = Vec::new();
        let mut first = 0;
        for mapping in mappings {
            while self.ranges.get(first).is_some_and(|r| r.range.end() <= mapping.range.start()) {
                first += 1;
            }
            let overlapping =
                self.ranges[first..].iter().take_while(|r| r.range.start() < mapping.range.end());
            for planned in overlapping {
                if planned.mapping == mapping.name
                    && planned.file == mapping.file
                    && let Some(range) = planned.range.intersection(mapping.range)
                {
                    parts.push((mapping.clone(), range));
                }
            }
        }
        parts
    }
}

/// Base pages by source, target and size.
pub(crate) type Flows = Few<(NodeId, NodeId, PageSize), u64>;

/// What [`draft`] found. The concerns and the time come later, from what else is known of the host.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) passes: Vec<PlannedPass>,
    pub(crate) flows: Flows,
    pub(crate) shared_pages: u64,
    pub(crate) shared_parts: Vec<SharedPart>,
    /// Of a new plan alone, since an old one may not speak of the whole process.
    pub(crate) look: Option<Look>,
}

/// The pages of one mapping that other page table entries map too.
#[derive(Debug)]
pub(crate) struct SharedPart {
    pub(crate) mapping: Mapping,
    pub(crate) pages: u64,
    /// The address of one of them.
    pub(crate) example: u64,
}

/// Surveys `memory` and finds the pages that `route` would move.
///
/// # Errors
///
/// What reading the target gave.
pub(crate) fn draft(
    memory: &dyn Memory,
    machine: &Topology,
    route: &Route,
    filter: &Filter,
    sharing: Sharing,
) -> Result<Draft, ReadError> {
    let mappings = memory.mappings()?;
    let whole = |pass: Pass| PlannedPass {
        from: pass.from,
        to: pass.to,
        ranges: mappings.iter().map(whole_mapping).collect(),
    };
    let passes: Vec<PlannedPass> = route.passes(machine).into_iter().map(whole).collect();
    let look = match passes[..] {
        [PlannedPass { to: Destination::Node(to), .. }] if *filter == Filter::default() => {
            Some(Look::begin(to))
        }
        _ => None,
    };
    survey(memory, &mappings, passes, filter, sharing, look)
}

fn whole_mapping(mapping: &Mapping) -> PlannedRange {
    let (name, file) = (mapping.name.clone(), mapping.file.clone());
    PlannedRange { range: mapping.range, mapping: name, file, pages: 0 }
}

/// Surveys what `filter` lets through of the ranges of `passes` and counts what would move now. Ranges without such pages are
/// left out.
///
/// # Errors
///
/// What reading the target gave.
pub(crate) fn redraft(
    memory: &dyn Memory,
    passes: Vec<PlannedPass>,
    filter: &Filter,
    sharing: Sharing,
) -> Result<Draft, ReadError> {
    survey(memory, &memory.mappings()?, passes, filter, sharing, None)
}

fn survey(
    memory: &dyn Memory,
    mappings: &[Mapping],
    passes: Vec<PlannedPass>,
    filter: &Filter,
    sharing: Sharing,
    look: Option<Look>,
) -> Result<Draft, ReadError> {
    let mut draft = Draft {
        passes: Vec::new(),
        flows: Flows::default(),
        shared_pages: 0,
        shared_parts: Vec::new(),
        look,
    };
    let mut allowed_pages = filter.limit.map_or(u64::MAX, |limit| limit.pages());
    for mut pass in passes {
        let parts = pass.parts(mappings);
        pass.ranges.clear();
        for (mapping, range) in parts {
            let part = filter.part_of(&mapping).and_then(|part| part.intersection(range));
            let Some(range) = part else { continue };
            let mut tally = RangeTally { allowed_pages, ..RangeTally::default() };
            if let Some(look) = &mut draft.look {
                look.enter(range);
            }
            for_each_run(memory, &mapping, range, |run| {
                if let Some(look) = &mut draft.look {
                    look.add(&run, &pass.from);
                }
                if filter.accepts(&run) {
                    tally.add(&pass, &run, sharing, &mut draft.flows);
                }
            })?;
            allowed_pages = tally.allowed_pages;
            draft.take_in(&mut pass, mapping, range, &tally);
        }
        if !pass.ranges.is_empty() {
            draft.passes.push(pass);
        }
    }
    Ok(draft)
}

impl Draft {
    fn take_in(
        &mut self,
        pass: &mut PlannedPass,
        mapping: Mapping,
        range: AddrRange,
        tally: &RangeTally,
    ) {
        self.shared_pages += tally.shared_pages;
        if tally.pages + tally.shared_pages > 0 {
            let (mapping, file) = (mapping.name.clone(), mapping.file.clone());
            pass.ranges.push(PlannedRange { range, mapping, file, pages: tally.pages });
        }
        if let Some(example) = tally.shared_example {
            self.shared_parts.push(SharedPart { mapping, pages: tally.shared_pages, example });
        }
    }
}

/// Counts of one range of one pass.
#[derive(Default)]
struct RangeTally {
    pages: u64,
    shared_pages: u64,
    shared_example: Option<u64>,
    allowed_pages: u64,
}

impl RangeTally {
    fn add(&mut self, pass: &PlannedPass, run: &Run, sharing: Sharing, flows: &mut Flows) {
        if !pass.from.contains(run.node) {
            return;
        }
        let stays = run.shared && sharing == Sharing::OwnOnly;
        match &pass.to {
            Destination::Node(to) => self.count(run, *to, run.pages, stays, flows),
            Destination::Interleave(_) => {
                for address in run.page_starts() {
                    let to = pass.to.node_for(address, run);
                    self.count(run, to, run.size.base_pages(), stays, flows);
                }
            }
        }
    }

    fn count(&mut self, run: &Run, to: NodeId, pages: u64, stays: bool, flows: &mut Flows) {
        let pages = pages.min(self.allowed_pages);
        if to == run.node || pages == 0 {
            return;
        }
        if stays {
            self.shared_pages += pages;
            self.shared_example.get_or_insert(run.start);
            return;
        }
        self.allowed_pages -= pages;
        self.pages += pages;
        *flows.entry((run.node, to, run.size)) += pages;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory::fake::{FakeMemory, node};

    pub(crate) fn plan_of(passes: Vec<PlannedPass>) -> Plan {
        Plan {
            target: TargetId {
                pid: 1,
                name: "fake".to_owned(),
                start_time_ticks: 5,
                boot_id: "boot".to_owned(),
            },
            route: Route::To(node(1)),
            filter: Filter::default(),
            sharing: Sharing::OwnOnly,
            passes,
            flows: Vec::new(),
            shared_pages: 0,
            expected_ns: None,
            concerns: Vec::new(),
            look: None,
        }
    }

    pub(crate) fn two_nodes() -> Topology {
        machine::load("two-socket").unwrap()
    }

    fn drafted(memory: &FakeMemory, route: &Route, filter: &Filter) -> Draft {
        draft(memory, &two_nodes(), route, filter, Sharing::OwnOnly).unwrap()
    }

    #[test]
    fn a_draft_counts_pages_elsewhere_and_leaves_shared_ones_out() {
        let memory = FakeMemory::new("00110").with_page(4, |page| page.shared = true);
        let draft = drafted(&memory, &Route::To(node(1)), &Filter::default());
        let flows: Vec<_> = draft.flows.iter().copied().collect();
        assert_eq!(flows, [((node(0), node(1), PageSize::Base), 2)]);
        assert_eq!(draft.shared_pages, 1);
        assert_eq!(draft.shared_parts[0].example, (16 + 4) * 4096);
    }

    #[test]
    fn a_limit_is_kept_across_mappings_and_passes() {
        let memory = FakeMemory::new("000000");
        let filter = Filter { limit: Some(Bytes::from_pages(4)), ..Filter::default() };
        let draft = drafted(&memory, &Route::To(node(1)), &filter);
        assert_eq!(draft.flows.iter().map(|(_, pages)| pages).sum::<u64>(), 4);
    }

    #[test]
    fn a_mapping_that_took_the_place_of_a_planned_one_has_no_part() {
        let memory = FakeMemory::new("0000");
        let draft = drafted(&memory, &Route::To(node(1)), &Filter::default());
        let mut mappings = memory.mappings().unwrap();
        assert_eq!(draft.passes[0].parts(&mappings).len(), 1);
        mappings[0].name = "/usr/lib/other.so".to_owned();
        assert_eq!(draft.passes[0].parts(&mappings), []);
    }

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        let memory = FakeMemory::new("0011");
        let plan = plan_of(drafted(&memory, &Route::To(node(1)), &Filter::default()).passes);
        let file = PlanFile { schema: SCHEMA, plans: vec![plan] };
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(PlanFile::from_json(&text).unwrap(), file);
    }

    #[test]
    fn a_file_that_is_no_plan_is_told_from_one_of_another_schema() {
        assert!(matches!(PlanFile::from_json(" \n"), Err(PlanFileError::Empty)));
        assert!(matches!(PlanFile::from_json("{\"a\":1}"), Err(PlanFileError::Malformed { .. })));
        let error = PlanFile::from_json("{\"schema\":7}").unwrap_err();
        assert!(matches!(error, PlanFileError::Schema { found: 7 }), "{error}");
    }
}
