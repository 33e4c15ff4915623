//! File leases: who opens a file waits until we have written what it is to read.
//!
//! A write lease may be taken while nobody else has the file open. The next open of it, of any
//! process, sends us a signal and sleeps until the lease is released (or for
//! `/proc/sys/fs/lease-break-time` seconds; with `O_NONBLOCK` it fails with `EWOULDBLOCK` instead).
//!
//! Source: fcntl(2), "Leases"; kernel, fs/locks.c, `__break_lease`.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

// Not in libc 0.2.
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_OWNER_TID: i32 = 0;

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
struct Owner {
    kind: i32,
    id: libc::pid_t,
}

/// The realtime signal that breaks are told by, counted from the first.
const SIGNAL_OFFSET: i32 = 7;

fn signal() -> i32 {
    libc::SIGRTMIN() + SIGNAL_OFFSET
}

/// Takes a write lease on an open file of our own. Breaks are told to the calling thread, which has
/// the signal blocked ([`Breaks::new`]): to any other thread it would be the end.
///
/// # Errors
///
/// `EAGAIN`: somebody has it open. `EINVAL`: the file system has no leases.
pub(crate) fn take(file: impl AsFd) -> io::Result<()> {
    set(file.as_fd(), F_SETSIG, signal())?;
    tell_this_thread(file.as_fd())?;
    set(file.as_fd(), libc::F_SETLEASE, libc::F_WRLCK)
}

/// Releases a lease: who waits goes on.
///
/// # Errors
///
/// `EAGAIN`: there is none.
pub(crate) fn release(file: impl AsFd) -> io::Result<()> {
    set(file.as_fd(), libc::F_SETLEASE, libc::F_UNLCK)
}

fn tell_this_thread(file: BorrowedFd<'_>) -> io::Result<()> {
    let id = rustix::thread::gettid().as_raw_nonzero().get();
    let owner = Owner { kind: F_OWNER_TID, id };
    // SAFETY: the descriptor is open, and the kernel reads an owner, which lives until after the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), F_SETOWN_EX, &raw const owner) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn set(file: BorrowedFd<'_>, command: i32, argument: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; these commands take an int and touch no memory of ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Where the kernel tells which leases are to be released. The signal stays blocked in this thread
/// and in what it starts; [`Breaks::unblock`] undoes that, and so does the end of this, in the same thread.
#[derive(Debug)]
pub(crate) struct Breaks {
    descriptor: OwnedFd,
    before: SignalMask,
}

#[derive(Clone, Copy)]
struct SignalMask(libc::sigset_t);

impl std::fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalMask")
    }
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Of the lease on this descriptor.
    Of(RawFd),
    /// So many at once that the kernel's queue was full: look at all.
    Some,
}

impl AsFd for Breaks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Breaks {
    /// Opens a descriptor for the signal and blocks it.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub(crate) fn new() -> io::Result<Self> {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` writes a whole set through the pointer.
        unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
        // SAFETY: it was written just now.
        let mut mask = unsafe { mask.assume_init() };
        for signal in [signal(), libc::SIGIO] {
            // SAFETY: the set is initialised, and these are numbers of signals.
            unsafe { libc::sigaddset(&raw mut mask, signal) };
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set lives until after the call.
        let raw = unsafe { libc::signalfd(-1, &raw const mask, flags) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: a set of zeroes is a value of the type, which the next call overwrites.
        let mut before: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: both sets live until after the call.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, &raw mut before) };
        Ok(Self { descriptor, before: SignalMask(before) })
    }

    /// In a child, before exec: the signals are blocked no more than they were before us.
    pub(crate) fn unblock(&self) {
        let before = &raw const self.before.0;
        // SAFETY: the set was filled by the kernel and lives in `self`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
    }

    /// The next break that was told; `None` when there is none.
    pub(crate) fn next(&self) -> Option<Break> {
        // SAFETY: a structure of integers may be all zeroes.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        let buffer = (&raw mut info).cast();
        // SAFETY: the kernel writes at most `size` bytes, which the structure has.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), buffer, size) };
        if usize::try_from(read) != Ok(size) {
            return None;
        }
        let is_queued = info.ssi_signo == signal().cast_unsigned();
        Some(if is_queued { Break::Of(info.ssi_fd) } else { Break::Some })
    }
}

impl Drop for Breaks {
    fn drop(&mut self) {
        // One that is still queued would be the end of us.
        while self.next().is_some() {}
        self.unblock();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn an_open_waits_for_the_text_and_a_lease_is_refused_while_somebody_reads() {
        let breaks = Breaks::new().unwrap();
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("file");
        let mut file = File::create(&path).unwrap();
        take(&file).unwrap();
        let opener = path.clone();
        let reader = thread::spawn(move || fs::read_to_string(opener).unwrap());
        poll(&mut [PollFd::new(&breaks, PollFlags::IN)], None).unwrap();
        assert_eq!(breaks.next(), Some(Break::Of(file.as_raw_fd())));
        assert_eq!(breaks.next(), None);
        file.write_all(b"fresh").unwrap();
        release(&file).unwrap();
        assert_eq!(reader.join().unwrap(), "fresh");
        let other = File::open(&path).unwrap();
        assert_eq!(take(&file).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        drop(other);
        take(&file).unwrap();
    }

    /// Which signals this thread has blocked, as the kernel prints it.
    fn blocked() -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("SigBlk:")).unwrap().to_owned()
    }

    #[test]
    fn signals_are_blocked_no_longer_than_breaks_are_told_also_when_one_was_not_read() {
        let before = blocked();
        let breaks = Breaks::new().unwrap();
        assert_ne!(blocked(), before);
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        take(&file).unwrap();
        let reader = thread::spawn(move || File::open(path).unwrap());
        poll(&mut [PollFd::new(&breaks, PollFlags::IN)], None).unwrap();
        drop(file);
        reader.join().unwrap();
        drop(breaks);
        assert_eq!(blocked(), before);
    }
}
