//! Holds what a kernel did against what the model did, number by number.
//!
//! No bound is wider than what was seen on the kernels asks for; each says which function of the
//! kernel makes it necessary.

use std::fmt;

use super::{Loop, Seen};

/// How far the model's number may be from the kernel's: the larger of the two is at most `percent`
/// of the smaller, and `slack` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// 100: no farther than `slack`.
    pub percent: u64,
    /// Pages, entries or faults.
    pub slack: u64,
    /// Why it is no smaller.
    pub why: &'static str,
}

/// Where pages lie at the end.
const PLACEMENT: Bound = Bound {
    percent: 100,
    slack: 20,
    why: "`migrate_misplaced_folio` fails for a page that another CPU has just put in a batch",
};
/// What the scanner marked, and the faults that follow.
const SCANS: Bound = Bound {
    percent: 150,
    slack: 80,
    why: "`task_tick_numa` looks at a thread's runtime at ticks, so near the end of a loop a scan \
          more or less is due; `task_numa_work` walks the program's own memory too",
};
/// What moved.
const MOVES: Bound = Bound {
    percent: 100,
    slack: 80,
    why: "pages of the program's own (stack, libraries' data) come to its CPU with the others",
};

/// Everything, where threads of two nodes use the same pages: a whole pass of it may go either way.
const UNSETTLED: Bound = Bound {
    percent: 150,
    slack: 300,
    why: "the thread that comes next after a scan meets the marks, and which one that is hangs on \
          milliseconds of runtime (`task_tick_numa`)",
};

/// Counters that are compared, where either side has them.
const COUNTERS: [(&str, Bound); 9] = [
    ("numa_pte_updates", SCANS),
    ("numa_huge_pte_updates", SCANS),
    ("numa_hint_faults", SCANS),
    ("numa_hint_faults_local", SCANS),
    ("numa_pages_migrated", MOVES),
    ("pgmigrate_success", MOVES),
    ("pgpromote_candidate", MOVES),
    ("pgpromote_success", MOVES),
    ("pgdemote_kswapd", MOVES),
];

/// Reasons of `migrate:mm_migrate_pages` that are compared.
const REASONS: [&str; 2] = ["numa_misplaced", "demotion"];

/// One number of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is counted: a counter's name, `pages on node N`, or `migrated, REASON`.
    pub what: String,
    /// The kernel's number.
    pub kernel: u64,
    /// The model's.
    pub model: u64,
    /// How far they may be apart.
    pub bound: Bound,
}

impl Row {
    /// Whether the model is near enough.
    pub fn holds(&self) -> bool {
        let (low, high) = (self.kernel.min(self.model), self.kernel.max(self.model));
        high * 100 <= low * self.bound.percent + self.bound.slack * 100
    }
}

/// A line of a Markdown table: what, the kernel's number, the model's.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, kernel, model, .. } = self;
        let verdict = if self.holds() { "" } else { " **differs**" };
        write!(f, "| {what} | {kernel} | {model}{verdict} |")
    }
}

/// Each number of a loop that is not 0 on both sides.
pub fn compare(of: &Loop, kernel: &Seen, model: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what: String, number: &dyn Fn(&Seen) -> u64, bound| {
        let bound = if of.is_shared() { UNSETTLED } else { bound };
        rows.push(Row { what, kernel: number(kernel), model: number(model), bound });
    };
    for node in [0, 1, 2] {
        add(format!("pages on node {node}"), &|seen| seen.pages_on(node), PLACEMENT);
    }
    for (name, bound) in COUNTERS {
        add(name.to_owned(), &|seen| seen.counter(name), bound);
    }
    for reason in REASONS {
        let pages = |seen: &Seen| seen.migrated.get(reason).copied().unwrap_or(0);
        add(format!("migrated, {reason}"), &pages, MOVES);
    }
    rows.retain(|row| row.kernel + row.model > 0);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: u64, model: u64, percent: u64, slack: u64) -> Row {
        let bound = Bound { percent, slack, why: "" };
        Row { what: "x".to_owned(), kernel, model, bound }
    }

    #[test]
    fn a_bound_is_the_same_in_both_directions() {
        for (low, high, holds) in [(100, 160, true), (100, 161, false), (0, 10, true)] {
            assert_eq!(row(low, high, 150, 10).holds(), holds, "{low} {high}");
            assert_eq!(row(high, low, 150, 10).holds(), holds, "{high} {low}");
        }
    }

    #[test]
    fn every_bound_names_a_reason() {
        assert!([PLACEMENT, SCANS, MOVES, UNSETTLED].iter().all(|bound| !bound.why.is_empty()));
    }
}
