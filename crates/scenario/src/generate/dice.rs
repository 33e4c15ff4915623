//! The source of chance: SplitMix64, written out so that no dependency's update changes a scenario.
//!
//! Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (2014).

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    state: u64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Dice {
    /// The stream of a seed and an index.
    pub(super) const fn new(seed: u64, index: u64) -> Self {
        Self { state: mixed(mixed(seed.wrapping_add(STEP)) ^ index.wrapping_mul(STEP)) }
    }

    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mixed(self.state)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "there is no number below 0");
        let wide = u128::from(self.next()) * u128::from(limit);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number of the range.
    pub(super) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Once in so many times, `true`.
    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())].clone()
    }

    /// One of these, each as often as its weight says.
    pub(super) fn weighted<T: Clone>(&mut self, from: &[(u64, T)]) -> T {
        let mut left = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, item) in from {
            match left.checked_sub(*weight) {
                None => return item.clone(),
                Some(rest) => left = rest,
            }
        }
        unreachable!("a number below the sum of the weights falls to one of them")
    }

    /// An index of a list of this length.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut dice = Dice { state: 1_234_567 };
        let numbers = [dice.next(), dice.next(), dice.next()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_choice_is_made_as_often_as_its_weight_says() {
        let mut dice = Dice::new(1, 1);
        let mut seen = [0; 3];
        for _ in 0..8000 {
            seen[dice.weighted(&[(1, 0), (6, 1), (1, 2)])] += 1;
        }
        assert!((800..1200).contains(&seen[0]) && (5500..6500).contains(&seen[1]), "{seen:?}");
    }
}
