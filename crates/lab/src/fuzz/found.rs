//! A difference that the fuzz found, and the case file that it becomes.

use std::fmt::{self, Display, Formatter};

use scenario::oracle::{Difference, differences};
use scenario::{Case, Kernel, Record, Scenario, print_case_file};

/// A scenario on which a kernel and the model do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Indices of the scenarios that were shrunk to this one.
    pub indices: Vec<u64>,
    /// The shrunk scenario; as it was drawn where it did not come again.
    pub scenario: Scenario,
    /// What the kernel gave.
    pub theirs: Record,
    /// What the model gave.
    pub ours: Record,
    /// It was seen when the scenario was played once more.
    pub came_again: bool,
}

impl Found {
    pub(super) fn new(
        index: u64,
        scenario: Scenario,
        theirs: Record,
        ours: Record,
        came_again: bool,
    ) -> Self {
        Self { indices: vec![index], scenario, theirs, ours, came_again }
    }

    /// Where the two do not agree.
    pub fn differences(&self) -> Vec<Difference> {
        differences(&self.scenario, &self.theirs, &self.ours)
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scenario)?;
        for Difference { act, theirs, ours, .. } in self.differences() {
            let text = |given: Option<String>| given.unwrap_or_else(|| "nothing".to_owned());
            write!(f, "\n  {act}: the kernel gives {}, the model {}", text(theirs), text(ours))?;
        }
        if self.came_again { Ok(()) } else { f.write_str("\n  (seen once, not again)") }
    }
}

/// The case file of a difference: what the kernel gave, and, as a comment, what the model did. The
/// lines of the other kernels are empty: they were not asked.
pub fn case_file(found: &Found, seed: u64, kernel: Kernel) -> String {
    let index = found.indices.first().copied().unwrap_or_default();
    let mut results: [String; 3] = Default::default();
    results[kernel as usize] = found.theirs.to_line();
    let case = Case {
        number: format!("FZ-{seed}-{index}"),
        proves: format!("the model agrees with {} on what seed {seed} shows", kernel.name()),
        scenario: found.scenario.clone(),
        results,
    };
    let comment: String = found
        .differences()
        .iter()
        .map(|difference| format!("# kernel {}, model: {difference}\n", kernel.name()))
        .collect();
    comment + &print_case_file(&[case])
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenario::{End, parse_case_file};

    #[test]
    fn the_case_file_of_a_difference_can_be_read_and_says_what_differs() {
        let record = |value: &str| Record { results: vec![(1, value.to_owned())], end: End::Done };
        let scenario = "map a 1; mp 0 {0} {1}".parse().unwrap();
        let found = Found::new(1900, scenario, record("1"), record("0"), true);
        let text = case_file(&found, 7, Kernel::V6_12);
        assert!(text.starts_with("# kernel 6.12, model: mp 0 {0} {1}: 1 and 0\n"), "{text}");
        let cases = parse_case_file(&text).unwrap();
        assert_eq!(cases[0].number, "FZ-7-1900");
        assert_eq!(cases[0].scenario, found.scenario);
        assert_eq!(cases[0].result(Kernel::V6_12), "1");
    }
}
