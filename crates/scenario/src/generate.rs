//! Scenarios from a seed: what the differential fuzz plays on a real kernel and on the model.
//!
//! [`generate`] is a function of its three arguments and of nothing else, for ever: a seed and an
//! index in an old report name the same scenario today (a test holds a digest of many of them).
//! Whoever changes what is drawn gives the new stream a new [`STREAM`], so that old pairs are at
//! least not mistaken for new ones.
//!
//! The first [`SEQUENCES`] indices are every sequence of up to three calls over a small alphabet
//! (`sequences`), whatever the seed. Behind them scenarios are drawn (`draw`): each first draws
//! which features it may use, so that a few of them meet often instead of all of them rarely, and
//! then steps that are mostly valid, as `world` knows what exists.
//!
//! Left out, because their results are not the kernel's alone or they take long: a full node
//! (`hog`), KSM, traces, and interleaving of shared memory, which starts at the inode's number.

mod arguments;
mod dice;
mod draw;
mod sequences;
mod world;

pub use sequences::SEQUENCES;

use crate::Scenario;
use dice::Dice;

/// Version of what a seed and an index mean.
pub const STREAM: u64 = 1;

/// The machine that a scenario is made for: nodes with memory `0..nodes`, CPUs `0..cpus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Nodes with memory.
    pub nodes: u16,
    /// CPUs.
    pub cpus: u32,
}

impl Outline {
    /// The machine of the conformance cases.
    pub const CASES: Self = Self { nodes: 3, cpus: 4 };
}

/// Scenario number `index` of `seed`, for a machine of this outline.
///
/// # Panics
///
/// When the outline has no node or no CPU.
pub fn generate(seed: u64, index: u64, outline: Outline) -> Scenario {
    assert!(outline.nodes > 0 && outline.cpus > 0, "a machine has a node and a CPU");
    match index.checked_sub(SEQUENCES) {
        None => sequences::sequence(index),
        Some(index) => draw::scenario(Dice::new(seed, index), outline),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// FNV-1a of the texts, each with a line end.
    fn digest(scenarios: impl Iterator<Item = Scenario>) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for scenario in scenarios {
            for byte in format!("{scenario}\n").bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        hash
    }

    #[test]
    fn a_seed_and_an_index_mean_the_same_scenario_for_ever() {
        let drawn = (SEQUENCES..SEQUENCES + 2000).map(|at| generate(7, at, Outline::CASES));
        let sequences = (0..SEQUENCES).map(|at| generate(7, at, Outline::CASES));
        assert_eq!(
            (STREAM, digest(sequences), digest(drawn)),
            (1, 10798693144029601225, 16849737925472134480)
        );
    }

    #[test]
    fn seeds_differ_behind_the_sequences_and_agree_on_them() {
        let of = |seed, from| {
            digest((from..from + 50).map(move |at| generate(seed, at, Outline::CASES)))
        };
        assert_eq!(of(1, 0), of(2, 0));
        assert_ne!(of(1, SEQUENCES), of(2, SEQUENCES));
    }

    proptest! {
        #[test]
        fn what_is_generated_can_be_written_and_read_back(
            seed: u64, index in 0..SEQUENCES * 4, nodes in 1u16..9, cpus in 1u32..9,
        ) {
            let scenario = generate(seed, index, Outline { nodes, cpus });
            prop_assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
    }
}
