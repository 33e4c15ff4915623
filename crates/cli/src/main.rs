//! The pagetide command.
#![forbid(unsafe_code)]
fn main() {}
