//! Taking pages of a trace ring buffer apart, against copying them: what each event of a storm of
//! migrations costs before anything is known of its process.
//!
//! The pages are full of the start and the end of a migration, as Linux 6.12 wrote them.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use linux::tracefs::format::{self, Format};
use linux::tracefs::ring::{Page, PageLayout};

use crate::sample::{Sample, note, row, timed};

const ROUNDS: usize = 15;
/// 16 MiB: more than a cache holds, as what the kernel has just copied would be.
const PAGES: usize = 4096;
const END_FIELDS: [&str; 8] = [
    "common_pid",
    "succeeded",
    "failed",
    "thp_succeeded",
    "thp_failed",
    "thp_split",
    "reason",
    "mode",
];

macro_rules! captured {
    ($read:ident, $path:literal) => {
        $read!(concat!("../../crates/linux/tests/fixtures/6.12/sys/kernel/tracing/", $path))
    };
}

/// Parses and copies the same pages in turn.
pub(crate) fn against_copying() -> anyhow::Result<()> {
    let layout = PageLayout::parse(captured!(include_str, "events/header_page"))?;
    let end = format::parse(captured!(include_str, "events/migrate/mm_migrate_pages/format"))?;
    let start =
        format::parse(captured!(include_str, "events/migrate/mm_migrate_pages_start/format"))?;
    let (page, events) = full_page(&layout, &[&start, &end])?;
    let pages = page.repeat(PAGES);
    let (mut ours, mut copies) = (Sample::default(), Sample::default());
    let mut copied = vec![0; page.len()];
    for _ in 0..ROUNDS {
        let (read, took) = timed(|| read(&layout, &end, &pages))?;
        ensure!(read == events * PAGES, "{read} events of {events} in each of {PAGES} pages");
        ours.add(took);
        copies.add(copy(&pages, &mut copied)?);
    }
    row("parsing 16 MiB of trace pages", &ours, "copying them page by page", &copies)?;
    let events = (events * PAGES) as f64;
    note(format_args!("{:.1} ns an event", ours.median() * 1e9 / events))?;
    note(format_args!("{:.1} million events a second", events / ours.median() / 1e6))?;
    Ok(())
}

/// A page that holds these events of the captured one, again and again.
fn full_page(layout: &PageLayout, formats: &[&Format]) -> anyhow::Result<(Vec<u8>, usize)> {
    let captured = captured!(include_bytes, "per_cpu/cpu0/trace_pipe_raw");
    let parsed = Page::parse(layout, captured)?;
    let mut records = Vec::new();
    for format in formats {
        let is_of = |event: &[u8]| event.starts_with(&format.id.to_ne_bytes());
        let mut events = parsed.records().flatten().map(|record| record.event);
        let event = events.find(|event| is_of(event)).context("the capture lacks an event")?;
        // As many words, 100 ns after the one before.
        let header = u32::try_from(event.len() / 4)? | 100 << 5;
        records.push([&header.to_ne_bytes(), event].concat());
    }
    let mut page = captured[..16].to_vec();
    let mut events = 0;
    for record in records.iter().cycle() {
        if page.len() + record.len() > layout.page_bytes {
            break;
        }
        page.extend_from_slice(record);
        events += 1;
    }
    let used = u64::try_from(page.len() - 16)?;
    page[8..16].copy_from_slice(&used.to_ne_bytes());
    page.resize(layout.page_bytes, 0);
    Ok((page, events))
}

/// Reads every field of every end that pagetide shows, and who did it of every start.
fn read(layout: &PageLayout, end: &Format, pages: &[u8]) -> anyhow::Result<usize> {
    let fields: Vec<_> = END_FIELDS.iter().filter_map(|name| end.field(name)).collect();
    ensure!(fields.len() == END_FIELDS.len(), "the format lacks a field");
    let mut events = 0;
    for page in pages.chunks_exact(layout.page_bytes) {
        for record in Page::parse(layout, page)?.records() {
            let record = record?;
            let is_end = record.event.starts_with(&end.id.to_ne_bytes());
            for field in &fields[..if is_end { fields.len() } else { 1 }] {
                black_box(field.number(record.event));
            }
            black_box(record.time_ns);
            events += 1;
        }
    }
    Ok(events)
}

fn copy(pages: &[u8], copied: &mut [u8]) -> anyhow::Result<Duration> {
    let ((), took) = timed(|| {
        for page in pages.chunks_exact(copied.len()) {
            copied.copy_from_slice(page);
            black_box(&mut *copied);
        }
        Ok(())
    })?;
    Ok(took)
}
