//! What playing a scenario gave, step by step, and its text form: what an actor writes as it goes.
//!
//! ```text
//! case MP-46
//! 3 1
//! 4 a:1011
//! end
//! ```
//!
//! A line for each step that has a result, with the number of the step, counted from 0; then how it
//! ended: `end`, `dead SIGNAL`, `stuck`, or `failed` with the reason.

use std::fmt::{self, Display, Formatter};

use crate::Seen;

/// How the playing of a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every step was performed.
    Done,
    /// A signal killed one of its processes.
    Dead(i32),
    /// A step did not come to an end.
    Stuck,
    /// The player could not perform a step; why.
    Failed(String),
}

/// What playing a scenario gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Steps with a result: their number, counted from 0, and the result as it is written.
    pub results: Vec<(usize, String)>,
    /// How it ended.
    pub end: End,
}

impl Default for Record {
    fn default() -> Self {
        Self { results: Vec::new(), end: End::Done }
    }
}

impl Record {
    /// The results as a case file has them: in a row, the death of a process as the last one.
    pub fn to_line(&self) -> String {
        let mut words: Vec<String> = self.results.iter().map(|(_, text)| text.clone()).collect();
        match &self.end {
            End::Done => {}
            End::Dead(_) | End::Stuck => words.push(Seen::Dead.to_string()),
            End::Failed(reason) => words.push(format!("FAILED: {reason}")),
        }
        words.join("; ")
    }

    /// The result of a step.
    pub fn result(&self, step: usize) -> Option<&str> {
        let found = self.results.iter().find(|(number, _)| *number == step);
        found.map(|(_, text)| text.as_str())
    }
}

/// A line of a stream of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordLine {
    /// A case begins: its number.
    Case(String),
    /// A step gave a result.
    Result(usize, String),
    /// The case has ended.
    End(End),
}

impl Display for RecordLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Case(number) => write!(f, "case {number}"),
            Self::Result(step, text) => write!(f, "{step} {text}"),
            Self::End(End::Done) => f.write_str("end"),
            Self::End(End::Dead(signal)) => write!(f, "dead {signal}"),
            Self::End(End::Stuck) => f.write_str("stuck"),
            Self::End(End::Failed(reason)) => write!(f, "failed {reason}"),
        }
    }
}

/// A line that belongs to no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of an actor's record: `{0}`")]
pub struct NotARecordLine(pub String);

impl std::str::FromStr for RecordLine {
    type Err = NotARecordLine;

    fn from_str(line: &str) -> Result<Self, NotARecordLine> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let read = match word {
            "case" => Some(Self::Case(rest.to_owned())),
            "end" => Some(Self::End(End::Done)),
            "dead" => rest.parse().ok().map(|signal| Self::End(End::Dead(signal))),
            "stuck" => Some(Self::End(End::Stuck)),
            "failed" => Some(Self::End(End::Failed(rest.to_owned()))),
            _ => word.parse().ok().map(|step| Self::Result(step, rest.to_owned())),
        };
        read.ok_or_else(|| NotARecordLine(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_prints_it_reads_back() {
        for line in [
            RecordLine::Case("MP-01".into()),
            RecordLine::Result(3, "0 [1*4]".into()),
            RecordLine::Result(12, String::new()),
            RecordLine::End(End::Done),
            RecordLine::End(End::Dead(7)),
            RecordLine::End(End::Stuck),
            RecordLine::End(End::Failed("cannot mount ramfs: EPERM".into())),
        ] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn a_line_of_something_else_is_refused() {
        let line = "Segmentation fault";
        assert_eq!(line.parse::<RecordLine>(), Err(NotARecordLine(line.into())));
    }

    #[test]
    fn a_killed_process_is_the_last_result() {
        let record = Record { results: vec![(1, "0".into())], end: End::Dead(7) };
        assert_eq!(record.to_line(), "0; DEAD/TIMEOUT");
        assert_eq!(record.result(1), Some("0"));
        assert_eq!(record.result(0), None);
    }
}
