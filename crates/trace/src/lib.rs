//! Migrations as the kernel reports them: who moved pages, why, by which path, for how long.
//!
//! ```text
//! Session -> Decoder -> Pairing -> Event -> Summary
//! ```
//!
//! A [`Session`](session::Session) has a trace instance of its own and reads its buffers. The decoder
//! turns bytes into what an event says, by the running kernel's own format files. The pairing joins
//! the start of a migration, its end, the call that asked for it, and its stack into one
//! [`Event`](event::Event). A [`Summary`](summary::Summary) adds events up.
//!
//! Under `pagetide run` the machine is a model, and a [`Supervised`](supervised::Supervised) takes the
//! session's place: its supervisor tells of the model's migrations in a [`mod@stream`].
//!
//! Nothing here moves a page, and nothing is left behind in the kernel.

#![forbid(unsafe_code)]

mod counted;
mod decode;
pub mod event;
mod pairing;
mod reader;
pub mod session;
mod stacks;
pub mod stream;
pub mod summary;
pub mod supervised;
mod tasks;
pub mod wanted;
