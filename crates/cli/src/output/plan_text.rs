//! A plan as text.

use std::io::{self, Write};
use std::time::Duration;

use engine::concern::{Concern, Weight};
use engine::plan::{Flow, Plan, PlannedRange};
use machine::{Bytes, printable};

use super::outcome_text::pages;
use super::paint;
use super::progress::time;
use super::table::{Align, Table};

/// Mappings that are shown one by one; the rest in one line.
const MAPPINGS_SHOWN: usize = 12;

pub(crate) fn print(plan: &Plan) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    write_plan(&mut out, plan)
}

fn write_plan(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let who = format!("{} (pid {})", printable(&plan.target.name), plan.target.pid);
    if plan.pages() == 0 {
        writeln!(out, "{}: nothing to move", paint::heading(&who))?;
        return write_concerns(out, plan.concerns.iter());
    }
    writeln!(out, "{}: {} would move", paint::heading(&who), Bytes::from_pages(plan.pages()))?;
    write!(out, "\n{}", flow_table(&plan.flows))?;
    write_mappings(out, plan)?;
    match plan.expected_ns {
        Some(ns) => {
            let each = Duration::from_nanos(ns / plan.pages().max(1));
            let all = time(Duration::from_nanos(ns));
            writeln!(out, "\nabout {all}, at {} a page as measured here just now", time(each))?;
        }
        None => {
            writeln!(out, "\nhow long it takes is not known: own memory could not be tried there")?
        }
    }
    write_concerns(out, plan.concerns.iter())
}

fn flow_table(flows: &[Flow]) -> Table {
    let mut table = Table::default();
    table.column("from", Align::Right, flows.iter().map(|flow| flow.from.to_string()));
    table.column("to", Align::Right, flows.iter().map(|flow| flow.to.to_string()));
    table.column("size", Align::Left, flows.iter().map(|flow| flow.size.clone()));
    table.column("pages", Align::Right, flows.iter().map(|flow| flow.pages.to_string()));
    let bytes = |flow: &Flow| Bytes::from_pages(flow.pages).to_string();
    table.column("bytes", Align::Right, flows.iter().map(bytes));
    table
}

/// The mappings with most to move.
fn write_mappings(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let mut ranges: Vec<&PlannedRange> =
        plan.passes.iter().flat_map(|pass| &pass.ranges).filter(|range| range.pages > 0).collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.pages));
    let (shown, rest) = ranges.split_at(ranges.len().min(MAPPINGS_SHOWN));
    let mut table = Table::default();
    let bytes = |range: &&PlannedRange| Bytes::from_pages(range.pages).to_string();
    table.column("bytes", Align::Right, shown.iter().map(bytes));
    table.column("range", Align::Left, shown.iter().map(|range| range.range.to_string()));
    table.column(
        "mapping",
        Align::Left,
        shown.iter().map(|range| printable(&range.mapping).into()),
    );
    write!(out, "\n{table}")?;
    if !rest.is_empty() {
        let pages: u64 = rest.iter().map(|range| range.pages).sum();
        writeln!(out, "and {} in {} more mappings", Bytes::from_pages(pages), rest.len())?;
    }
    if plan.shared_pages > 0 {
        writeln!(out, "left alone, since shared: {}", pages(plan.shared_pages))?;
    }
    Ok(())
}

/// One paragraph for each concern, with the lines that mend it below.
pub(crate) fn write_concerns<'a>(
    out: &mut dyn Write,
    concerns: impl Iterator<Item = &'a Concern>,
) -> io::Result<()> {
    for concern in concerns {
        let sign = match concern.weight {
            Weight::Refusal => "! refused:",
            Weight::Warning => "!",
            Weight::Note => "-",
        };
        writeln!(out, "{} {}", paint::warn(sign), printable(&concern.text))?;
        for line in &concern.fix {
            writeln!(out, "    {}", printable(line))?;
        }
    }
    Ok(())
}
