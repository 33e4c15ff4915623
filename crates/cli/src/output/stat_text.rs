//! Counters as columns, in the manner of vmstat: a line for the machine and one for each node, and the
//! headings again on each screen.
//!
//! A count that is wider than its column is shortened (`12.3M`); `--json` has it whole. `-` is what
//! the kernel does not count: at all, or there.

use std::io::{self, IsTerminal as _, Write as _};

use engine::counters::{Line, Reading};
use engine::finding::percent;
use machine::Bytes;

use super::paint;

/// Lines of a screen where there is no terminal to ask.
const SCREEN_LINES: usize = 24;

/// One column: its heading, its width, whether only `--wide` shows it, and what it shows of a line.
struct Column {
    heading: &'static str,
    width: usize,
    is_extra: bool,
    cell: fn(&Line) -> Option<Cell>,
}

/// What a cell shows.
enum Cell {
    Count(u64),
    Percent(u64),
    Memory(Bytes),
    /// Free memory below the low watermark.
    Scarce(Bytes),
}

const fn column(heading: &'static str, width: usize, cell: fn(&Line) -> Option<Cell>) -> Column {
    Column { heading, width, is_extra: false, cell }
}

const fn extra(heading: &'static str, width: usize, cell: fn(&Line) -> Option<Cell>) -> Column {
    Column { heading, width, is_extra: true, cell }
}

fn count(line: &Line, name: &str) -> Option<Cell> {
    line.get(name).map(Cell::Count)
}

/// Those that are no extra are 100 columns wide, with the node's name before them.
const COLUMNS: [Column; 24] = [
    column("hit", 7, |line| count(line, "numa_hit")),
    column("miss", 6, |line| count(line, "numa_miss")),
    column("foreign", 7, |line| count(line, "numa_foreign")),
    extra("local", 7, |line| count(line, "numa_local")),
    column("other", 6, |line| count(line, "numa_other")),
    extra("interleave", 10, |line| count(line, "numa_interleave")),
    column("alloc", 7, |line| line.sum("pgalloc_").map(Cell::Count)),
    column("migrated", 8, |line| count(line, "pgmigrate_success")),
    column("failed", 6, |line| count(line, "pgmigrate_fail")),
    extra("thp-ok", 7, |line| count(line, "thp_migration_success")),
    extra("thp-fail", 8, |line| count(line, "thp_migration_fail")),
    extra("thp-split", 9, |line| count(line, "thp_migration_split")),
    extra("ptes", 7, |line| count(line, "numa_pte_updates")),
    column("hints", 6, |line| count(line, "numa_hint_faults")),
    column("loc%", 5, local_share),
    extra("numa-migr", 9, |line| count(line, "numa_pages_migrated")),
    column("promote", 7, |line| count(line, "pgpromote_success")),
    column("demote", 6, |line| line.sum("pgdemote_").map(Cell::Count)),
    column("free", 6, free),
    extra("min", 6, |line| Some(Cell::Memory(line.amounts.min_bytes))),
    column("low", 6, |line| Some(Cell::Memory(line.amounts.low_bytes))),
    extra("high", 6, |line| Some(Cell::Memory(line.amounts.high_bytes))),
    extra("kswapd", 7, |line| count(line, "pgdemote_kswapd")),
    extra("direct", 7, |line| count(line, "pgdemote_direct")),
];

/// Of the hint faults, those on the node of the CPU.
fn local_share(line: &Line) -> Option<Cell> {
    let faults = line.get("numa_hint_faults").filter(|&faults| faults > 0)?;
    Some(Cell::Percent(percent(line.get("numa_hint_faults_local")?, faults)))
}

#[expect(clippy::unnecessary_wraps, reason = "it stands in a row of columns that may be absent")]
fn free(line: &Line) -> Option<Cell> {
    let free = line.amounts.free_bytes;
    Some(if line.amounts.is_low() { Cell::Scarce(free) } else { Cell::Memory(free) })
}

impl Cell {
    fn text(&self, width: usize) -> String {
        let text = match self {
            Self::Count(count) => shortened(*count, width),
            Self::Percent(percent) => format!("{percent}%"),
            Self::Memory(bytes) => memory(*bytes),
            Self::Scarce(bytes) => format!("!{}", memory(*bytes)),
        };
        let filled = format!("{text:>width$}");
        if matches!(self, Self::Scarce(_)) { paint::warn(filled) } else { filled }
    }
}

/// A count in at most `width` characters, of which there are five or more.
fn shortened(count: u64, width: usize) -> String {
    let whole = count.to_string();
    if whole.len() <= width {
        return whole;
    }
    let (mut unit, mut tenths) = (0, count / 100);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        (unit, tenths) = (unit + 1, tenths / 1000);
    }
    let letter = UNITS[unit];
    if tenths < 1000 {
        format!("{}.{}{letter}", tenths / 10, tenths % 10)
    } else {
        format!("{}{letter}", tenths / 10)
    }
}

const UNITS: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];

