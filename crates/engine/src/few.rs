//! A map for a few keys that come in long rows: the one asked for last is found at once.
//!
//! A survey asks for a counter with each run, a feed for a line with each piece; in a process whose
//! pages alternate between nodes that is each page, and a tree would be the dearest part of the look.

/// Values by key, in ascending order of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Few<K, V> {
    entries: Vec<(K, V)>,
    last: usize,
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), last: 0 }
    }
}

impl<K: Ord + Copy, V: Default> Few<K, V> {
    /// The value of `key`, made if there is none.
    #[inline]
    pub(crate) fn entry(&mut self, key: K) -> &mut V {
        if self.entries.get(self.last).is_none_or(|(at, _)| *at != key) {
            self.last = self.find_or_insert(key);
        }
        &mut self.entries[self.last].1
    }

    fn find_or_insert(&mut self, key: K) -> usize {
        match self.entries.binary_search_by_key(&key, |(at, _)| *at) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(at, (key, V::default()));
                at
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_counts_as_a_tree_does(keys in prop::collection::vec(0u8..6, 0..200)) {
            let (mut few, mut tree) = (Few::<u8, u64>::default(), BTreeMap::<u8, u64>::new());
            for key in keys {
                *few.entry(key) += 1;
                *tree.entry(key).or_default() += 1;
            }
            prop_assert_eq!(few.iter().copied().collect::<Vec<_>>(), tree.into_iter().collect::<Vec<_>>());
        }
    }
}
