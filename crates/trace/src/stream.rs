//! What the supervisor of `pagetide run` tells of the model's migrations, and to whom.
//!
//! It listens on a Unix stream socket, in whose abstract name [`VARIABLE`] is set for the program.
//! Both sides write JSON objects, one a line. A reader asks; is told when its trace begins, each
//! migration before the call that caused it returns, and how many were lost because it was slow;
//! shuts its end down for writing; and is told when its trace has ended:
//!
//! ```text
//! > {"buffer_bytes":16777216}
//! < {"event":"begun","reasons":["compaction",...],"counted":{"succeeded_pages":0,...}}
//! < {"event":"migration","times":1,"time_ns":...,"reason":"mempolicy_mbind",...}
//! < {"event":"lost","events":12}
//! < {"event":"ended","counted":{"succeeded_pages":512,...}}
//! ```
//!
//! A migration is what `pagetide trace --json --stacks` prints, and how often it happened. Both ends are of one binary: nothing
//! here is kept compatible.

use serde::{Deserialize, Serialize};

use crate::event::{Counts, Migration};

/// The environment variable that names the socket, in the abstract namespace.
pub const VARIABLE: &str = "PAGETIDE_RUN_EVENTS";

/// So many migrations are told as one, so that a reader knows how much a line may become.
pub const TIMES_MAX: usize = 1024;

/// What a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// How much may wait for a slow reader, beside what the socket itself holds.
    pub buffer_bytes: u64,
}

/// What the supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Told {
    /// From here on, each migration is told.
    Begun {
        /// The words for all reasons that the model has.
        reasons: Vec<String>,
        /// What the machine's `/proc/vmstat` has counted so far.
        counted: Counts,
    },
    /// The model's engine ran, so often with the very same result: a call that moves pages one by
    /// one is many such runs.
    Migration {
        /// How often, at most [`TIMES_MAX`].
        times: usize,
        /// Each of them.
        #[serde(flatten)]
        migration: Migration,
    },
    /// The reader was slow: so many migrations are not told, here.
    Lost {
        /// How many.
        events: usize,
    },
    /// That was all.
    Ended {
        /// What the machine's `/proc/vmstat` has counted by now.
        counted: Counts,
    },
}
