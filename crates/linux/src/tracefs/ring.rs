//! Reads pages of a trace ring buffer, as `per_cpu/cpuN/trace_pipe_raw` gives them.
//!
//! A page is a time stamp, the count of bytes in use (`commit`), and records one after the other.
//! A record begins with a word of 5 bits of kind and 27 bits of time since the record before it:
//!
//! | kind | record |
//! | --- | --- |
//! | 0 | an event; the next word is the size of that word and the event together |
//! | 1 to 28 | an event of that many words |
//! | 29 | padding: of no time, it ends the page; else the next word is its size |
//! | 30 | a longer time since the record before: the next word counts 2^27 ns |
//! | 31 | the time itself, but for its upper 5 bits, which are those of the page's |
//!
//! `commit` has two flags: events before this page were lost; and their count lies behind the last
//! record. The kernel says nothing of a count that had no room there.
//!
//! Source: kernel, Documentation/trace/ring-buffer-map.rst, kernel/trace/ring_buffer.c
//! (`ring_buffer_read_page`), include/linux/ring_buffer.h.

use std::fmt;

use super::format::parse_fields;
use crate::Malformed;

const EVENTS_LOST: u64 = 1 << 31;
const LOST_COUNT_STORED: u64 = 1 << 30;
/// Bits of `commit` that count bytes: as libtraceevent reads it.
const COMMIT_MASK: u64 = (1 << 27) - 1;
/// Bits of a time stamp that a record of kind 31 can hold.
const STAMP_BITS: u32 = 59;

/// Where the parts of a page lie, as `events/header_page` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    commit_offset: usize,
    data_offset: usize,
    /// Bytes of a whole page.
    pub page_bytes: usize,
}

impl PageLayout {
    /// Reads the text of `header_page`.
    ///
    /// # Errors
    ///
    /// When a field is missing, or not as wide as it is on 64-bit kernels.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fields = parse_fields(text)?;
        let field = |name: &str, bytes: Option<usize>| {
            let found = fields.iter().find(|field| field.name == name);
            found
                .filter(|field| bytes.is_none_or(|bytes| field.bytes == bytes))
                .ok_or_else(|| Malformed::new(1, format!("no field `{name}` as we know it")))
        };
        field("timestamp", Some(8))?;
        let commit = field("commit", Some(8))?;
        let data = field("data", None)?;
        let page_bytes = data.offset.checked_add(data.bytes);
        let page_bytes = page_bytes.filter(|&bytes| bytes <= 1 << 30);
        Ok(Self {
            commit_offset: commit.offset,
            data_offset: data.offset,
            page_bytes: page_bytes.ok_or_else(|| Malformed::new(1, "a page of no known size"))?,
        })
    }
}

/// A page, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Events that were overwritten before anybody read them, between the page before and this one.
    pub lost: Option<Lost>,
    /// Not later than its first event.
    pub time_ns: u64,
    records: &'a [u8],
}

/// How many events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// So many.
    Events(u64),
    /// The kernel does not say how many.
    Uncounted,
}

/// An event, still as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, by the clock of the instance.
    pub time_ns: u64,
    /// The event; a [`Format`](super::format::Format) reads it.
    pub event: &'a [u8],
}

/// A page that does not hold what a page holds. Worth a bug report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPage {
    /// Bytes from the start of the records.
    pub offset: usize,
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page of the trace buffer makes no sense {} bytes from its start", self.offset)
    }
}

impl std::error::Error for BadPage {}

impl<'a> Page<'a> {
    /// Takes a page apart. Its records are read by [`Page::records`].
    ///
    /// # Errors
    ///
    /// When it is shorter than it says.
    pub fn parse(layout: &PageLayout, page: &'a [u8]) -> Result<Self, BadPage> {
        let bad = BadPage { offset: 0 };
        let word = |offset: usize| word64(page, offset).ok_or(bad);
        let (time_ns, commit) = (word(0)?, word(layout.commit_offset)?);
        let used = usize::try_from(commit & COMMIT_MASK).map_err(|_| bad)?;
        let data = page.get(layout.data_offset..).ok_or(bad)?;
        let records = data.get(..used).ok_or(bad)?;
        let lost = (commit & EVENTS_LOST != 0).then(|| {
            let count = (commit & LOST_COUNT_STORED != 0).then(|| word64(data, used)).flatten();
            count.map_or(Lost::Uncounted, Lost::Events)
        });
        Ok(Self { lost, time_ns, records })
    }

    /// The events of the page, in the order of time.
    pub fn records(&self) -> Records<'a> {
        Records { page_ns: self.time_ns, time_ns: self.time_ns, bytes: self.records, offset: 0 }
    }
}

/// Iterates over the events of a page; ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    page_ns: u64,
    time_ns: u64,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadPage>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.bytes.len() {
            match self.step() {
                Some(Step::Event(record)) => return Some(Ok(record)),
                Some(Step::Nothing) => {}
                Some(Step::End) => self.offset = self.bytes.len(),
                None => {
                    let bad = BadPage { offset: self.offset };
                    self.offset = self.bytes.len();
                    return Some(Err(bad));
                }
            }
        }
        None
    }
}

enum Step<'a> {
    Event(Record<'a>),
    Nothing,
    End,
}

impl<'a> Records<'a> {
    /// Reads one record and goes past it; `None` when it does not fit in the page.
    fn step(&mut self) -> Option<Step<'a>> {
        let bytes = self.bytes;
        let header = word32(bytes, self.offset)?;
        let (kind, delta) = (header & 31, u64::from(header >> 5));
        let body = self.offset + 4;
        let next_word = || word32(bytes, body);
        let (step, end) = match kind {
            29 if delta == 0 => (Step::End, bytes.len()),
            29 => (Step::Nothing, body.checked_add(usize::try_from(next_word()?).ok()?)?),
            30 | 31 => {
                let long = delta + (u64::from(next_word()?) << 27);
                self.time_ns =
                    if kind == 30 { self.time_ns.wrapping_add(long) } else { self.stamp(long) };
                self.offset = body + 4;
                return Some(Step::Nothing);
            }
            _ => {
                let (start, bytes_after) = match kind {
                    0 => (body + 4, usize::try_from(next_word()?).ok()?),
                    words => (body, usize::try_from(words).ok()? * 4),
                };
                let end = body.checked_add(bytes_after)?;
                let time_ns = self.time_ns.wrapping_add(delta);
                (Step::Event(Record { time_ns, event: bytes.get(start..end)? }), end)
            }
        };
        // A record of no size would be read for ever.
        if end <= body && kind != 29 || end > bytes.len() {
            return None;
        }
        self.time_ns = self.time_ns.wrapping_add(delta);
        self.offset = end;
        Some(step)
    }

    /// Gives a time of 59 bits its upper ones.
    fn stamp(&self, low: u64) -> u64 {
        let high = self.page_ns >> STAMP_BITS << STAMP_BITS;
        let stamp = high | low;
        if stamp < self.page_ns { stamp.wrapping_add(1 << STAMP_BITS) } else { stamp }
    }
}

fn word32(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn word64(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
