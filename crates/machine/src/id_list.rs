//! The list syntax of the kernel's masks, `0-2,5`: read and written for node and CPU sets alike.
//!
//! This is the plain form that sysfs and `/proc/PID/status` use (kernel, lib/bitmap-str.c). What
//! numactl adds for its users (`all`, `!0`, `+0`) needs to know the machine: see
//! [`crate::node_string`].

use std::fmt;

/// Why a text is not a list of numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseListError {
    /// An item that is neither `N` nor `A-B`.
    #[error("`{item}` is not a number or a range such as 0-3")]
    Item {
        /// The item as written.
        item: String,
    },
    /// A range whose end lies before its start.
    #[error("range `{item}` ends before it starts")]
    Backwards {
        /// The item as written.
        item: String,
    },
    /// A number that the set cannot hold.
    #[error("{number} is out of range: numbers end at {last}")]
    OutOfRange {
        /// The number as written.
        number: u64,
        /// The highest number allowed.
        last: u32,
    },
}

/// Calls `each` with every number of the list, in the order written. An empty text is the empty
/// list; white space around the list and its items is ignored.
pub(crate) fn parse(
    text: &str,
    limit: u32,
    mut each: impl FnMut(u32),
) -> Result<(), ParseListError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    for item in text.split(',') {
        let item = item.trim();
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (number(first, item, limit)?, number(last, item, limit)?),
            None => {
                let only = number(item, item, limit)?;
                (only, only)
            }
        };
        if last < first {
            return Err(ParseListError::Backwards { item: item.to_owned() });
        }
        (first..=last).for_each(&mut each);
    }
    Ok(())
}

fn number(digits: &str, item: &str, limit: u32) -> Result<u32, ParseListError> {
    let malformed = || ParseListError::Item { item: item.to_owned() };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let number: u64 = digits.parse().map_err(|_| malformed())?;
    match u32::try_from(number) {
        Ok(small) if small < limit => Ok(small),
        _ => Err(ParseListError::OutOfRange { number, last: limit - 1 }),
    }
}

/// Writes ascending numbers as the kernel does: `0-2,5`; nothing for an empty set.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, numbers: impl Iterator<Item = u32>) -> fmt::Result {
    let mut numbers = numbers.peekable();
    let mut separator = "";
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if_eq(&(last + 1)) {
            last = next;
        }
        if first == last {
            write!(f, "{separator}{first}")?;
        } else {
            write!(f, "{separator}{first}-{last}")?;
        }
        separator = ",";
    }
    Ok(())
}