/// Memory in at most five characters: whole MiB up to 9999, then whole GiB up to as many.
fn memory(bytes: Bytes) -> String {
    match bytes.get() >> 20 {
        mib @ 0..10_000 => format!("{mib}M"),
        mib if mib >> 10 < 10_000 => format!("{}G", mib >> 10),
        mib => format!("{}T", mib >> 20),
    }
}

/// Prints readings one after another.
pub(crate) struct StatText {
    columns: Vec<&'static Column>,
    screen_lines: Option<usize>,
    /// Since the headings were printed; none before the first.
    lines: Option<usize>,
}

impl StatText {
    /// On a terminal the headings come again on each screen; in a pipe or a file they come once.
    pub(crate) fn new(is_wide: bool) -> Self {
        let screen_lines = io::stdout().is_terminal().then(|| {
            let size = rustix::termios::tcgetwinsize(io::stdout());
            size.map_or(SCREEN_LINES, |size| usize::from(size.ws_row).max(3))
        });
        let columns = COLUMNS.iter().filter(|column| is_wide || !column.is_extra).collect();
        Self { columns, screen_lines, lines: None }
    }

    pub(crate) fn print(&mut self, reading: &Reading) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        let wanted = reading.nodes.len() + 1;
        let is_full =
            |lines: usize| self.screen_lines.is_some_and(|screen| lines + wanted > screen);
        if self.lines.is_none_or(is_full) {
            writeln!(out, "{}", self.headings())?;
            self.lines = Some(1);
        }
        writeln!(out, "{}", self.line("all", &reading.machine))?;
        for (node, line) in &reading.nodes {
            writeln!(out, "{}", self.line(&node.to_string(), line))?;
        }
        self.lines = self.lines.map(|lines| lines + wanted);
        out.flush()
    }

    fn headings(&self) -> String {
        let heading = |column: &&Column| format!(" {:>1$}", column.heading, column.width);
        paint::heading(format!("node{}", self.columns.iter().map(heading).collect::<String>()))
    }

    fn line(&self, node: &str, line: &Line) -> String {
        let cell = |column: &&Column| {
            let width = column.width;
            let text =
                (column.cell)(line).map_or(format!("{:>width$}", "-"), |cell| cell.text(width));
            format!(" {text}")
        };
        format!("{node:>4}{}", self.columns.iter().map(cell).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use engine::counters::{Amounts, Counters};
    use proptest::prelude::*;

    use super::*;

    fn plain(is_wide: bool) -> StatText {
        StatText { screen_lines: None, ..StatText::new(is_wide) }
    }

    fn line(counters: &[(&str, u64)]) -> Line {
        let counters: Counters = counters.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        let amounts = Amounts {
            free_bytes: Bytes::new(512 << 20),
            low_bytes: Bytes::new(16 << 20),
            ..Amounts::default()
        };
        Line { counters, amounts }
    }

    fn visible(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_columns_that_are_no_extras_fit_a_terminal_of_100() {
        assert_eq!(visible(&plain(false).headings()).len(), 100);
        let full: Vec<(&str, u64)> = ["numa_hit", "numa_miss", "pgmigrate_success", "pgalloc_dma"]
            .map(|name| (name, u64::MAX))
            .to_vec();
        assert_eq!(visible(&plain(false).line("1023", &line(&full))).len(), 100);
        assert!(visible(&plain(true).headings()).len() > 100);
    }

    #[test]
    fn what_is_not_counted_is_a_dash_and_never_a_zero() {
        let text = plain(false).line("all", &line(&[("numa_hit", 0), ("pgmigrate_fail", 3)]));
        let cells: Vec<&str> = text.split_whitespace().collect();
        let expected =
            ["all", "0", "-", "-", "-", "-", "-", "3", "-", "-", "-", "-", "512M", "16M"];
        assert_eq!(cells, expected);
    }

    #[test]
    fn the_share_of_local_hint_faults_is_a_part_of_those_there_were() {
        let share = |all, local| {
            let line = line(&[("numa_hint_faults", all), ("numa_hint_faults_local", local)]);
            local_share(&line).map(|cell| cell.text(5))
        };
        assert_eq!(share(8, 6).as_deref(), Some("  75%"));
        assert_eq!(share(0, 0), None);
    }

    #[test]
    fn free_memory_below_the_low_watermark_bears_a_sign() {
        let mut line = line(&[]);
        line.amounts.low_bytes = Bytes::new(1 << 30);
        assert!(visible(&plain(false).line("0", &line)).contains(" !512M"));
    }

    #[test]
    fn counts_too_wide_for_their_column_are_shortened() {
        assert_eq!(shortened(1_234_567, 7), "1234567");
        assert_eq!(shortened(12_345_678, 7), "12.3M");
        assert_eq!(shortened(999_999_999, 6), "999M");
    }

    proptest! {
        #[test]
        fn every_count_fits_its_column(number: u64, width in 5_usize..10) {
            prop_assert!(shortened(number, width).len() <= width);
        }

        #[test]
        fn all_memory_that_a_machine_may_have_fits_five_characters(bytes in 0_u64..1 << 52) {
            prop_assert!(memory(Bytes::new(bytes)).len() <= 5);
        }
    }
}
