//! `newfstatat(2)` and `statx(2)` as bytes, to be handed to another process as the kernel wrote them.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Bytes of x86-64's `struct stat`.
const STAT: usize = 144;
/// Bytes of `struct statx`.
const STATX: usize = 256;

/// `struct stat` of a path.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn stat(path: &Path, follow: bool) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut bytes = vec![0u8; STAT];
    // SAFETY: the path ends with a zero, and the kernel writes one `struct stat`, which has as many
    // bytes as the buffer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            libc::AT_FDCWD,
            path.as_ptr(),
            bytes.as_mut_ptr(),
            flags(follow),
        )
    };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// `struct statx` of a path.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn statx(path: &Path, follow: bool, mask: u32) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut bytes = vec![0u8; STATX];
    // SAFETY: the path ends with a zero, and the kernel writes one `struct statx`, which has as many
    // bytes as the buffer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags(follow),
            mask,
            bytes.as_mut_ptr(),
        )
    };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

const fn flags(follow: bool) -> i32 {
    if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
}
