//! The survey against bare reads of pagemap and against queries.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::ensure;
use engine::memory::{LinuxMemory, Memory, Sharing, Sight, Unplaced};
use engine::placement::{Kind, Mapping, PageSize, Run, Tally};
use engine::survey::Survey;
use linux::calls::{MoveError, query_pages};
use linux::proc::pagemap::Pagemap;
use linux::{ReadError, Root};
use machine::{AddrRange, BASE_PAGE_BYTES, Bytes, NodeId, NodeSet};

use crate::moving::node;
use crate::sample::{Sample, note, row, timed};
use crate::target::Target;

const ROUNDS: usize = 9;
/// Words a read: what the survey uses too.
const WORDS: usize = 16384;

/// A survey of one area, as `show` takes it.
fn survey(target: &Target, memory: &LinuxMemory) -> anyhow::Result<(Tally, Duration)> {
    let mapping = target.mapping(memory)?;
    timed(|| {
        let mut tally = Tally::default();
        memory.runs(&mapping, target.areas[0], &mut |run| {
            tally.add(&run);
            ControlFlow::Continue(())
        })?;
        Ok(tally)
    })
}

/// Nothing but reading the words of an area.
fn bare_read(target: &Target) -> anyhow::Result<Duration> {
    let pagemap = Pagemap::open(&Root::default(), target.pid())?;
    let (mut page, pages) = first_and_pages(target.areas[0]);
    let end = page + pages;
    let mut words = vec![0; WORDS];
    let ((), took) = timed(|| {
        while page < end {
            page += pagemap.read_entries(page, &mut words)? as u64;
        }
        Ok(())
    })?;
    Ok(took)
}

fn first_and_pages(area: AddrRange) -> (u64, u64) {
    (area.start() / BASE_PAGE_BYTES, area.pages())
}

/// A move_pages query of every page.
fn query(target: &Target) -> anyhow::Result<Duration> {
    let (first, pages) = first_and_pages(target.areas[0]);
    let addresses: Vec<u64> = (first..first + pages).map(|page| page * BASE_PAGE_BYTES).collect();
    let mut status = vec![0; 4096];
    let ((), took) = timed(|| {
        for chunk in addresses.chunks(status.len()) {
            query_pages(target.pid(), chunk, &mut status[..chunk.len()])?;
        }
        Ok(())
    })?;
    Ok(took)
}

/// Surveys 4 GiB of small pages, and of THPs, in turn with its peers.
pub(crate) fn against_pagemap() -> anyhow::Result<()> {
    let target = Target::start(&["a=anon:4G"])?;
    let (_, memory) = target.open()?;
    ensure!(memory.sight() == Sight::Frames, "frame numbers are hidden: run this as root");
    let (mut ours, mut reads, mut queries) = Default::default();
    measure(&target, &memory, &mut ours, &mut reads, &mut queries, PageSize::Base)?;
    row("survey of 4 GiB, 4 KiB pages", &ours, "bare pagemap reads", &reads)?;
    row("the same", &ours, "move_pages query of every page", &queries)?;
    per_page(&ours, &target)?;
    let mut blind = Sample::default();
    let (_, mut memory) = target.open()?;
    memory.limit_sight(Sight::Pagemap);
    for _ in 0..3 {
        blind.add(survey(&target, &memory)?.1);
    }
    row("the same without frame numbers", &blind, "move_pages query of every page", &queries)?;
    drop(target);

    let target = Target::start(&["a=thp:4G"])?;
    let (_, memory) = target.open()?;
    let (mut ours, mut reads, mut queries) = Default::default();
    measure(&target, &memory, &mut ours, &mut reads, &mut queries, PageSize::Thp)?;
    row("survey of 4 GiB, THPs", &ours, "bare pagemap reads", &reads)?;
    row("the same", &ours, "move_pages query of every page", &queries)?;
    per_page(&ours, &target)
}

fn measure(
    target: &Target,
    memory: &LinuxMemory,
    ours: &mut Sample,
    reads: &mut Sample,
    queries: &mut Sample,
    size: PageSize,
) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        reads.add(bare_read(target)?);
        let (tally, took) = survey(target, memory)?;
        ours.add(took);
        let seen = tally.pages_where(|line| line.size == size);
        ensure!(seen == target.areas[0].pages(), "{seen} pages of {size} were seen");
        if round % 3 == 0 {
            queries.add(query(target)?);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_page(ours: &Sample, target: &Target) -> anyhow::Result<()> {
    let ns = ours.median() * 1e9 / target.areas[0].pages() as f64;
    Ok(note(format!("{ns:.2} ns for each 4 KiB"))?)
}

/// A made-up process with 1 TiB of small pages, every other one on another node: no two neighbours
/// join to a run, which is the worst that a survey can meet.
struct Tebibyte;

impl Memory for Tebibyte {
    fn pid(&self) -> u32 {
        1
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn mappings(&self) -> Result<Vec<Mapping>, ReadError> {
        Ok(vec![Mapping {
            range: AddrRange::from_pages(1 << 40, Bytes::new(1 << 40).pages()),
            name: "[anon]".to_owned(),
            kind: Kind::Anon,
            shared: false,
            hugetlb: None,
            file: None,
        }])
    }

    fn runs(
        &self,
        mapping: &Mapping,
        range: AddrRange,
        each: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<Unplaced, ReadError> {
        let nodes = [node(0), node(1)];
        for page in 0..range.pages() {
            let run = Run {
                start: range.start() + page * BASE_PAGE_BYTES,
                pages: 1,
                node: nodes[usize::from(page % 2 == 1)],
                size: PageSize::Base,
                kind: mapping.kind,
                shared: false,
            };
            if each(run).is_break() {
                break;
            }
        }
        Ok(Unplaced::default())
    }

    fn pages_by_node(&self) -> Result<BTreeMap<u64, BTreeMap<NodeId, u64>>, ReadError> {
        Ok(BTreeMap::new())
    }

    fn has_page(&self, _: u64) -> bool {
        true
    }

    fn move_pages(&self, _: &[u64], _: NodeId, _: Sharing, _: &mut [i32]) -> Result<(), MoveError> {
        Err(MoveError::TargetGone { pid: 1 })
    }

    fn migrate_pages(&self, _: &NodeSet, _: NodeId, _: Sharing) -> Result<(), MoveError> {
        Err(MoveError::TargetGone { pid: 1 })
    }

    fn query_pages(&self, _: &[u64], _: &mut [i32]) -> Result<(), MoveError> {
        Err(MoveError::TargetGone { pid: 1 })
    }
}

/// Peak memory of a survey of 1 TiB.
pub(crate) fn a_tebibyte() -> anyhow::Result<()> {
    let before = peak()?;
    let survey = Survey::take(&Tebibyte)?;
    let grown = peak()?.saturating_sub(before);
    let pages = survey.tally().pages();
    Ok(note(format!("a survey of {pages} pages, no two alike, took {grown} of memory"))?)
}

/// VmHWM of this process.
fn peak() -> anyhow::Result<Bytes> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(Bytes::new(kib * 1024))
}
