//! Filters: which pages of a target a plan may touch.

use machine::{AddrRange, Bytes};
use serde::{Deserialize, Serialize};

use crate::placement::{Kind, Mapping, PageSize, Run};

/// A page size as a user names it: `4k`, `thp`, `hugetlb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeClass {
    /// Base pages.
    Base,
    /// Transparent huge pages.
    Thp,
    /// Pages of a hugetlb pool, of any size.
    Hugetlb,
}

impl SizeClass {
    fn holds(self, size: PageSize) -> bool {
        matches!(
            (self, size),
            (Self::Base, PageSize::Base)
                | (Self::Thp, PageSize::Thp)
                | (Self::Hugetlb, PageSize::Hugetlb(_))
        )
    }
}

/// What a plan is narrowed to. The default lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<AddrRange>,
    /// Only mappings whose name matches: `*` stands for any text; without one, any name that
    /// contains the pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// Only memory of these kinds; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Only pages of this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<SizeClass>,
    /// At most this much, in address order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
}

impl Filter {
    /// The part of `mapping` that may be touched, in whole pages.
    pub fn part_of(&self, mapping: &Mapping) -> Option<AddrRange> {
        if self.mapping.as_ref().is_some_and(|pattern| !matches_pattern(pattern, &mapping.name)) {
            return None;
        }
        match self.range {
            None => Some(mapping.range),
            Some(range) => mapping.range.intersection(range.page_aligned()),
        }
    }

    /// Whether the pages of `run` may be touched.
    pub fn accepts(&self, run: &Run) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&run.kind))
            && self.page_size.is_none_or(|class| class.holds(run.size))
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any text. A pattern without `*` matches
/// any name that contains it.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_without_a_star_is_looked_for_anywhere() {
        assert!(matches_pattern("libc", "/usr/lib/libc.so.6"));
        assert!(!matches_pattern("libz", "/usr/lib/libc.so.6"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches_pattern("/dev/shm/*", "/dev/shm/pool"));
        assert!(matches_pattern("*.so.6", "/usr/lib/libc.so.6"));
        assert!(matches_pattern("/usr/*/libc*", "/usr/lib/libc.so.6"));
        assert!(!matches_pattern("/opt/*", "/usr/lib/libc.so.6"));
        assert!(!matches_pattern("a*a", "a"));
    }

    #[test]
    fn a_range_takes_whole_pages_of_a_mapping() {
        let mapping = Mapping {
            range: AddrRange::new(0x10000, 0x20000).unwrap(),
            name: "[anon]".to_owned(),
            kind: Kind::Anon,
            shared: false,
            hugetlb: None,
            file: None,
        };
        let range = AddrRange::new(0x11800, 0x30000);
        let filter = Filter { range, ..Filter::default() };
        assert_eq!(filter.part_of(&mapping), AddrRange::new(0x11000, 0x20000));
    }

    proptest! {
        #[test]
        fn a_pattern_of_a_name_with_stars_for_parts_of_it_matches(a in "[a-z/]{0,6}", b in "[a-z/]{0,6}", c in "[a-z/]{0,6}") {
            let (pattern, name) = (format!("{a}*{c}"), format!("{a}{b}{c}"));
            prop_assert!(matches_pattern(&pattern, &name));
        }
    }
}
