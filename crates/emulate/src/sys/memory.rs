//! `process_vm_readv(2)` and `process_vm_writev(2)`: the memory of the program.
//!
//! Protection is honoured, as by the kernel when it copies for a system call.

use std::io;

fn remote(address: u64, length: usize) -> libc::iovec {
    let base =
        std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(usize::MAX));
    libc::iovec { iov_base: base, iov_len: length }
}

fn all_of(result: isize, length: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Ok(done) if done == length => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Fills `buffer` from `address` of a process.
///
/// # Errors
///
/// `EFAULT`: some byte is not readable. `ESRCH`, `EPERM`: no such process, or not ours.
pub(crate) fn read(pid: u32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = remote(address, buffer.len());
    // SAFETY: the kernel writes at most `iov_len` bytes through `local`, which is `buffer`; the
    // remote address is the other process's and is only looked up there.
    let result = unsafe {
        libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
    };
    all_of(result, buffer.len())
}

/// Stores `bytes` at `address` of a process.
///
/// # Errors
///
/// `EFAULT`: some byte is not writable; those before it may have been written. `ESRCH`, `EPERM`: no
/// such process, or not ours.
pub(crate) fn write(pid: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = remote(address, bytes.len());
    // SAFETY: the kernel reads `iov_len` bytes through `local`, which is `bytes`, and writes none
    // of them; what changes is memory of another process, at its own address.
    let result = unsafe {
        libc::process_vm_writev(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
    };
    all_of(result, bytes.len())
}
