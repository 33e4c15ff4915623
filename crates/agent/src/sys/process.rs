//! Processes of a scenario: forked from the director, ended without any of its destructors.

use std::io;

use rustix::process::Pid;

/// What the steps of a scenario may need at a time.
const HEAP_BYTES: usize = 128 << 10;

/// fork(2). `None` in the child.
///
/// The caller must have one thread alone, or the child must use nothing that another thread may
/// have locked; the director has one, and a scenario's threads only wait.
///
/// # Errors
///
/// What fork(2) says.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the child has a copy of all memory, and goes on in the same code. What must not be
    // done twice (flushing buffers, destructors) it never does: it ends by `exit_now` or a signal.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Ends the process at once: no destructors, no buffers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// unshare(2) of the user namespace: all capabilities, over nothing outside.
///
/// # Errors
///
/// What unshare(2) says.
pub(crate) fn enter_new_user_namespace() -> rustix::io::Result<()> {
    // SAFETY: a user namespace is no table of open files, so no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }
}

/// Where the heap ends just now.
pub(crate) fn heap_end() -> usize {
    // SAFETY: a null increment moves nothing.
    unsafe { libc::sbrk(0) }.addr()
}

/// Has the allocator keep what it has, with some to spare, and give threads no heap of their own:
/// a process of a scenario must not fault in memory of its own between two steps.
pub(crate) fn keep_heap() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_MMAP_THRESHOLD, 1 << 25),
        (libc::M_TOP_PAD, 64 << 10),
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt(3) changes how memory is allocated from now on, and none that is.
        unsafe { libc::mallopt(parameter, value) };
    }
    // The heap grows now, and not while a scenario is played.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(HEAP_BYTES)));
}
