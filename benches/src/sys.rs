//! Every unsafe line of the benches: what a program does that `pagetide run` is measured with, and a
//! supervisor that knows one answer.
//!
//! Source: seccomp_unotify(2); kernel, include/uapi/linux/seccomp.h.

#![allow(unsafe_code, reason = "raw memory, NUMA system calls and seccomp; nothing else has any")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

const PAGE: usize = 4096;
/// `MPOL_MF_MOVE`.
const MOVE: libc::c_int = 2;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Maps a page, writes to it, and unmaps it.
pub(crate) fn map_touch_unmap() -> io::Result<()> {
    let area = Area::map(1)?;
    area.touch();
    Ok(())
}

/// get_mempolicy(2) of this thread, without a mask.
pub(crate) fn get_mempolicy() -> io::Result<()> {
    let mut mode: libc::c_int = 0;
    let (no_mask, no_address) = (ptr::null_mut::<libc::c_ulong>(), ptr::null_mut::<libc::c_void>());
    // SAFETY: the kernel writes one int; no mask and no address are given.
    let result =
        unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, no_mask, 0, no_address, 0) };
    check(result).map(drop)
}

/// Private anonymous memory.
pub(crate) struct Area {
    start: *mut u8,
    pages: usize,
}

impl Area {
    pub(crate) fn map(pages: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area = Self { start: start.cast(), pages };
        // SAFETY: memory of ours; small pages are asked for.
        unsafe { libc::madvise(start, pages * PAGE, libc::MADV_NOHUGEPAGE) };
        Ok(area)
    }

    pub(crate) fn touch(&self) {
        for page in 0..self.pages {
            // SAFETY: inside the mapping, to which there is no reference.
            unsafe { self.start.wrapping_add(page * PAGE).write_volatile(1) };
        }
    }

    /// move_pages(2) of all its pages to `node`; how many are there then.
    pub(crate) fn move_to(&self, node: libc::c_int) -> io::Result<usize> {
        let addresses: Vec<*mut u8> =
            (0..self.pages).map(|page| self.start.wrapping_add(page * PAGE)).collect();
        let nodes = vec![node; self.pages];
        let mut status = vec![-1; self.pages];
        // SAFETY: the three arrays have `pages` entries each and outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                self.pages,
                addresses.as_ptr(),
                nodes.as_ptr(),
                status.as_mut_ptr(),
                MOVE,
            )
        };
        check(result)?;
        Ok(status.iter().filter(|&&word| word == node).count())
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody else refers to it.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}

/// CPU time of all children that were waited for, in seconds.
pub(crate) fn children_seconds() -> f64 {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one rusage.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[repr(C)]
struct Notification {
    id: u64,
    rest: [u64; 9],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECV: u64 = 0xC050_2100;
const SEND: u64 = 0xC018_2101;
const SET_FLAGS: u64 = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;

/// Hands every get_mempolicy of this thread and its descendants to the descriptor that it returns.
pub(crate) fn intercept_get_mempolicy() -> io::Result<OwnedFd> {
    let number = u32::try_from(libc::SYS_get_mempolicy).map_err(|_| io::ErrorKind::InvalidData)?;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(0x20, 0, 0, 0), // load the number of the call
        step(0x15, 0, 1, number),
        step(0x06, 0, 0, 0x7FC0_0000), // notify
        step(0x06, 0, 0, 0x7FFF_0000), // allow
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: no pointer is passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // SAFETY: the kernel reads the program, which lives until after the call, and copies it.
    let listener =
        check(unsafe { libc::syscall(libc::SYS_seccomp, 1, 1 << 3, &raw const program) })?;
    let listener = RawFd::try_from(listener).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Answers `calls` notified calls with 0, as fast as can be.
pub(crate) fn answer_bare(listener: &OwnedFd, calls: u64) -> io::Result<()> {
    let raw = listener.as_raw_fd();
    // SAFETY: flags are passed by value.
    unsafe { libc::ioctl(raw, SET_FLAGS, SYNC_WAKE_UP) };
    for _ in 0..calls {
        let mut call = Notification { id: 0, rest: [0; 9] };
        // SAFETY: the kernel writes one seccomp_notif, which has this size.
        check(unsafe { libc::ioctl(raw, RECV, &raw mut call) }.into())?;
        let response = Response { id: call.id, value: 0, error: 0, flags: 0 };
        // SAFETY: the kernel reads one seccomp_notif_resp.
        check(unsafe { libc::ioctl(raw, SEND, &raw const response) }.into())?;
    }
    Ok(())
}
