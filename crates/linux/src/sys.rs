//! The system calls, and every line of unsafe code in this crate.
//!
//! One file a call or close family. A function here passes its arguments on, checks that lengths
//! agree, and gives the kernel's answer back as it came: no retry, no interpretation. That is the
//! business of [`crate::calls`], which most callers want instead.
//!
//! Conventions:
//!
//! - A `pid` is a number in the caller's pid namespace. Nobody can know that it still means the
//!   process that it meant before; hold a [`pidfd`](open_pidfd) and ask it before and after.
//!   `0` is the caller itself. A thread's id works too, and means its process.
//! - An address is a `u64`, in the address space of the process that the call is about. It is
//!   never dereferenced here.
//! - A node mask is the words of a [`NodeSet`](machine::NodeSet). The kernel reads one bit
//!   less than it is told, so that we tell it one more than there are (behaviour spec 1.1).
#![allow(unsafe_code, reason = "the one place where this crate speaks to the kernel directly")]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("addresses are passed as `u64`, so only 64-bit Linux is supported");

mod mempolicy;
mod migrate_pages;
mod move_pages;
mod own_memory;
mod pagemap_scan;
mod pidfd;
mod pread_words;
mod process_madvise;
mod procmap_query;

pub use mempolicy::{
    BindFlags, get_allowed_nodes, get_page_node, get_range_policy, get_thread_policy, mbind,
    set_home_node, set_thread_policy,
};
pub use migrate_pages::migrate_pages;
pub use move_pages::{MoveFlags, move_pages, query_pages};
pub use own_memory::{Backing, OwnMemory};
pub use pagemap_scan::{PageRegion, ScanFlags, ScanRequest, pagemap_scan};
pub use pidfd::{has_exited, open_pidfd};
pub use pread_words::pread_words;
pub use process_madvise::{Advice, RemoteRange, process_madvise};
pub use procmap_query::{MappingFlags, procmap_query};

use std::io;

use machine::NodeId;

/// The `maxnode` argument that goes with the words of a [`machine::NodeSet`].
const MAXNODE: usize = NodeId::LIMIT as usize + 1;

/// The result of a call that answers with a count, or -1 and `errno`.
fn count_or_errno(result: libc::c_long) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}
