//! The survey: what lies where in one target, exact to the page, in memory that does not grow with it.
//!
//! Pages stream by as runs and are counted; none is kept. Called by `show`, by the planner, and by
//! the mover when it asks the kernel again. It moves nothing.

use std::ops::ControlFlow;

use linux::ReadError;
use machine::AddrRange;
use serde::Serialize;

use crate::memory::{Memory, Unplaced};
use crate::placement::{Mapping, Run, Tally};
use crate::strip::{Strip, StripMaker};

/// Where the memory of one target lies.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Mappings that hold pages, or could; ascending.
    pub mappings: Vec<MappingSurvey>,
}

/// Where the memory of one mapping lies.
#[derive(Clone, Debug, Serialize)]
pub struct MappingSurvey {
    /// The mapping.
    #[serde(flatten)]
    pub mapping: Mapping,
    /// Its pages by node, size and kind.
    pub tally: Tally,
    /// Base pages that other page table entries map too.
    pub shared_pages: u64,
    /// Base pages in swap, or in flight just now.
    pub swapped_pages: u64,
    /// Base pages that are the zero page.
    pub zero_pages: u64,
    /// Where its parts lie.
    pub strip: Strip,
}

impl Survey {
    /// Surveys every mapping of `memory`.
    ///
    /// # Errors
    ///
    /// What reading the target gave.
    pub fn take(memory: &dyn Memory) -> Result<Self, ReadError> {
        let mappings = memory.mappings()?;
        let mappings = mappings
            .into_iter()
            .map(|mapping| survey_mapping(memory, mapping))
            .collect::<Result<_, _>>()?;
        Ok(Self { mappings })
    }

    /// Pages of all mappings.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.mappings.iter().for_each(|mapping| tally.merge(&mapping.tally));
        tally
    }
}

fn survey_mapping(memory: &dyn Memory, mapping: Mapping) -> Result<MappingSurvey, ReadError> {
    let mut tally = Tally::default();
    let mut strip = StripMaker::new(mapping.range);
    let mut shared_pages = 0;
    let unplaced = for_each_run(memory, &mapping, mapping.range, |run| {
        tally.add(&run);
        strip.add(&run);
        shared_pages += if run.shared { run.pages } else { 0 };
    })?;
    Ok(MappingSurvey {
        mapping,
        tally,
        shared_pages,
        swapped_pages: unplaced.swapped_pages,
        zero_pages: unplaced.zero_pages,
        strip: strip.finish(),
    })
}

/// Calls `each` with every run of `range`, to the end.
///
/// # Errors
///
/// What reading the target gave.
pub(crate) fn for_each_run(
    memory: &dyn Memory,
    mapping: &Mapping,
    range: AddrRange,
    mut each: impl FnMut(Run),
) -> Result<Unplaced, ReadError> {
    memory.runs(mapping, range, &mut |run| {
        each(run);
        ControlFlow::Continue(())
    })
}
