//! A set of CPUs. A type of its own, so that a CPU can never be taken for a node.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id_list::{self, ParseListError};
use crate::node::CpuId;

/// A set of [`CpuId`]s. Prints as the kernel prints it: `0-3,8`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet {
    cpus: BTreeSet<CpuId>,
}

impl CpuSet {
    /// Adds `cpu`.
    pub fn insert(&mut self, cpu: CpuId) {
        self.cpus.insert(cpu);
    }

    /// Whether `cpu` is a member.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.cpus.contains(&cpu)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.cpus.iter().copied()
    }

    /// Whether the two sets share a member.
    pub fn intersects(&self, other: &Self) -> bool {
        !self.cpus.is_disjoint(&other.cpus)
    }

    /// Adds every member of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.cpus.extend(&other.cpus);
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        Self { cpus: cpus.into_iter().collect() }
    }
}

impl FromStr for CpuSet {
    type Err = ParseListError;

    /// Reads the plain list form, `0-3,8`. The empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, ParseListError> {
        let mut set = Self::default();
        id_list::parse(text, CpuId::LIMIT, |number| set.cpus.extend(CpuId::new(number)))?;
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        id_list::write(f, self.iter().map(CpuId::get))
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl TryFrom<String> for CpuSet {
    type Error = ParseListError;

    fn try_from(text: String) -> Result<Self, ParseListError> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cpu_list_prints_as_the_kernel_prints_it() {
        let set: CpuSet = "8,0-3".parse().unwrap();
        assert_eq!(set.to_string(), "0-3,8");
        assert_eq!(set.len(), 5);
    }

    proptest! {
        #[test]
        fn what_a_cpu_set_prints_it_reads_back(raw in prop::collection::vec(0..CpuId::LIMIT, 0..40)) {
            let set: CpuSet = raw.into_iter().filter_map(CpuId::new).collect();
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<CpuSet>();
        }
    }
}
