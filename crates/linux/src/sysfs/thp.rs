//! Reads `/sys/kernel/mm/transparent_hugepage`: when the kernel makes huge pages by itself.
//!
//! Source: kernel, Documentation/admin-guide/mm/transhuge.rst.

use std::collections::BTreeMap;

use machine::Bytes;

use crate::{Malformed, ReadError, Root};

const THP: &str = "sys/kernel/mm/transparent_hugepage";

/// When the kernel makes huge pages, in its own words: `always`, `madvise`, `never`, and for a
/// size `inherit` as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thp {
    /// The setting of all sizes that inherit it.
    pub enabled: String,
    /// The setting of each size (Linux 6.8).
    pub sizes: BTreeMap<Bytes, String>,
}

/// Reads a line in which brackets mark the word that holds: `always [madvise] never`.
///
/// # Errors
///
/// When no word is marked.
pub fn parse_choice(text: &str) -> Result<String, Malformed> {
    text.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .map(str::to_owned)
        .ok_or_else(|| Malformed::new(1, "no word in brackets"))
}

/// When the kernel makes huge pages; `None` when it is built without them.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<Option<Thp>, ReadError> {
    let enabled = match root.parse(format!("{THP}/enabled"), parse_choice) {
        Err(ReadError::NotFound { .. }) => return Ok(None),
        result => result?,
    };
    let mut sizes = BTreeMap::new();
    for kib in root.numbers(THP, "hugepages-", "kB")? {
        match root.parse(format!("{THP}/hugepages-{kib}kB/enabled"), parse_choice) {
            // A size that only shared memory can have.
            Err(ReadError::NotFound { .. }) => {}
            choice => drop(sizes.insert(Bytes::new(kib.saturating_mul(1024)), choice?)),
        }
    }
    Ok(Some(Thp { enabled, sizes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_word_in_brackets_holds() {
        assert_eq!(parse_choice("always [madvise] never\n").unwrap(), "madvise");
        assert!(parse_choice("always madvise").is_err());
        assert!(parse_choice("[] ]x[").is_ok_and(|word| word.is_empty()));
    }

    #[test]
    fn each_size_has_its_own_word_where_it_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(read(&root).unwrap(), None);
        let thp = folder.path().join(THP);
        fs::create_dir_all(thp.join("hugepages-64kB")).unwrap();
        fs::create_dir_all(thp.join("hugepages-8kB")).unwrap();
        fs::write(thp.join("enabled"), "[always] madvise never\n").unwrap();
        fs::write(thp.join("hugepages-64kB/enabled"), "always [inherit] madvise never\n").unwrap();
        let read = read(&root).unwrap().unwrap();
        assert_eq!(read.enabled, "always");
        assert_eq!(read.sizes, BTreeMap::from([(Bytes::new(65536), "inherit".to_owned())]));
    }
}
