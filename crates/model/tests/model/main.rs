//! What the model does, seen from outside: programs of one machine, and what they find.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod access;
mod balancing;
mod engine;
mod lru;
mod random_programs;
mod raw_words;
mod withdrawn;
mod world;
