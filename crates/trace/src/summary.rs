//! Adds events up: by reason, by who caused them, and by the kernel's path where it was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use machine::printable;
use serde::Serialize;

use crate::event::{Counts, Event, Migration};

/// The sums of a trace.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// One line for each reason, process and path.
    #[serde(serialize_with = "lines")]
    rows: BTreeMap<Key, Sum>,
    /// Of all lines.
    pub total: Sum,
    /// Other events, by name.
    pub kernel_events: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reason: String,
    process: String,
    stack: Arc<[String]>,
}

/// A line of the summary.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// The kernel's word.
    pub reason: &'a str,
    /// Name of the process in whose context it happened.
    pub process: &'a str,
    /// Innermost first; empty when stacks were not asked for.
    pub stack: &'a [String],
    /// The sums.
    #[serde(flatten)]
    pub sum: Sum,
}

/// Sums of migrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Runs of the engine.
    pub migrations: u64,
    /// What became of the pages.
    #[serde(flatten)]
    pub counts: Counts,
    /// Time in the engine, of the runs whose start was seen.
    pub duration_ns: u64,
    /// Pages that those runs moved.
    pub timed_pages: u64,
}

impl Sum {
    fn add(&mut self, migration: &Migration) {
        self.migrations += 1;
        self.counts.add(&migration.counts);
        if let Some(duration_ns) = migration.duration_ns {
            self.duration_ns = self.duration_ns.saturating_add(duration_ns);
            self.timed_pages += migration.counts.succeeded_pages;
        }
    }
}

impl Summary {
    /// Adds an event.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Migration(migration) => {
                let key = Key {
                    reason: migration.reason.clone(),
                    process: migration.occasion.process.clone(),
                    stack: Arc::clone(&migration.stack),
                };
                self.rows.entry(key).or_default().add(migration);
                self.total.add(migration);
            }
            Event::Kernel(event) => match self.kernel_events.get_mut(&event.name) {
                Some(count) => *count += 1,
                None => drop(self.kernel_events.insert(event.name.clone(), 1)),
            },
            Event::Lost(_) => {}
        }
    }

    /// The lines, those with most pages first.
    #[must_use]
    pub fn lines(&self) -> Vec<Line<'_>> {
        let mut lines: Vec<_> = self.rows.iter().map(line).collect();
        lines.sort_by_key(|line| {
            std::cmp::Reverse(line.sum.counts.succeeded_pages + line.sum.counts.failed_pages)
        });
        lines
    }

    /// The paths as flame graphs take them, outermost first, with their width, such as the
    /// microseconds spent there: `compaction;kcompactd0;kthread;...;migrate_pages 1250`.
    #[must_use]
    pub fn folded(&self, width: fn(&Sum) -> u64) -> Vec<String> {
        let frame = |name: &str| printable(name).replace([';', ' '], "_");
        self.rows
            .iter()
            .map(|(Key { reason, process, stack }, sum)| {
                let head = [reason.as_str(), process.as_str()].into_iter();
                let path = head.chain(stack.iter().rev().map(String::as_str)).map(frame);
                let path = path.collect::<Vec<_>>().join(";");
                format!("{path} {}", width(sum).max(1))
            })
            .collect()
    }
}

fn line<'a>((key, sum): (&'a Key, &Sum)) -> Line<'a> {
    Line { reason: &key.reason, process: &key.process, stack: &key.stack, sum: *sum }
}

fn lines<S: serde::Serializer>(
    rows: &BTreeMap<Key, Sum>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().map(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Occasion;

    fn migration(reason: &str, pages: u64, duration_ns: Option<u64>) -> Event {
        migration_by("a b", reason, pages, duration_ns)
    }

    fn migration_by(process: &str, reason: &str, pages: u64, duration_ns: Option<u64>) -> Event {
        let occasion =
            Occasion { time_ns: 0, cpu: 0, tid: 7, pid: Some(7), process: process.to_owned() };
        Event::Migration(Migration {
            occasion,
            reason: reason.to_owned(),
            mode: "MIGRATE_SYNC".to_owned(),
            counts: Counts { succeeded_pages: pages, failed_pages: 1, ..Counts::default() },
            duration_ns,
            pages_of: None,
            stack: ["migrate_pages".to_owned(), "caller".to_owned()].into(),
        })
    }

    fn summary() -> Summary {
        let mut summary = Summary::default();
        for event in [
            migration("compaction", 10, Some(2000)),
            migration("demotion", 100, Some(5000)),
            migration("compaction", 20, None),
        ] {
            summary.add(&event);
        }
        summary
    }

    #[test]
    fn lines_add_up_to_the_total_and_the_largest_comes_first() {
        let summary = summary();
        let lines = summary.lines();
        let pages: Vec<_> =
            lines.iter().map(|line| (line.reason, line.sum.counts.succeeded_pages)).collect();
        assert_eq!(pages, [("demotion", 100), ("compaction", 30)]);
        assert_eq!(summary.total.counts.succeeded_pages, 130);
        assert_eq!(summary.total.counts.failed_pages, 3);
    }

    #[test]
    fn pages_of_a_run_whose_start_was_not_seen_do_not_make_it_look_faster() {
        let summary = summary();
        let compaction = summary.lines()[1].sum;
        assert_eq!((compaction.duration_ns, compaction.timed_pages), (2000, 10));
    }

    #[test]
    fn folded_paths_have_the_outermost_function_first_and_no_blank_but_one() {
        assert_eq!(
            summary().folded(|sum| sum.duration_ns / 1000),
            ["compaction;a_b;caller;migrate_pages 2", "demotion;a_b;caller;migrate_pages 5"]
        );
    }

    #[test]
    fn a_folded_path_is_one_line_of_text_whatever_the_process_is_called() {
        let mut summary = Summary::default();
        summary.add(&migration_by("a\x1b]0;b\nc", "compaction", 1, Some(2000)));
        assert_eq!(
            summary.folded(|sum| sum.duration_ns / 1000),
            ["compaction;a?]0_b?c;caller;migrate_pages 2"]
        );
    }
}
