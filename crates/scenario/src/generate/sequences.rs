//! Every sequence of up to three calls over a small alphabet, shortest first, in a fixed order.
//!
//! Each starts in the same place, with pages on three nodes, an untouched area, and a group, and
//! ends with a look at all that the calls may have changed.

use crate::Scenario;

/// What the calls find.
const BEFORE: &str =
    "unmap vdso; unmap vvar; map a 4; map b 2; cg c1 1,2; fill a 1122; mbind b interleave {1,2}";
/// What is looked at in the end.
const AFTER: &str = "where a b; gmp 0; gmp ADDR a[1]";

/// The calls. Between them they move, bind, share, pin, confine, discard and touch.
const ALPHABET: [&str; 12] = [
    "mp 0 {1,2} {0,1}",
    "mp 0 {1} {2}",
    "mv 0 a[0..3] 2",
    "mv 0 a[1],a[2],a[1] 1,2 ALL",
    "mbind a[1..3] bind {2} MOVE+STRICT",
    "mbind a interleave {1,2} MOVE",
    "smp bind+static {1}",
    "touch b",
    "madv a[1..4] dontneed; touch a[2..4]",
    "fork",
    "pin a[1]",
    "cgin c1",
];

const LETTERS: u64 = ALPHABET.len() as u64;
/// How many sequences there are: one of no call, and those of one, two and three.
pub const SEQUENCES: u64 = 1 + LETTERS + LETTERS * LETTERS + LETTERS * LETTERS * LETTERS;

/// The calls of a sequence, by their place in the alphabet.
fn letters(index: u64) -> Vec<u64> {
    let mut rest = index;
    for length in 0..=3 {
        let count = LETTERS.pow(length);
        if rest < count {
            return (0..length).rev().map(|at| rest / LETTERS.pow(at) % LETTERS).collect();
        }
        rest -= count;
    }
    unreachable!("callers ask for an index below SEQUENCES")
}

pub(super) fn sequence(index: u64) -> Scenario {
    let mut text = BEFORE.to_owned();
    let mut child = 'Q';
    for letter in letters(index) {
        let call = usize::try_from(letter).map_or("", |letter| ALPHABET[letter]);
        text.push_str("; ");
        text.push_str(call);
        if call == "fork" {
            text.push_str(&format!(" {child}"));
            child = char::from_u32(u32::from(child) + 1).unwrap_or('Q');
        }
    }
    text.push_str("; ");
    text.push_str(AFTER);
    if !text.contains("cgin") {
        // Where the group confines the process, its own pages move too: how many is its affair.
        text.push_str("; ctr");
    }
    text.parse().expect("the alphabet is written in the notation of scenarios")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sequence_of_up_to_three_calls_comes_once_and_short_ones_first() {
        let all: Vec<Vec<u64>> = (0..SEQUENCES).map(letters).collect();
        assert!(all.is_sorted_by_key(Vec::len));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len() as u64, SEQUENCES);
        assert!(all.iter().flatten().all(|&letter| letter < LETTERS));
    }

    #[test]
    fn a_sequence_is_the_calls_between_a_fixed_start_and_a_look() {
        let last = sequence(SEQUENCES - 1).to_string();
        assert!(last.starts_with("unmap vdso; unmap vvar; map a 4"), "{last}");
        assert!(last.contains("cgin c1; cgin c1; cgin c1; where a b"), "{last}");
    }
}
