//! docs/conformance.md: what each kernel gave in each case, what the model gives, and why kernels
//! differ.
//!
//! It is made of the case files, which hold what real kernels gave, of the model, and of
//! `tests/scenarios/differences`. The lab plays the same cases in guests and holds the files to
//! what it sees (`lab::conformance`), so a page that is up to date tells what kernels do.

use std::fmt::Write as _;

use model::Machine;
use scenario::oracle::{Field, RULES, agrees_with_line};
use scenario::{Case, Kernel, Record};

use crate::{Player, case_machine, kernel_version};

/// A case with what the model gave on each kernel, in the order of [`Kernel::ALL`].
#[derive(Clone, Debug)]
pub struct Played {
    /// The case.
    pub case: Case,
    /// What the model gave.
    pub ours: [Record; 3],
}

impl Played {
    /// Whether the model agrees with the case file on a kernel.
    pub fn agrees(&self, kernel: Kernel) -> bool {
        let ours = &self.ours[kernel as usize];
        agrees_with_line(&self.case.scenario, self.case.result(kernel), ours)
    }
}

/// Plays cases on the model of each kernel.
pub fn play_on_model(cases: Vec<Case>) -> Vec<Played> {
    let machines = Kernel::ALL.map(|kernel| case_machine(kernel_version(kernel)));
    let play =
        |machine: &Machine, case: &Case| Player::new(machine.clone()).play(&case.scenario, |_| {});
    cases
        .into_iter()
        .map(|case| Played { ours: machines.each_ref().map(|machine| play(machine, &case)), case })
        .collect()
}

/// Why kernels differ in some cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The kernels that stand apart.
    pub versions: String,
    /// What they do.
    pub text: String,
    /// The cases that show it.
    pub cases: Vec<String>,
}

/// All causes: the file `tests/scenarios/differences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Causes(pub Vec<Cause>);

/// Causes and cases that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// A line of another form.
    #[error("line {line} of the differences is not `VERSIONS | cause | cases`")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A case with different results and no cause, or more than one.
    #[error("the kernels differ in case {number}, which has {causes} causes and should have one")]
    Causes {
        /// The case.
        number: String,
        /// How many lines name it.
        causes: usize,
    },
    /// A cause is given for what is not so.
    #[error("the differences name {number}, in which the kernels do not differ")]
    NoDifference {
        /// The case.
        number: String,
    },
}

impl std::str::FromStr for Causes {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let lines =
            text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let cause = |(index, line): (usize, &str)| {
            let fields: Vec<&str> = line.split(" | ").collect();
            let [versions, text, cases] = fields[..] else {
                return Err(PageError::Line { line: index + 1 });
            };
            Ok(Cause {
                versions: versions.to_owned(),
                text: text.to_owned(),
                cases: cases.split_whitespace().map(str::to_owned).collect(),
            })
        };
        lines.map(cause).collect::<Result<_, _>>().map(Self)
    }
}

/// Which random scenarios were played: a section of the page, kept beside the cases.
const FUZZED: &str = include_str!("../../../tests/scenarios/fuzzed.md");

/// The page.
///
/// # Errors
///
/// [`PageError`]: a difference between kernels that has no cause, or a cause without one.
pub fn page(played: &[Played], causes: &Causes) -> Result<String, PageError> {
    check_causes(played, causes)?;
    let mut out = String::new();
    head(&mut out, played);
    differences(&mut out, played, causes);
    out.push_str(FUZZED);
    rows(&mut out, played);
    Ok(out)
}

fn check_causes(played: &[Played], causes: &Causes) -> Result<(), PageError> {
    let named = |number: &str| {
        causes.0.iter().flat_map(|cause| &cause.cases).filter(|named| *named == number).count()
    };
    for Played { case, .. } in played {
        let (number, causes) = (case.number.clone(), named(&case.number));
        match kernels_differ(case) {
            true if causes != 1 => return Err(PageError::Causes { number, causes }),
            false if causes > 0 => return Err(PageError::NoDifference { number }),
            _ => {}
        }
    }
    Ok(())
}

/// Whether kernels gave different results, by the rules of the oracle.
fn kernels_differ(case: &Case) -> bool {
    let first = case.result(Kernel::V6_1);
    Kernel::ALL.into_iter().any(|kernel| !alike(first, case.result(kernel)))
}

/// Lines of results, by the loosest rule: only what no rule compares may differ.
fn alike(one: &str, other: &str) -> bool {
    Field::NumaMaps.agreement().holds(one, other)
}

