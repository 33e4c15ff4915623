//! Memory that a process shares with all that it forks: arrays of atomic numbers, zero at first.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// What can be shared: any bits are a value of it, and all access is atomic.
pub(crate) trait Atomic: Sync + 'static {}
impl Atomic for AtomicU8 {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}

/// Maps `count` numbers for this process and its children to come, for as long as they live.
///
/// # Errors
///
/// What mmap(2) says.
pub(crate) fn shared<A: Atomic>(count: usize) -> io::Result<&'static [A]> {
    let bytes = size_of::<A>().checked_mul(count).filter(|&bytes| bytes > 0);
    let bytes = bytes.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: a new shared anonymous mapping at an address of the kernel's choice touches no memory
    // that exists.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has `count` numbers of type `A`, page-aligned; the kernel has zeroed it,
    // and zero bits are a value of each atomic type above; it is never unmapped; and other
    // processes reach it through such slices alone, whose access is atomic.
    Ok(unsafe { std::slice::from_raw_parts(mapped.cast::<A>(), count) })
}
