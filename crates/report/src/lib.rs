//! Numbers in, pictures out. Knows no type of pagetide: what it draws comes as text and numbers.

#![forbid(unsafe_code)]

pub mod flamegraph;
