//! A set of nodes, as the kernel's `nodemask_t`: 1024 bits, copied by value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id_list::{self, ParseListError};
use crate::node::NodeId;

const WORDS: usize = NodeId::LIMIT as usize / 64;

/// A set of [`NodeId`]s. Prints as the kernel prints it: `0-2,5`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeSet {
    words: [u64; WORDS],
}

impl NodeSet {
    /// The set without members.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The set of one node.
    pub fn only(node: NodeId) -> Self {
        Self::from_iter([node])
    }

    /// Adds `node`.
    pub fn insert(&mut self, node: NodeId) {
        self.words[node.index() / 64] |= 1 << (node.index() % 64);
    }

    /// Takes `node` out.
    pub fn remove(&mut self, node: NodeId) {
        self.words[node.index() / 64] &= !(1 << (node.index() % 64));
    }

    /// Whether `node` is a member.
    pub fn contains(&self, node: NodeId) -> bool {
        self.words[node.index() / 64] >> (node.index() % 64) & 1 == 1
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..NodeId::LIMIT).filter_map(NodeId::new).filter(|&node| self.contains(node))
    }

    /// The lowest member.
    pub fn first(&self) -> Option<NodeId> {
        self.iter().next()
    }

    /// The highest member.
    pub fn last(&self) -> Option<NodeId> {
        self.iter().last()
    }

    /// Members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| ours & theirs)
    }

    /// Members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| ours | theirs)
    }

    /// Members of this set that `other` lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| ours & !theirs)
    }

    /// Whether every member is in `other` too.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The mask as the system calls take it: bit `n % 64` of word `n / 64` is node `n`.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// The set behind a mask that a system call filled.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        Self { words }
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.words;
        for (word, &theirs) in words.iter_mut().zip(&other.words) {
            *word = combine(*word, theirs);
        }
        Self { words }
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = Self::EMPTY;
        nodes.into_iter().for_each(|node| set.insert(node));
        set
    }
}

impl FromStr for NodeSet {
    type Err = ParseListError;

    /// Reads the plain list form, `0-2,5`. The empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, ParseListError> {
        let mut set = Self::EMPTY;
        id_list::parse(text, u32::from(NodeId::LIMIT), |number| {
            set.words[number as usize / 64] |= 1 << (number % 64);
        })?;
        Ok(set)
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        id_list::write(f, self.iter().map(|node| u32::from(node.get())))
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl TryFrom<String> for NodeSet {
    type Error = ParseListError;

    fn try_from(text: String) -> Result<Self, ParseListError> {
        text.parse()
    }
}

impl From<NodeSet> for String {
    fn from(set: NodeSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_node_set() -> impl Strategy<Value = NodeSet> {
        prop::collection::vec(0..NodeId::LIMIT, 0..40)
            .prop_map(|raw| raw.into_iter().filter_map(NodeId::new).collect())
    }

    #[test]
    fn a_list_reads_ranges_and_single_numbers() {
        let set: NodeSet = "0-2,5".parse().unwrap();
        assert_eq!(set.iter().map(NodeId::get).collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(set.to_string(), "0-2,5");
    }

    #[test]
    fn a_list_names_the_item_that_it_cannot_read() {
        let error = "0,x".parse::<NodeSet>().unwrap_err();
        assert_eq!(error, ParseListError::Item { item: "x".to_owned() });
        assert!("0-".parse::<NodeSet>().is_err());
        assert!("2-1".parse::<NodeSet>().is_err());
        assert_eq!(
            "1024".parse::<NodeSet>().unwrap_err(),
            ParseListError::OutOfRange { number: 1024, last: 1023 }
        );
    }

    proptest! {
        #[test]
        fn what_a_node_set_prints_it_reads_back(set in any_node_set()) {
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<NodeSet>();
        }

        #[test]
        fn set_algebra_agrees_with_membership(a in any_node_set(), b in any_node_set()) {
            for node in (0..NodeId::LIMIT).filter_map(NodeId::new) {
                let (in_a, in_b) = (a.contains(node), b.contains(node));
                prop_assert_eq!(a.intersection(&b).contains(node), in_a && in_b);
                prop_assert_eq!(a.union(&b).contains(node), in_a || in_b);
                prop_assert_eq!(a.difference(&b).contains(node), in_a && !in_b);
            }
            prop_assert_eq!(a.is_subset(&b), a.iter().all(|node| b.contains(node)));
        }
    }
}
