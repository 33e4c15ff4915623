//! `tgkill(2)` with signal 0: whether a thread is one of a process.

/// Whether thread `tid` is of process `pid`. No signal is sent. `false` also where the kernel does not
/// let us say, for a process of another user.
///
/// Source: tgkill(2); kill(2), on signal 0.
pub(crate) fn is_of(pid: u32, tid: u32) -> bool {
    // SAFETY: this call takes three numbers, and with signal 0 changes nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_of_its_own_process_and_of_no_other() {
        let pid = std::process::id();
        let own = || rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let other = std::thread::spawn(move || {
            assert!(is_of(pid, own()));
            own()
        });
        let other = other.join().unwrap();
        assert!(is_of(pid, own()) && !is_of(own().min(pid) - 1, pid));
        assert!(!is_of(other, pid));
    }
}
