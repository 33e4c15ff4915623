//! Reads `/proc/vmstat`: counters of the whole machine, such as `pgmigrate_success`.
//!
//! Which counters there are depends on the kernel's version and build; ask by name.
//!
//! Source: kernel, mm/vmstat.c.

use std::collections::BTreeMap;

use procfs::{FromBufRead, VmStat};

use crate::{Malformed, ReadError, Root};

/// Reads the text of vmstat.
///
/// # Errors
///
/// When a line is not a name and a number.
pub fn parse(text: &str) -> Result<BTreeMap<String, u64>, Malformed> {
    let VmStat(counters) = VmStat::from_buf_read(text.as_bytes())
        .map_err(|_| Malformed::new(1, "not a name and a number on each line"))?;
    Ok(counters
        .into_iter()
        .map(|(name, count)| (name, u64::try_from(count).unwrap_or_default()))
        .collect())
}

/// The counters of the machine.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<BTreeMap<String, u64>, ReadError> {
    root.parse("proc/vmstat", parse)
}

/// A few counters of the machine, in the order of `names`; `None` where the kernel has none of that
/// name. It makes no map of all, which takes longer: on an emulated CPU a millisecond.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_some<const N: usize>(
    root: &Root,
    names: [&str; N],
) -> Result<[Option<u64>; N], ReadError> {
    root.parse("proc/vmstat", |text| pick(text, names))
}

fn pick<const N: usize>(text: &str, names: [&str; N]) -> Result<[Option<u64>; N], Malformed> {
    let mut counts = [None; N];
    for (line, text) in (1..).zip(text.lines()) {
        let Some((name, count)) = text.split_once(' ') else { continue };
        if let Some(at) = names.iter().position(|wanted| *wanted == name) {
            let count = count.parse().map_err(|_| Malformed::new(line, "not a number"))?;
            counts[at] = Some(count);
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_found_by_name() {
        let counters = parse("nr_free_pages 12\npgmigrate_success 7\n").unwrap();
        assert_eq!(counters["pgmigrate_success"], 7);
        assert!(read(&Root::default()).unwrap()["nr_free_pages"] > 0);
    }

    #[test]
    fn a_few_counters_are_those_of_the_map_and_what_is_not_there_is_none() {
        let text = "nr_free_pages 12\npgmigrate_success 7\n";
        let names = ["pgmigrate_success", "pgmigrate", "nr_free_pages"];
        assert_eq!(pick(text, names).unwrap(), [Some(7), None, Some(12)]);
        let [faults] = read_some(&Root::default(), ["pgfault"]).unwrap();
        assert!(faults.unwrap() <= read(&Root::default()).unwrap()["pgfault"]);
    }

    #[test]
    fn a_line_without_a_number_is_refused() {
        assert!(parse("nr_free_pages many\n").is_err());
        assert!(pick("nr_free_pages many\n", ["nr_free_pages"]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,100}") {
            let _ = parse(&text);
        }
    }
}
