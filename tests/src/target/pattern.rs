//! The contents of every page: pseudo random words that name the area, the page and the word.
//!
//! A page that was lost, zeroed, torn, or swapped with any other page of any area differs from what
//! this module says. A word costs a few instructions, for filling happens in emulated guests too.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words in a base page.
pub(crate) const PAGE_WORDS: usize = crate::spec::PAGE_BYTES / 8;

/// The word of each page that the touch thread counts in. The pattern of a touched area spares it.
pub(crate) const COUNTER_WORD: usize = 0;

/// What an area is filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// Words from this seed.
    Seeded {
        /// Differs from area to area.
        seed: u64,
        /// Whether [`COUNTER_WORD`] belongs to the touch thread.
        has_counter: bool,
    },
    /// Nothing was ever written.
    Zero,
}

impl Pattern {
    /// The pattern of the area called `name`.
    pub(crate) fn of_area(name: &str, has_counter: bool) -> Self {
        // FNV-1a, 64 bits.
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::Seeded { seed, has_counter }
    }

    /// Writes page number `page`; a counter starts at zero.
    pub(crate) fn fill(self, page: usize, words: &[AtomicU64]) {
        let Self::Seeded { seed, has_counter } = self else { return };
        for (index, word) in words.iter().enumerate() {
            let is_counter = has_counter && index == COUNTER_WORD;
            let value = if is_counter { 0 } else { word_at(seed, page, index) };
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Whether page number `page` is as [`Self::fill`] left it, but for the counter.
    pub(crate) fn holds(self, page: usize, words: &[AtomicU64]) -> bool {
        words.iter().enumerate().all(|(index, word)| {
            let found = word.load(Ordering::Relaxed);
            match self {
                Self::Zero => found == 0,
                Self::Seeded { has_counter: true, .. } if index == COUNTER_WORD => true,
                Self::Seeded { seed, .. } => found == word_at(seed, page, index),
            }
        })
    }
}

/// The finalizer of SplitMix64 over a counter that never repeats within an area.
fn word_at(seed: u64, page: usize, index: usize) -> u64 {
    let counter = (page * PAGE_WORDS + index + 1) as u64;
    let mixed = seed.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<AtomicU64> {
        (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_page_holds_its_own_pattern_and_no_other_pages_or_areas() {
        let (a, b) = (Pattern::of_area("a", false), Pattern::of_area("b", false));
        let words = page();
        a.fill(7, &words);
        assert!(a.holds(7, &words));
        assert!(!a.holds(8, &words));
        assert!(!b.holds(7, &words));
        assert!(!Pattern::Zero.holds(7, &words));
    }

    #[test]
    fn one_changed_word_is_noticed_wherever_it_is() {
        let pattern = Pattern::of_area("a", false);
        for index in [0, 1, PAGE_WORDS - 1] {
            let words = page();
            pattern.fill(0, &words);
            words[index].fetch_xor(1, Ordering::Relaxed);
            assert!(!pattern.holds(0, &words), "word {index}");
        }
    }

    #[test]
    fn the_counter_alone_may_change() {
        let pattern = Pattern::of_area("a", true);
        let words = page();
        pattern.fill(3, &words);
        words[COUNTER_WORD].store(99, Ordering::Relaxed);
        assert!(pattern.holds(3, &words));
        words[COUNTER_WORD + 1].store(99, Ordering::Relaxed);
        assert!(!pattern.holds(3, &words));
    }

    #[test]
    fn a_page_of_zeroes_is_no_pattern_and_the_zero_pattern_writes_nothing() {
        let words = page();
        assert!(!Pattern::of_area("a", true).holds(0, &words));
        Pattern::Zero.fill(0, &words);
        assert!(Pattern::Zero.holds(0, &words));
        words[5].store(1, Ordering::Relaxed);
        assert!(!Pattern::Zero.holds(0, &words));
    }
}
