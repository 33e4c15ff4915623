//! Case files: conformance cases with the results that real kernels gave.
//!
//! A file is blocks with an empty line between them; lines that start with `#` are comments:
//!
//! ```text
//! MP-01 moves every page of the caller from one node to another
//!   steps map a 8; fill a 0; mp 0 {0} {1}; where a
//!   6.1   0; a:11111111
//!   6.12  0; a:11111111
//!   7.3   4; a:11111111
//! ```

use crate::{ParseError, Scenario};

/// A kernel that the cases were run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Debian's 6.1.
    V6_1,
    /// Debian's 6.12.
    V6_12,
    /// Debian's 7.3.
    V7_3,
}

impl Kernel {
    /// Every kernel, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_3];

    /// The version as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }
}

/// A scenario with a number and results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its number, as `MP-01`.
    pub number: String,
    /// What it proves.
    pub proves: String,
    /// What is done.
    pub scenario: Scenario,
    /// What each kernel gave, in the order of [`Kernel::ALL`].
    pub results: [String; 3],
}

impl Case {
    /// What `kernel` gave.
    pub fn result(&self, kernel: Kernel) -> &str {
        &self.results[kernel as usize]
    }
}

/// A case file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaseFileError {
    /// A line of another form than the four of a block.
    #[error("line {line} of the case file: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A step of a case.
    #[error("case {number}: {problem}")]
    Step {
        /// The number of the case.
        number: String,
        /// The step.
        problem: ParseError,
    },
}

/// Reads a case file.
///
/// # Errors
///
/// The first line or step that cannot be read.
pub fn parse_case_file(text: &str) -> Result<Vec<Case>, CaseFileError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .peekable();
    let mut cases = Vec::new();
    let mut last = 0;
    while let Some((line, head)) = lines.next() {
        let (number, proves) = head.split_once(' ').unwrap_or((head, ""));
        if head.starts_with(' ') || !number.contains('-') {
            return Err(CaseFileError::Line { line, problem: "a case number belongs here".into() });
        }
        let mut field = |key: &str| {
            let (line, text) = lines.next().unwrap_or((line, ""));
            last = line;
            text.trim_start()
                .strip_prefix(key)
                .filter(|rest| rest.is_empty() || rest.starts_with(' '))
                .map(|rest| rest.trim().to_owned())
                .ok_or_else(|| CaseFileError::Line {
                    line,
                    problem: format!("`{key}` of case {number} belongs here"),
                })
        };
        let steps = field("steps")?;
        let results = [field("6.1")?, field("6.12")?, field("7.3")?];
        let scenario = steps
            .parse()
            .map_err(|problem| CaseFileError::Step { number: number.to_owned(), problem })?;
        cases.push(Case {
            number: number.to_owned(),
            proves: proves.to_owned(),
            scenario,
            results,
        });
    }
    Ok(cases)
}

/// Writes cases in the form that [`parse_case_file`] reads.
pub fn print_case_file(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        if !out.is_empty() {
            out.push('\n');
        }
        let Case { number, proves, scenario, .. } = case;
        out.push_str(&format!("{number} {proves}\n  steps {scenario}\n"));
        for kernel in Kernel::ALL {
            out.push_str(&format!("  {:<5} {}\n", kernel.name(), case.result(kernel)));
        }
    }
    out
}
