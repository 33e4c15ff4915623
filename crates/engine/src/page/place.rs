//! Where in a process: an address, or a mapping by name and an offset into it.
//!
//! ```text
//! 7fea29000000      0x7fea29000000      [heap]+0x2000      libc.so.6+1000
//! ```
//!
//! Numbers are hexadecimal, as in `/proc/PID/maps`. A name is that of a mapping or the last part of its
//! path; the offset counts from the start of the first mapping that has it.

use std::str::FromStr;

use linux::proc::maps::Mapping;
use machine::printable;

use super::ExplainError;

/// Where in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(u64),
    /// So far into the first mapping of this name.
    In {
        /// A path, its last part, or a name such as `[heap]`.
        mapping: String,
        /// Bytes from its start.
        offset: u64,
    },
}

/// Why a text names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no address: give it in hexadecimal, as /proc/PID/maps has it, or as MAPPING+OFFSET"
)]
pub struct PlaceError {
    /// The text.
    pub text: String,
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = match text.rsplit_once('+') {
            Some((mapping, offset)) if !mapping.is_empty() => {
                hex(offset).map(|offset| Self::In { mapping: mapping.to_owned(), offset })
            }
            _ => hex(text).map(Self::Address),
        };
        place.ok_or_else(|| PlaceError { text: text.to_owned() })
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Place {
    /// The address in a process with these mappings.
    pub(super) fn resolve(&self, pid: u32, maps: &[Mapping]) -> Result<u64, ExplainError> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::In { mapping: name, offset } => {
                let is_called = |map: &&Mapping| {
                    map.name == *name || map.name.rsplit('/').next() == Some(name.as_str())
                };
                let map = maps
                    .iter()
                    .find(is_called)
                    .ok_or_else(|| ExplainError::NoMapping { pid, name: name.clone() })?;
                Ok(map.range.start().saturating_add(*offset))
            }
        }
    }
}

/// The mapping that holds `address`.
pub(super) fn mapping_at(
    pid: u32,
    maps: &[Mapping],
    address: u64,
) -> Result<&Mapping, ExplainError> {
    maps.iter().find(|map| map.range.contains(address)).ok_or_else(|| {
        let below = maps.iter().rev().find(|map| map.range.end() <= address);
        let above = maps.iter().find(|map| map.range.start() > address);
        let show = |map: &Mapping| match map.name.as_str() {
            "" => map.range.to_string(),
            name => format!("{} ({})", map.range, printable(name)),
        };
        let nearest = match (below.map(show), above.map(show)) {
            (Some(below), Some(above)) => format!("the nearest mappings are {below} and {above}"),
            (Some(only), None) | (None, Some(only)) => format!("the nearest mapping is {only}"),
            (None, None) => "it has no mappings".to_owned(),
        };
        ExplainError::NotMapped { pid, address, nearest }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::proc::maps;
    use proptest::prelude::*;

    const MAPS: &str = "\
55e000000000-55e000001000 r-xp 00000000 fe:00 7      /usr/bin/my c+1
55e000002000-55e000004000 rw-p 00000000 00:00 0      [heap]
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
";

    fn resolve(text: &str) -> Result<u64, ExplainError> {
        text.parse::<Place>().unwrap().resolve(7, &maps::parse(MAPS).unwrap())
    }

    #[test]
    fn an_address_is_hexadecimal_with_or_without_its_prefix() {
        assert_eq!("0x7f00".parse(), Ok(Place::Address(0x7f00)));
        assert_eq!("7F00".parse(), Ok(Place::Address(0x7f00)));
        for wrong in ["", "0x", "7g", "+", "+10", "-1", "[heap]", "[heap]+", "[heap]+x", "0x+1+-2"]
        {
            let error = wrong.parse::<Place>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{wrong}` is no address")));
        }
        assert!("10000000000000000".parse::<Place>().is_err(), "more than 64 bits");
    }

    #[test]
    fn a_mapping_is_named_whole_or_by_the_last_part_of_its_path() {
        assert_eq!(resolve("[heap]+0x10").unwrap(), 0x55e000002010);
        assert_eq!(resolve("my c+1+20").unwrap(), 0x55e000000020);
        assert_eq!(resolve("/usr/bin/my c+1+0").unwrap(), 0x55e000000000);
        assert!(matches!(resolve("lib+0"), Err(ExplainError::NoMapping { .. })));
    }

    #[test]
    fn an_address_in_no_mapping_is_told_with_its_neighbours() {
        let maps = maps::parse(MAPS).unwrap();
        let error = mapping_at(7, &maps, 0x55e000001000).unwrap_err().to_string();
        assert_eq!(
            error,
            "process 7 maps nothing at 0x55e000001000: the nearest mappings are \
             55e000000000-55e000001000 (/usr/bin/my c+1) and 55e000002000-55e000004000 ([heap])"
        );
        assert!(mapping_at(7, &maps, 0x55e000003fff).is_ok());
        assert!(mapping_at(7, &[], 0).unwrap_err().to_string().ends_with("it has no mappings"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-fx+\\[\\]/ ]{0,24}") {
            let _ = text.parse::<Place>();
        }

        #[test]
        fn an_address_that_is_printed_is_read_back(address: u64) {
            prop_assert_eq!(format!("{address:#x}").parse(), Ok(Place::Address(address)));
        }
    }
}
