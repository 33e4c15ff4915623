//! Readers of `/proc`. Each file has a parser of its text, which opens nothing, and an opener.
//!
//! What is read here is a moment's truth: the process may run meanwhile. A line is consistent; two
//! lines are not.

pub mod cmdline;
pub mod kallsyms;
pub mod kpagecount;
pub mod kpageflags;
pub mod maps;
pub mod mountinfo;
pub mod numa_maps;
pub mod pagemap;
pub mod processes;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod sysctl;
pub mod task;
pub mod vm_flags;
pub mod vmstat;
pub mod zoneinfo;

/// The path of a process's file under [`Root`](crate::Root).
fn path(pid: u32, file: &str) -> String {
    format!("proc/{pid}/{file}")
}
