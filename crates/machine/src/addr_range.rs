//! A range of addresses in a process: half-open, in bytes, written as `/proc/PID/maps` writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::BASE_PAGE_BYTES;
use crate::bytes::Bytes;

/// The addresses `start..end` of a target. Prints as `7f5c8c000000-7f5c8c200000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddrRange {
    start: u64,
    end: u64,
}

impl AddrRange {
    /// `None` when `end` lies before `start`.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// `pages` base pages from `start` on; it ends at the last address when they would not fit.
    pub const fn from_pages(start: u64, pages: u64) -> Self {
        Self { start, end: start.saturating_add(pages.saturating_mul(BASE_PAGE_BYTES)) }
    }

    /// The first address.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The first address behind the range.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Whether no address lies in it.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Its size.
    pub const fn bytes(self) -> Bytes {
        Bytes::new(self.end - self.start)
    }

    /// Whole base pages in it.
    pub const fn pages(self) -> u64 {
        (self.end - self.start) / BASE_PAGE_BYTES
    }

    /// Whether `address` lies in it.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The addresses of both ranges; `None` when they share none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// What is left of the range from `address` on.
    pub fn starting_at(self, address: u64) -> Self {
        Self { start: address.clamp(self.start, self.end), end: self.end }
    }

    /// The smallest range of whole base pages around it.
    pub const fn page_aligned(self) -> Self {
        let mask = BASE_PAGE_BYTES - 1;
        Self { start: self.start & !mask, end: self.end.saturating_add(mask) & !mask }
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start, self.end)
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a range of addresses: write START-END in hexadecimal as in /proc/PID/maps, such as 7f5c8c000000-7f5c8c200000"
)]
pub struct ParseAddrRangeError {
    text: String,
}

impl FromStr for AddrRange {
    type Err = ParseAddrRangeError;

    /// Reads `START-END`, hexadecimal, each with or without `0x`. An empty range is refused.
    fn from_str(text: &str) -> Result<Self, ParseAddrRangeError> {
        let malformed = || ParseAddrRangeError { text: text.to_owned() };
        let address = |digits: &str| {
            let digits = digits.trim();
            let digits = digits.strip_prefix("0x").unwrap_or(digits);
            let all_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            all_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let (start, end) = text.split_once('-').ok_or_else(malformed)?;
        let (start, end) = address(start)
            .zip(address(end))
            .filter(|(start, end)| start < end)
            .ok_or_else(malformed)?;
        Ok(Self { start, end })
    }
}

impl TryFrom<String> for AddrRange {
    type Error = ParseAddrRangeError;

    fn try_from(text: String) -> Result<Self, ParseAddrRangeError> {
        text.parse()
    }
}

impl From<AddrRange> for String {
    fn from(range: AddrRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_read_with_and_without_0x() {
        let range = AddrRange::new(0x7f00_0000, 0x7f00_2000);
        assert_eq!("7f000000-7f002000".parse().ok(), range);
        assert_eq!("0x7f000000-0x7f002000".parse().ok(), range);
    }

    #[test]
    fn a_text_that_is_no_range_is_named_in_the_error() {
        for text in ["zz", "", "1000", "2000-1000", "1000-1000", "10-zz", "-", "+1-2"] {
            let error = text.parse::<AddrRange>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is not")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_a_range_prints_it_reads_back(start in any::<u64>(), length in 1..u64::MAX) {
            let range = AddrRange::new(start, start.saturating_add(length)).unwrap();
            prop_assume!(!range.is_empty());
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<AddrRange>();
        }

        #[test]
        fn a_cut_from_an_address_stays_inside(start in 0..1u64 << 40, pages in 0..1u64 << 20, at in any::<u64>()) {
            let range = AddrRange::from_pages(start, pages);
            let rest = range.starting_at(at);
            prop_assert!(range.start() <= rest.start() && rest.end() == range.end());
        }
    }
}
