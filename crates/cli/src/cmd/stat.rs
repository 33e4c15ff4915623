//! `pagetide stat [INTERVAL]`: what the kernel counts of placement and migration, by node.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::counters::Reading;
use linux::Root;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::prometheus;
use crate::output::replacement::Replacement;
use crate::output::stat_text::StatText;

/// Show what the kernel counts of allocation, migration, NUMA hinting, promotion and demotion, for the
/// machine and each node. The first report is since boot, as vmstat's is; each further one is of
/// the interval before it. `-` is what the kernel does not count: at all, or there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide stat                     # once, since boot
  pagetide stat 1                   # every second, until Ctrl-C
  pagetide stat 500ms --count 20 --json
  pagetide stat --prometheus --output /var/lib/node_exporter/pagetide.prom 15s")]
pub(crate) struct Args {
    /// Seconds between two reports, or a time such as 500ms. Left out: one report, since boot.
    #[arg(value_name = "INTERVAL", value_parser = interval)]
    interval: Option<Duration>,

    /// End after so many reports, the first one (since boot) among them.
    #[arg(long, value_name = "N", requires = "interval", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Show all columns, however wide the terminal is.
    #[arg(long)]
    wide: bool,

    /// Print one JSON object a line, with the kernel's names; integers.
    #[arg(long, conflicts_with = "wide")]
    json: bool,

    /// Print the counters since boot in the text format that node_exporter's textfile collector reads.
    #[arg(long, conflicts_with_all = ["wide", "json"])]
    prometheus: bool,

    /// Write the text of --prometheus to FILE, anew at each interval; a reader sees a whole one always.
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    output: Option<PathBuf>,
}

/// Seconds, or a number with a unit.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u64>().map(Duration::from_secs);
    let interval = match seconds {
        Ok(interval) => interval,
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if interval.is_zero() { Err("an interval of nothing".to_owned()) } else { Ok(interval) }
}

/// One line of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    /// When it was read: milliseconds since 1970, UTC.
    time_unix_ms: u64,
    /// The time that the counters are of; none since boot.
    interval_ns: Option<u64>,
    #[serde(flatten)]
    reading: &'a Reading,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        !args.prometheus || args.interval.is_none() || args.output.is_some(),
        "--prometheus with an interval needs --output FILE: two texts in a row are none"
    );
    let root = Root::default();
    let mut text = StatText::new(args.wide);
    let mut before: Option<(Reading, Instant)> = None;
    let (began, mut due) = (Instant::now(), Duration::ZERO);
    let mut reports = 0;
    loop {
        let now = (Reading::take(&root)?, Instant::now());
        let shown = match before.as_ref().filter(|_| !args.prometheus) {
            Some((before, _)) => now.0.since(before),
            None => now.0.clone(),
        };
        let elapsed = before.as_ref().map(|(_, then)| now.1 - *then);
        report(args, &mut text, &shown, elapsed)?;
        reports += 1;
        let Some(interval) = args.interval.filter(|_| args.count.is_none_or(|n| reports < n))
        else {
            return Ok(Exit::Done);
        };
        before = Some(now);
        let elapsed = began.elapsed();
        due = next_due(due, interval, elapsed);
        thread::sleep(due.saturating_sub(elapsed));
    }
}

/// When the report after the one of `due` comes, since the begin. Those that were missed, as while we were
/// stopped, are left out.
fn next_due(due: Duration, interval: Duration, elapsed: Duration) -> Duration {
    due.saturating_add(interval).max(elapsed)
}

fn report(
    args: &Args,
    text: &mut StatText,
    shown: &Reading,
    elapsed: Option<Duration>,
) -> anyhow::Result<()> {
    if args.prometheus {
        return print_prometheus(args, shown);
    }
    if !args.json {
        return Ok(text.print(shown)?);
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let document = Document {
        schema: engine::plan::SCHEMA,
        time_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        interval_ns: elapsed.map(|elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)),
        reading: shown,
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &document).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn print_prometheus(args: &Args, reading: &Reading) -> anyhow::Result<()> {
    let text = prometheus::text(reading);
    match &args.output {
        Some(path) => Replacement::begin(path)?.finish(text.as_bytes()),
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_seconds_or_has_a_unit_and_is_not_nothing() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0s", "", "x", "-1", "1x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reports_come_at_the_interval_however_long_each_takes() {
        assert_eq!(next_due(SECOND, SECOND, SECOND + SECOND / 3), 2 * SECOND);
        assert_eq!(next_due(SECOND, Duration::MAX, SECOND), Duration::MAX);
    }

    #[test]
    fn after_a_stop_there_is_one_report_and_not_all_that_were_missed() {
        let due = next_due(SECOND, SECOND, 100 * SECOND);
        assert_eq!(due, 100 * SECOND);
        assert_eq!(next_due(due, SECOND, 100 * SECOND), 101 * SECOND);
    }
}
