//! `name_to_handle_at(2)`: what a file system knows a file by. It has the generation of the inode, of which
//! no other call tells.
//!
//! Source: name_to_handle_at(2); kernel, fs/fhandle.c.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Bytes of the longest handle (`MAX_HANDLE_SZ`).
const BYTES_MAX: u32 = 128;

/// `struct file_handle`, with room for each.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; BYTES_MAX as usize],
}

/// The handle of a file, which may be open as a path only.
///
/// # Errors
///
/// What the kernel says; `EOPNOTSUPP`: the file system has no handles.
pub(crate) fn of(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut found = FileHandle { bytes: BYTES_MAX, kind: 0, handle: [0; BYTES_MAX as usize] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the path is empty and ends with a zero. The kernel writes one `int`, and one `struct
    // file_handle` with at most as many bytes behind it as `bytes` says, which there are. The
    // descriptor is open while `file` lives.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut found,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(found.bytes.min(BYTES_MAX)).unwrap_or(0);
    Ok(found.handle[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_handle_and_another_file_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Ok(handle) = of(file.as_file()) else { return };
        let again = std::fs::File::open(file.path()).unwrap();
        assert_eq!(of(again).unwrap(), handle);
        let other = tempfile::NamedTempFile::new().unwrap();
        assert_ne!(of(other.as_file()).unwrap(), handle);
    }

    #[test]
    fn the_kernels_own_files_have_none() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(of(file).is_err());
    }
}
