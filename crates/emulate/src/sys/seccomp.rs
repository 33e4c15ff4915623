//! `seccomp(SECCOMP_SET_MODE_FILTER)`: install a filter whose notifications we listen to.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use crate::filter::Instruction;

const SET_MODE_FILTER: libc::c_uint = 1;
/// Before Linux 5.16 a filter without it slows the program down against speculative attacks, which
/// are none of this filter's business.
const FLAG_SPEC_ALLOW: libc::c_ulong = 1 << 2;
const FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Installs `program` for this thread and all that descends from it; returns the listener.
///
/// Once the kernel has received a call for us, only a fatal signal ends its wait (Linux 5.19; older
/// kernels are asked without that).
///
/// # Errors
///
/// - `EACCES`: `no_new_privs` is not set.
/// - `EBUSY`: another filter of this thread has a listener already.
/// - `EINVAL`: the kernel has no user notification (before 5.0), or the program is not well formed.
/// - `ENOSYS`: built without seccomp.
///
/// Source: seccomp(2), seccomp_unotify(2).
pub(crate) fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    const FLAGS: libc::c_ulong = FLAG_NEW_LISTENER | FLAG_SPEC_ALLOW;
    match install_with(program, FLAGS | FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install_with(program, FLAGS),
        result => result,
    }
}

fn install_with(program: &[Instruction], flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel reads one `sock_fprog`, and `length` instructions through its pointer:
    // both live until after the call and have the kernel's layout. It copies them. What the filter
    // does to later calls of this thread is the caller's wish.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    let raw = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
