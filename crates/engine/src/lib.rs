//! The engine: survey, plan, move, verify.
//!
//! ```text
//! Target -> Survey -> Plan -> Mover -> Outcome
//! ```
//!
//! A [`Target`](target::Target) is one process, held by a pidfd. A [`Survey`](survey::Survey) says
//! what lies where. A [`Plan`](plan::Plan) says what would move and what stands in the way. A
//! [`Mover`](mover::Mover) carries it out in paced chunks. An [`Outcome`](outcome::Outcome) accounts
//! for every page. The same words are the keys of the JSON and the columns that a user reads.
//!
//! All of it works over the trait [`Memory`](memory::Memory); only [`memory::LinuxMemory`],
//! [`target`], [`planner`] and what they call speak to the kernel, through the crate `linux`.

#![forbid(unsafe_code)]

mod calibrate;
pub mod census;
pub mod concern;
pub mod counters;
mod feed;
mod few;
pub mod filter;
pub mod finding;
pub mod journal;
mod look;
pub mod memory;
pub mod mover;
pub mod outcome;
pub mod pace;
pub mod page;
pub mod placement;
pub mod plan;
pub mod planner;
mod portion;
pub mod process;
pub mod route;
mod settle;
mod sharers;
pub mod strip;
pub mod survey;
mod sweep;
pub mod target;
mod verify;
