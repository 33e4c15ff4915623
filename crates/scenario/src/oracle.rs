//! When two players agree: what is compared, result by result, and how.
//!
//! Every result is compared as it is written, but for what [`RULES`] names: each loosening with the
//! function of the kernel and the versions that are its reason, and each tested to be no wider than
//! it says. A result that only one of the two gave, and another end, is always a difference.

use std::fmt::{self, Display, Formatter};

use crate::{End, Record, Scenario, Step};

/// What a result tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Return value or errno of a call that gives nothing else.
    Value,
    /// Return value and status words of move_pages(2).
    StatusWords,
    /// Mode and nodes of get_mempolicy(2).
    Policy,
    /// The node of each page.
    Placement,
    /// Whether pages hold what was stored.
    Contents,
    /// Migration counters of `/proc/vmstat`.
    Counters,
    /// Bits of `/proc/PID/pagemap`, and numbers of pages with a flag.
    PageBits,
    /// PMD-mapped units and compound heads.
    HugeUnits,
    /// A line of `/proc/PID/numa_maps`.
    NumaMaps,
    /// Migration events.
    Events,
    /// Words of other files of the kernel.
    Text,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 11] = [
        Self::Value,
        Self::StatusWords,
        Self::Policy,
        Self::Placement,
        Self::Contents,
        Self::Counters,
        Self::PageBits,
        Self::HugeUnits,
        Self::NumaMaps,
        Self::Events,
        Self::Text,
    ];

    /// The field that the result of a step is.
    pub const fn of(step: &Step) -> Self {
        match step {
            Step::MovePages { .. } => Self::StatusWords,
            Step::GetMempolicy { .. } => Self::Policy,
            Step::Where(_) => Self::Placement,
            Step::Check(..) => Self::Contents,
            Step::Counters => Self::Counters,
            Step::Pagemap(_) | Step::PageFlag(..) => Self::PageBits,
            Step::HugeUnits(_) => Self::HugeUnits,
            Step::NumaMaps(_) => Self::NumaMaps,
            Step::Trace => Self::Events,
            Step::Pools
            | Step::Weight { .. }
            | Step::CgroupEffective { .. }
            | Step::Status(_)
            | Step::SysFile(_)
            | Step::Smaps(..) => Self::Text,
            _ => Self::Value,
        }
    }

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "value and errno",
            Self::StatusWords => "status words",
            Self::Policy => "policy",
            Self::Placement => "placement",
            Self::Contents => "contents",
            Self::Counters => "counters",
            Self::PageBits => "page bits",
            Self::HugeUnits => "huge units",
            Self::NumaMaps => "numa_maps",
            Self::Events => "events",
            Self::Text => "texts",
        }
    }

    /// How results of this field are compared.
    pub fn agreement(self) -> Agreement {
        let rule = RULES.iter().find(|rule| rule.field == self);
        rule.map_or(Agreement::Exact, |rule| rule.agreement)
    }
}

/// How two results are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Letter by letter.
    Exact,
    /// Letter by letter, but for words that begin so.
    Without(&'static str),
}

impl Agreement {
    /// Whether two results agree.
    pub fn holds(self, theirs: &str, ours: &str) -> bool {
        match self {
            Self::Exact => theirs == ours,
            Self::Without(start) => {
                let words = |text| -> Vec<String> {
                    let words = str::split(text, ' ').map(str::to_owned);
                    words.filter(|word| !word.starts_with(start)).collect()
                };
                words(theirs) == words(ours)
            }
        }
    }
}

impl Display for Agreement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Without(start) => write!(f, "exact, without `{start}`"),
        }
    }
}

/// A field that is not compared letter by letter, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The field.
    pub field: Field,
    /// What is let through.
    pub agreement: Agreement,
    /// The function of the kernel, and the versions.
    pub reason: &'static str,
}

/// Every loosening. All fields that are not here are exact.
pub const RULES: [Rule; 1] = [Rule {
    field: Field::NumaMaps,
    agreement: Agreement::Without("active="),
    reason: "`gather_stats` (fs/proc/task_mmu.c; 6.1, 6.12, 7.3) counts pages with PG_active, a bit \
             that is set when a per-CPU batch of `lru_add` is drained: that depends on what else \
             ran on the CPU",
}];

/// Where two players do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of the step, counted from 0; the number of steps, where it is the end that differs.
    pub step: usize,
    /// The step as it is written.
    pub act: String,
    /// What the one gave; none: nothing.
    pub theirs: Option<String>,
    /// What the other gave.
    pub ours: Option<String>,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = |given: &Option<String>| given.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} and {}", self.act, text(&self.theirs), text(&self.ours))
    }
}

