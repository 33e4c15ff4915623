//! An outcome as text: what moved, what stayed and why, and what the kernel says at the end.

use std::io::{self, Write};
use std::time::Duration;

use engine::outcome::{End, Outcome};
use machine::Bytes;

use super::paint;
use super::progress::{per_second, time};

pub(crate) fn print(outcome: &Outcome) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    write_outcome(&mut out, outcome)
}

fn write_outcome(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    let elapsed = Duration::from_nanos(outcome.elapsed_ns);
    let moved = outcome.moved_pages;
    write!(out, "moved {} in {}", pages(moved), time(elapsed))?;
    if moved > 0 {
        let rate = per_second(moved, elapsed.as_secs_f64());
        let longest = time(Duration::from_nanos(outcome.longest_call_ns));
        write!(out, ", {rate}/s; {} calls, the longest {longest}", outcome.calls)?;
    }
    if let Some(hold) = outcome.longest_hold_ns {
        write!(out, "; pages held for {} at most", time(Duration::from_nanos(hold)))?;
    }
    writeln!(out)?;
    if outcome.calls_over_limit > 0 {
        writeln!(out, "{} calls held pages longer than --max-stall", outcome.calls_over_limit)?;
    }
    if outcome.already_there_pages > 0 {
        writeln!(out, "already there: {}", pages(outcome.already_there_pages))?;
    }
    if outcome.gone_pages > 0 {
        writeln!(
            out,
            "gone meanwhile, given up by the process or all zero: {}",
            pages(outcome.gone_pages)
        )?;
    }
    for (cause, &count) in &outcome.stayed {
        writeln!(out, "{} {}: {cause}", paint::warn("! stayed"), pages(count))?;
        writeln!(out, "    {}", cause.hint())?;
    }
    write_end(out, outcome)?;
    let looked_at = outcome.found_pages + outcome.already_there_pages > 0;
    if let Some(placement) = outcome.placement.as_ref().filter(|_| looked_at) {
        let nodes: Vec<String> = placement
            .iter()
            .map(|(node, &count)| format!("{} on node {node}", Bytes::from_pages(count)))
            .collect();
        let nodes = if nodes.is_empty() { "no page is left".to_owned() } else { nodes.join(", ") };
        writeln!(out, "verified by asking the kernel again: {nodes}")?;
        let back = outcome.came_back_pages();
        if back > 0 {
            let text = "came, or came back, to where they should leave while the move went on";
            writeln!(out, "{} {} {text}", paint::warn("!"), pages(back))?;
        }
    }
    Ok(())
}

fn write_end(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    let pid = outcome.pid;
    match &outcome.end {
        End::Completed => Ok(()),
        End::Interrupted => writeln!(out, "{} stopped at the end of a chunk", paint::warn("!")),
        End::TargetGone => {
            writeln!(out, "{} process {pid} exited while its pages were moved", paint::warn("!"))
        }
        End::NotPermitted => writeln!(
            out,
            "{} no permission to move pages of process {pid} (EPERM): run as its owner or with CAP_SYS_PTRACE; shared pages need CAP_SYS_NICE too",
            paint::warn("!")
        ),
        End::Refused(why) => writeln!(out, "{} the kernel refused: {why}", paint::warn("!")),
    }
}

/// `70400 pages (275 MiB)`
pub(crate) fn pages(count: u64) -> String {
    format!("{count} page{} ({})", if count == 1 { "" } else { "s" }, Bytes::from_pages(count))
}
