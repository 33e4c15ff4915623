//! The listener of a seccomp filter: receive a call, answer it, install a descriptor for it.
//!
//! Traps: RECV blocks whatever `O_NONBLOCK` says, so poll first. ENOENT from RECV, SEND and ADDFD
//! only says that the caller is gone. The kernel wants the received structure zeroed.
//!
//! Source: seccomp_unotify(2); kernel, include/uapi/linux/seccomp.h and kernel/seccomp.c.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::call::{Answer, Call};

/// `struct seccomp_notif`, with the `struct seccomp_data` at its end.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const RECV: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<Notification>(b'!', 0);
const SEND: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<Response>(b'!', 1);
const ADDFD: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<AddFd>(b'!', 3);
const SET_FLAGS: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<u64>(b'!', 4);

const RESPONSE_CONTINUE: u32 = 1;
const ADDFD_SEND: u32 = 1 << 1;
const SYNC_WAKE_UP: u64 = 1;

/// The descriptor that calls are received from.
#[derive(Debug)]
pub(crate) struct Listener {
    descriptor: OwnedFd,
    /// Where the kernel writes a call: a page of its own, which forked processes share. There is no
    /// moment at which a call is received and not written here yet.
    received: NonNull<Notification>,
    /// How it wakes; `None`: it cannot be told.
    wakes_here: Option<bool>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Listener {
    /// Takes a listener into use.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no page is left.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let size = size_of::<Notification>();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
        let received = NonNull::new(page.cast()).filter(|_| page != libc::MAP_FAILED);
        let received = received.ok_or_else(io::Error::last_os_error)?;
        Ok(Self { descriptor, received, wakes_here: Some(false) })
    }

    /// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`: whether a caller that is answered is woken on this CPU, and we on
    /// that of who calls next; or each where the scheduler wants it, as always before 6.6.
    pub(crate) fn wake_here(&mut self, here: bool) {
        if self.wakes_here.is_none_or(|before| before == here) {
            return;
        }
        let flags = if here { SYNC_WAKE_UP } else { 0 };
        // SAFETY: this ioctl takes its flags by value, and only changes how the listener wakes.
        let result = unsafe { libc::ioctl(self.raw(), SET_FLAGS as libc::Ioctl, flags) };
        if result == 0 {
            self.wakes_here = Some(here);
        } else if io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            self.wakes_here = None;
        }
        // EINTR: it wakes as it did, and is told again by the next call.
    }

    fn raw(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }

    /// `SECCOMP_IOCTL_NOTIF_RECV`: the next call. Blocks when there is none.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the caller went away. `EINTR`: a signal came.
    pub(crate) fn receive(&self) -> io::Result<Call> {
        let received = self.received.as_ptr();
        // SAFETY: it is mapped and aligned, and nothing refers to it.
        unsafe { received.write_volatile(Notification::default()) };
        // SAFETY: the kernel writes one `seccomp_notif`, whose layout this structure has.
        let result = unsafe { libc::ioctl(self.raw(), RECV as libc::Ioctl, received) };
        if result == 0 { Ok(self.last()) } else { Err(io::Error::last_os_error()) }
    }

    /// The call that was received last, also by a process that has shared this listener by fork: its
    /// `id` is 0 if there is none.
    pub(crate) fn last(&self) -> Call {
        // SAFETY: it is mapped, aligned, and of integers only, for which all values are valid.
        let notification = unsafe { self.received.as_ptr().read_volatile() };
        Call {
            id: notification.id,
            tid: notification.pid,
            arch: notification.arch,
            number: i64::from(notification.number),
            args: notification.args,
        }
    }

    /// `SECCOMP_IOCTL_NOTIF_SEND`: answers a call.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the caller went away.
    pub(crate) fn send(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (value, error, flags) = match answer {
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
            Answer::Continue => (0, 0, RESPONSE_CONTINUE),
            Answer::Sent => return Ok(()),
        };
        let mut response = Response { id, value, error, flags };
        // SAFETY: the kernel reads one `seccomp_notif_resp`, whose layout this structure has.
        let result = unsafe {
            libc::ioctl(self.raw(), SEND as libc::Ioctl, std::ptr::from_mut(&mut response))
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `SECCOMP_IOCTL_NOTIF_ADDFD` with `ADDFD_FLAG_SEND` (5.14): gives the caller a copy of
    /// `descriptor`, whose number is the call's result.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the caller went away. `EMFILE`: it has no room. `EINVAL`: the kernel is too old.
    pub(crate) fn send_descriptor(
        &self,
        id: u64,
        descriptor: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let source = descriptor.as_raw_fd().cast_unsigned();
        let target_flags = if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
        let mut add = AddFd { id, flags: ADDFD_SEND, source, target: 0, target_flags };
        // SAFETY: the kernel reads one `seccomp_notif_addfd`, whose layout this structure has; the
        // descriptor is open for as long as it is borrowed.
        let result =
            unsafe { libc::ioctl(self.raw(), ADDFD as libc::Ioctl, std::ptr::from_mut(&mut add)) };
        if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this size, and nobody else refers to it.
        unsafe { libc::munmap(self.received.as_ptr().cast(), size_of::<Notification>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opcodes_are_those_of_the_kernel_header() {
        assert_eq!(size_of::<Notification>(), 80);
        assert_eq!(RECV, 0xC050_2100);
        assert_eq!(SEND, 0xC018_2101);
        assert_eq!(ADDFD, 0x4018_2103);
        assert_eq!(SET_FLAGS, 0x4008_2104);
    }
}
