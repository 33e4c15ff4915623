//! What the safe world does not offer: every unsafe line of this crate, one file a call.
#![allow(unsafe_code, reason = "the one place where this crate speaks to the kernel directly")]

pub(crate) mod close;
pub(crate) mod fork;
pub(crate) mod handle;
pub(crate) mod lease;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod notify;
pub(crate) mod peer;
pub(crate) mod seccomp;
pub(crate) mod stat;
pub(crate) mod thread;
