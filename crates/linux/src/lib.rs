//! The real kernel: its migration system calls, and readers of what it tells about memory in
//! procfs, sysfs and cgroup files.
//!
//! - [`sys`]: the bare calls, and all unsafe code. [`calls`]: the same with own types and errors.
//! - [`tracefs`]: what the kernel says while it migrates.
//! - [`proc`], [`sysfs`], [`cgroup`]: for each file a parser of its text, which is pure, and an
//!   opener, which takes the [`Root`] under which the file systems are mounted. So the parsers run
//!   on captures of many kernels, and the openers on a folder made by a test.
//!
//! Numbers and words that this crate does not know (an errno, a status word, a policy, a field)
//! are handed on as the kernel wrote them. A new kernel must not make an old pagetide lie.
//!
//! The procfs crate reads the files that it reads whole and without a panic on odd text:
//! mountinfo, cgroup, vmstat. The others have readers of their own here, because procfs 0.18 loses
//! all maps to one name that is no UTF-8 and panics on a file called `/SYSV`, cuts process names at
//! a colon, and copies each entry of pagemap and kpageflags singly. In tests it is the second
//! opinion.

pub mod calls;
pub mod cgroup;
mod errno;
mod error;
pub mod frame_trust;
mod policy;
pub mod proc;
mod root;
mod status;
pub mod sys;
pub mod sysfs;
pub mod tracefs;

pub use errno::Errno;
pub use error::{Malformed, ReadError};
pub use policy::{MemPolicy, PolicyFlags, PolicyMode};
pub use root::Root;
pub use status::{PageStatus, UNWRITTEN};