fn head(out: &mut String, played: &[Played]) {
    let same = played.iter().filter(|played| Kernel::ALL.into_iter().all(|k| played.agrees(k)));
    let differing = played.iter().filter(|played| kernels_differ(&played.case)).count();
    let _ = write!(
        out,
        "# Conformance\n\n\
         {} cases, played on three kernels of Debian (6.1, 6.12 and 7.3) and on the model of each. The \
         model gives what the kernel gave in {}. In {differing} the kernels differ among themselves.\n\n\
         This page is written by `pagetide lab conformance --write docs/conformance.md`, and a test \
         fails when it is stale. `./test` plays every case on a real 6.12 and holds it to its row; \
         `./test --all` on 6.1 and the newest kernel too. [scenarios.md](scenarios.md) has the \
         notation, and the steps of each case are in `tests/scenarios/`.\n\n\
         ## How results are compared\n\n\
         A case that fills a node and comes out otherwise is played up to three times more, and counts only if it never comes out so: \
         now and then a node that was full has room again by the next step, which we put down to kswapd and have not proved \
         (PL-51 on 6.12, in two of four runs of all cases). All else is compared\n\
         letter by letter, field by field, but for:\n\n\
         | field | compared | reason |\n| --- | --- | --- |\n",
        played.len(),
        same.count(),
    );
    for rule in RULES {
        let _ = writeln!(out, "| {} | {} | {} |", rule.field.name(), rule.agreement, rule.reason);
    }
}

fn differences(out: &mut String, played: &[Played], causes: &Causes) {
    out.push_str(
        "\n## Where the kernels differ\n\n\
         | kernels | what they do | for example | 6.1 | 6.12 | 7.3 | cases |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for cause in &causes.0 {
        let example = cause.cases.iter().find_map(|number| {
            played.iter().find(|played| &played.case.number == number).map(|played| &played.case)
        });
        let Some(example) = example else { continue };
        let [first, second, third] = columns(example);
        let _ = writeln!(
            out,
            "| {} | {} | `{}` | {first} | {second} | {third} | {} |",
            cause.versions,
            cause.text,
            cell(&example.scenario.to_string()),
            cause.cases.join(" "),
        );
    }
}

fn rows(out: &mut String, played: &[Played]) {
    out.push_str(
        "\n## The cases\n\n`=`: as in the column to its left; for ours: as the kernels.\n\n\
         | case | proves | 6.1 | 6.12 | 7.3 | ours | verdict |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for played in played {
        let [first, second, third] = columns(&played.case);
        let apart = Kernel::ALL.into_iter().filter(|&kernel| !played.agrees(kernel));
        let apart: Vec<String> = apart
            .map(|kernel| {
                let ours = played.ours[kernel as usize].to_line();
                format!("{}: `{}`", kernel.name(), cell(&ours))
            })
            .collect();
        let (ours, verdict) = match apart.is_empty() {
            true => ("=".to_owned(), "same"),
            false => (apart.join("; "), "differs"),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {first} | {second} | {third} | {ours} | {verdict} |",
            played.case.number,
            cell(&played.case.proves),
        );
    }
}

/// What the kernels gave, for a row of a table.
fn columns(case: &Case) -> [String; 3] {
    let mut before: Option<&str> = None;
    Kernel::ALL.map(|kernel| {
        let result = case.result(kernel);
        let same = before.is_some_and(|before| alike(before, result));
        before = Some(result);
        match (same, result) {
            (true, _) => "=".to_owned(),
            (false, "") => "nothing".to_owned(),
            (false, result) => format!("`{}`", cell(result)),
        }
    })
}

/// Text that may stand in a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenario::parse_case_file;

    const CASES: &str = "\
MP-01 all move
  steps map a 2; fill a 0; mp 0 {0} {1}; where a
  6.1   0; a:11
  6.12  0; a:11
  7.3   4; a:11

MP-02 nothing moves
  steps map a 2; fill a 0; mp 0 {1} {2}; where a
  6.1   0; a:00
  6.12  0; a:00
  7.3   1; a:00
";

    fn played() -> Vec<Played> {
        play_on_model(parse_case_file(CASES).unwrap())
    }

    #[test]
    fn a_row_has_the_number_first_and_what_differs_is_told() {
        let causes = "7.3 | vvar | MP-01 MP-02".parse().unwrap();
        let page = page(&played(), &causes).unwrap();
        assert!(page.contains("\n| MP-01 | all move | `0; a:11` | = | `4; a:11` | = | same |\n"));
        let differs =
            "\n| MP-02 | nothing moves | `0; a:00` | = | `1; a:00` | 7.3: `0; a:00` | differs |\n";
        assert!(page.contains(differs), "{page}");
        assert!(page.contains("gave in 1. In 2 the kernels differ"), "{page}");
    }

    #[test]
    fn a_difference_without_a_cause_is_refused() {
        let causes = "7.3 | vvar | MP-01".parse().unwrap();
        let error = page(&played(), &causes).unwrap_err();
        assert_eq!(error, PageError::Causes { number: "MP-02".into(), causes: 0 });
    }

    #[test]
    fn a_line_without_three_fields_is_refused() {
        assert_eq!("# x\n7.3 | vvar".parse::<Causes>(), Err(PageError::Line { line: 2 }));
    }
}
