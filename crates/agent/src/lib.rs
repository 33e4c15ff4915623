//! The inside of a lab guest: its init process, and the framed protocol that it speaks.
//!
//! A library, called by the one `pagetide` binary when it finds itself started as a guest's
//! `/init`, and by `lab`, which is the other end of the wire. The lab packs the very file that is
//! running into the guest, so host and guest can never disagree on the protocol.
//!
//! - [`frame`]: bytes to frames and back; what is lost or garbled is noticed.
//! - [`protocol`]: the messages, and how each is written in a frame.
//! - [`port`]: messages over anything that reads and writes; the windows that keep a fast sender
//!   from drowning a slow receiver.
//! - [`init`]: process 1: mounts, then serves until it is told to power off.
//! - [`serve_on`]: serves without a guest, on any port: what tests do under `pagetide run`.

#![deny(unsafe_code)]

pub mod actor;
mod feed;
pub mod frame;
pub mod init;
mod job;
mod mounts;
pub mod port;
pub mod protocol;
mod reaper;
mod reset;
mod serve;
mod sys;

use std::fs::File;
use std::io;

/// Serves on `port` until the other end is gone. Commands have our environment, and all children of
/// this process are waited for.
///
/// # Errors
///
/// What reading or writing the port gave.
pub fn serve_on(port: File) -> io::Result<()> {
    serve::serve(port, job::Environment::Inherited)
}
