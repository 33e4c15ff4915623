//! A scenario: the steps that one process and its children perform, and the results seen.
//!
//! It is data with a text form, and nothing else: it knows neither a kernel nor the model. The
//! conformance cases under `tests/scenarios/` are scenarios; a player performs them on the model,
//! an actor on a real kernel, and both write what they saw as [`Seen`], in the same words.
//!
//! - What a player gives is a [`Record`]: the result of each step, and how it ended. An actor
//!   writes it as lines ([`RecordLine`]), so that a scenario that kills its process loses no more
//!   than itself.
//! - [`oracle`] says when two records agree, field by field; [`layout`] has the addresses that all
//!   players put things at.
//!
//! `docs/scenarios.md` is the reader's guide to the notation; [`Step`] has one variant for each
//! verb of it.
#![forbid(unsafe_code)]

mod args;
mod case;
pub mod generate;
pub mod layout;
pub mod oracle;
mod parse;
mod place;
mod print;
mod record;
mod seen;
pub mod shrink;
mod step;

pub use args::{Mask, Mode, MoveTarget, Pid, Pointer, flags};
pub use case::{Case, CaseFileError, Kernel, parse_case_file, print_case_file};
pub use parse::ParseError;
pub use place::{Base, Place};
pub use record::{End, NotARecordLine, Record, RecordLine};
pub use seen::{PageNode, Policy, Seen};
pub use step::{Act, Actor, Advice, Credential, Kind, Protection, Scenario, Step};

#[cfg(test)]
mod tests;
