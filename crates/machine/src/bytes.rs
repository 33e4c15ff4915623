//! Sizes: bytes as a type, `512MiB` as text.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::BASE_PAGE_BYTES;

/// A size in bytes. In JSON a plain integer; for people `1.5 GiB`; read from `512MiB`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

/// Units from large to small, with the bytes of each.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size of `pages` base pages.
    pub const fn from_pages(pages: u64) -> Self {
        Self(pages * BASE_PAGE_BYTES)
    }

    /// Bytes as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whole base pages in this size; a rest is not counted.
    pub const fn pages(self) -> u64 {
        self.0 / BASE_PAGE_BYTES
    }

    /// The difference, or zero when `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The exact text that [`Bytes::from_str`] reads back: the largest unit that divides the size.
    pub fn exact(self) -> String {
        let (unit, bytes) = UNITS
            .into_iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(("B", 1));
        format!("{}{unit}", self.0 / bytes)
    }
}

impl fmt::Display for Bytes {
    /// Three or four digits and a unit: `0 B`, `4.0 KiB`, `312 MiB`, `1.5 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            UNITS.into_iter().find(|(_, bytes)| self.0 >= *bytes).unwrap_or(("B", 1));
        let text = if bytes == 1 {
            format!("{} B", self.0)
        } else {
            let tenths = u128::from(self.0) * 10 / u128::from(bytes);
            if tenths < 1000 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", tenths / 10)
            }
        };
        f.pad(&text)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size: write a whole number with a unit, such as 512MiB or 4GiB")]
pub struct ParseBytesError {
    text: String,
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// Reads `4096`, `4096B`, `64K`, `512MiB`, `1.5GiB`, `500 MiB`. Units are powers of 1024, with or
    /// without `iB`, in any case.
    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let malformed = || ParseBytesError { text: text.to_owned() };
        let trimmed = text.trim();
        let split = trimmed
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" | "kb" => 1 << 10,
            "m" | "mib" | "mb" => 1 << 20,
            "g" | "gib" | "gb" => 1 << 30,
            "t" | "tib" | "tb" => 1 << 40,
            _ => return Err(malformed()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 6 {
            return Err(malformed());
        }
        let whole: u64 = whole.parse().map_err(|_| malformed())?;
        let mut bytes = u128::from(whole) * u128::from(unit);
        if !fraction.is_empty() {
            let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| malformed())?);
            let fraction: u64 = fraction.parse().map_err(|_| malformed())?;
            bytes += u128::from(fraction) * u128::from(unit) / scale;
        }
        u64::try_from(bytes).map(Self).map_err(|_| malformed())
    }
}

impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Bytes {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_is_read_with_and_without_its_unit() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 65536),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2 TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes::new(bytes)), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_size_is_named_in_the_error() {
        for text in ["", "x", "12q", "-1", "1..2GiB", ".5GiB", "99999999999TiB"] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_size_prints_short_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (4096, "4.0 KiB"),
            (312 << 20, "312 MiB"),
            (3 << 29, "1.5 GiB"),
            (1023, "1023 B"),
        ] {
            assert_eq!(Bytes::new(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_a_size_prints_exactly_it_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(Bytes::new(bytes).exact().parse(), Ok(Bytes::new(bytes)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<Bytes>();
        }
    }
}
