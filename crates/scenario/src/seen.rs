//! What a step with a result gave, and how it is written: the one place where the words of the
//! result columns are made, for a model and for a real kernel alike.

use std::fmt::{self, Display, Formatter};

/// Node digit of a page in a `where`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageNode {
    /// The page is on this node.
    On(u16),
    /// Nothing is mapped.
    Absent,
    /// The zero page is mapped.
    Zero,
}

/// What get_mempolicy(2) stored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// `Err`: the errno by name.
    pub errno: Option<String>,
    /// The mode word as text, where one was stored.
    pub mode: Option<String>,
    /// Bytes of the mask that were written, where that was asked.
    pub wrote: Option<u64>,
    /// The nodes of the mask, where one was stored.
    pub nodes: Option<Vec<u16>>,
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A return value.
    Value(i64),
    /// An errno by name.
    Errno(String),
    /// A word or a line as it stands.
    Text(String),
    /// A line in quotes; several are one result, and so is none.
    Quoted(Vec<String>),
    /// A mapping that could not be made.
    NotMapped(String),
    /// move_pages(2): return value or errno, and the accessible status words. `None` is a word
    /// that was not written; negative ones come as errno names.
    Status {
        /// Return value, or errno by name.
        result: Result<i64, String>,
        /// `Ok`: node number; `Err`: errno name.
        words: Vec<Option<Result<i32, String>>>,
    },
    /// get_mempolicy(2).
    Policy(Policy),
    /// Node of each page, for each range under its name.
    Where(Vec<(String, Vec<PageNode>)>),
    /// Flag letters of each page, under the name of the range.
    Flags(String, Vec<String>),
    /// `name=value` pairs.
    Pairs(Vec<(&'static str, String)>),
    /// The process was killed by a signal.
    Dead,
}

/// Ranges up to this length are written digit by digit.
const LONGEST_PLAIN: usize = 64;

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Errno(text) | Self::Text(text) => f.write_str(text),
            Self::Quoted(lines) if lines.is_empty() => f.write_str("none"),
            Self::Quoted(lines) => {
                let lines: Vec<String> = lines.iter().map(|line| format!("\"{line}\"")).collect();
                f.write_str(&lines.join(" "))
            }
            Self::NotMapped(errno) => write!(f, "map!{errno}"),
            Self::Status { result, words } => status(f, result, words),
            Self::Policy(policy) => write!(f, "{policy}"),
            Self::Where(ranges) => {
                let ranges: Vec<String> =
                    ranges.iter().map(|(name, pages)| format!("{name}:{}", nodes(pages))).collect();
                f.write_str(&ranges.join(" "))
            }
            Self::Flags(name, pages) => write!(f, "{name}:{}", runs(pages, true)),
            Self::Pairs(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                f.write_str(&pairs.join(" "))
            }
            Self::Dead => f.write_str("DEAD/TIMEOUT"),
        }
    }
}

fn status(
    f: &mut Formatter<'_>,
    result: &Result<i64, String>,
    words: &[Option<Result<i32, String>>],
) -> fmt::Result {
    match result {
        Ok(value) => write!(f, "{value}")?,
        Err(errno) => f.write_str(errno)?,
    }
    if words.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| match word {
            None => "~".to_owned(),
            Some(Ok(node)) => node.to_string(),
            Some(Err(errno)) => format!("-{errno}"),
        })
        .collect();
    write!(f, " [{}]", runs(&words, false))
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.errno.as_deref().unwrap_or("0"))?;
        if let Some(mode) = &self.mode {
            write!(f, " {mode}")?;
        }
        if let Some(bytes) = self.wrote {
            write!(f, " wrote={bytes}")?;
        }
        if let Some(nodes) = &self.nodes {
            let nodes: Vec<String> = nodes.iter().map(u16::to_string).collect();
            write!(f, " {{{}}}", nodes.join(","))?;
        }
        Ok(())
    }
}

fn nodes(pages: &[PageNode]) -> String {
    let digits: Vec<String> = pages
        .iter()
        .map(|page| match page {
            PageNode::On(node) => node.to_string(),
            PageNode::Absent => "-".to_owned(),
            PageNode::Zero => "z".to_owned(),
        })
        .collect();
    if digits.len() <= LONGEST_PLAIN { digits.concat() } else { runs(&digits, true) }
}

/// `1 1 1 2` as `1*3 2`; with `always`, a run of one has its `*1` too.
fn runs(words: &[String], always: bool) -> String {
    let mut out = Vec::new();
    for run in words.chunk_by(|a, b| a == b) {
        if run.len() > 1 || always {
            out.push(format!("{}*{}", run[0], run.len()));
        } else {
            out.push(run[0].clone());
        }
    }
    out.join(" ")
}
