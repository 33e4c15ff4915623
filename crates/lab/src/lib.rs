//! Boots real Debian kernels under QEMU as the machine that a machine.toml describes, and runs
//! commands inside.
//!
//! - [`command`]: what `pagetide lab` does: a guest for one command, or for a shell.
//! - [`guest`]: boot a guest once, then put files, run commands, power it off.
//! - [`run`]: one command in a guest; `routes` sorts the messages of several.
//! - [`kernels`]: kernels by name; `apt` and `debian` fetch them from the computer's own mirror.
//! - [`image`]: the guest's files; `programs` finds them, `elf` and `cpio` know the formats.
//! - [`qemu`]: the command line for a machine; `vm` keeps the process; [`kvm`] asks if KVM works.
//! - [`console`]: what a dead guest has to say.

#![forbid(unsafe_code)]

pub mod actor;
mod apt;
pub mod command;
pub mod conformance;
pub mod console;
mod cpio;
mod debian;
mod elf;
pub mod fuzz;
pub mod guest;
pub mod image;
pub mod kernels;
pub mod kvm;
mod programs;
pub mod qemu;
mod routes;
pub mod run;
mod terminal;
mod vm;

pub use agent::protocol::{Command, WindowSize};
pub use command::{DEFAULT_TIME_LIMIT, LabOptions, Streams, interactive, run_command};
pub use guest::{Death, Guest, GuestConfig, GuestError};
pub use image::Image;
pub use kernels::{Kernel, KernelName, KernelSource, KernelStore};
pub use qemu::Accel;
pub use run::{Control, Input, Output, Running};