/// Every step of a scenario on which two records do not agree, in order.
pub fn differences(scenario: &Scenario, theirs: &Record, ours: &Record) -> Vec<Difference> {
    let mut found = Vec::new();
    for (step, act) in scenario.acts.iter().enumerate() {
        let (one, other) = (theirs.result(step), ours.result(step));
        let agree = match (one, other) {
            (Some(one), Some(other)) => Field::of(&act.step).agreement().holds(one, other),
            (one, other) => one == other,
        };
        if !agree {
            let given = |result: Option<&str>| result.map(str::to_owned);
            let (theirs, ours) = (given(one), given(other));
            found.push(Difference { step, act: act.to_string(), theirs, ours });
        }
    }
    if !same_end(&theirs.end, &ours.end) {
        let text = |end: &End| Some(crate::RecordLine::End(end.clone()).to_string());
        found.push(Difference {
            step: scenario.acts.len(),
            act: "the end".to_owned(),
            theirs: text(&theirs.end),
            ours: text(&ours.end),
        });
    }
    found
}

/// A model has no signal numbers, and a process that is gone is gone.
fn same_end(one: &End, other: &End) -> bool {
    one == other || matches!((one, other), (End::Dead(_), End::Dead(_)))
}

/// Whether a record agrees with the results of a case file, which stand in a row without the
/// numbers of their steps.
pub fn agrees_with_line(scenario: &Scenario, line: &str, record: &Record) -> bool {
    let killed = crate::Seen::Dead.to_string();
    let mut expected: Vec<&str> = line.split("; ").filter(|result| !result.is_empty()).collect();
    let dies = expected.last() == Some(&killed.as_str());
    if dies {
        expected.pop();
    }
    let end_agrees = match record.end {
        End::Done => !dies,
        End::Dead(_) => dies,
        End::Stuck | End::Failed(_) => false,
    };
    end_agrees
        && expected.len() == record.results.len()
        && expected.iter().zip(&record.results).all(|(expected, (step, seen))| {
            let field = scenario.acts.get(*step).map(|act| Field::of(&act.step));
            field.is_some_and(|field| field.agreement().holds(expected, seen))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Scenario {
        text.parse().unwrap()
    }

    fn record(results: &[(usize, &str)], end: End) -> Record {
        let results = results.iter().map(|&(step, text)| (step, text.to_owned())).collect();
        Record { results, end }
    }

    #[test]
    fn active_is_let_through_and_nothing_else_of_a_numa_maps_line() {
        let line = "\"default anon=5 dirty=5 active=0 N0=3 N1=2 kernelpagesize_kB=4\"";
        let agreement = Field::NumaMaps.agreement();
        assert!(agreement.holds(line, &line.replace("active=0 ", "")));
        assert!(agreement.holds(line, &line.replace("active=0 ", "active=3 ")));
        for (from, to) in [
            ("default", "bind:0"),
            ("anon=5", "anon=4"),
            ("dirty=5 ", ""),
            ("N0=3 N1=2", "N0=2 N1=3"),
            ("N0=3 N1=2", "N1=2 N0=3"),
            ("kernelpagesize_kB=4", "kernelpagesize_kB=2048"),
            ("active=0", "inactive=0"),
        ] {
            assert!(!agreement.holds(line, &line.replace(from, to)), "{from} is not {to}");
        }
    }

    #[test]
    fn every_other_field_is_exact() {
        for field in Field::ALL.into_iter().filter(|field| *field != Field::NumaMaps) {
            assert_eq!(field.agreement(), Agreement::Exact, "{}", field.name());
            assert!(!field.agreement().holds("1 active=0", "1"), "{}", field.name());
        }
    }

    #[test]
    fn a_result_that_one_alone_gave_is_a_difference() {
        let scenario = scenario("map a 2; touch a; lock a; where a");
        let theirs = record(&[(2, "ENOMEM"), (3, "a:00")], End::Done);
        let ours = record(&[(3, "a:00")], End::Done);
        let found = differences(&scenario, &theirs, &ours);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "lock a: ENOMEM and nothing");
    }

    #[test]
    fn a_death_is_a_difference_whatever_went_before() {
        let scenario = scenario("map a 1; where a; touch a");
        let theirs = record(&[(1, "a:-")], End::Dead(7));
        let ours = record(&[(1, "a:-")], End::Done);
        assert_eq!(differences(&scenario, &theirs, &ours)[0].step, 3);
        assert!(differences(&scenario, &theirs, &record(&[(1, "a:-")], End::Dead(0))).is_empty());
    }

    #[test]
    fn a_line_of_a_case_file_is_compared_by_the_same_rules() {
        let scenario = scenario("map a 1; mv 0 a 1; nm a");
        let line = "0 [1]; \"default anon=1 active=0 N1=1\"";
        let seen = record(&[(1, "0 [1]"), (2, "\"default anon=1 N1=1\"")], End::Done);
        assert!(agrees_with_line(&scenario, line, &seen));
        assert!(!agrees_with_line(&scenario, "0 [1]", &seen));
        assert!(!agrees_with_line(&scenario, &format!("{line}; DEAD/TIMEOUT"), &seen));
        let dead = Record { end: End::Dead(7), ..seen };
        assert!(agrees_with_line(&scenario, &format!("{line}; DEAD/TIMEOUT"), &dead));
    }
}
