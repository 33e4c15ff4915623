//! Plays scenarios on the model.
//!
//! The only place where `scenario` and `model` meet: a [`Player`] turns each step into the calls
//! that a program would make, and writes what it saw in the notation of the case files.
//! `tests/cases.rs` holds every conformance case against it, on every kernel.
#![forbid(unsafe_code)]

pub mod balancing;
mod calls;
mod explain;
mod look;
mod page;
mod player;
mod words;

pub use explain::{ExplainedStep, explain};
pub use page::{Cause, Causes, PageError, Played, page, play_on_model};
pub use player::{Player, case_machine, case_topology, kernel_version};
