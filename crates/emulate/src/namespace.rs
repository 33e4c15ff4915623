//! Which namespace of a kind a thread is in. Called where ids, users or segments of another mean others.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// The number of the namespace of a `kind` (`pid`, `user`, `ipc`) that a thread is in; `None`: it may not be
/// seen, or the thread has ended.
pub(crate) fn of(tid: u32, kind: &str) -> Option<u64> {
    // The file itself leads to the namespace, whose number is its inode's.
    Some(fs::metadata(format!("/proc/{tid}/ns/{kind}")).ok()?.ino())
}
