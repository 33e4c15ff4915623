//! Conversions between counts and indexes, each with the fact that makes it safe.

/// A number as an index. The model runs on 64-bit hosts only; see the assertion.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, asserted below")]
pub(crate) const fn index(number: u64) -> usize {
    const { assert!(usize::BITS == 64, "the model needs a 64-bit host") };
    number as usize
}

/// The next number of a list that is named by 32-bit ids.
pub(crate) fn next_id(length: usize) -> u32 {
    u32::try_from(length).expect("a list that ids name has fewer than 2^32 entries")
}
