//! Memory of a scenario's process: mapped, protected, touched, pinned. Addresses are those that
//! the scenario names.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use linux::Errno;

use super::{last_errno, number_or_errno};

const PAGE: usize = 4096;
/// The first byte of each page that was written. The others are its content.
const WRITTEN: u8 = 1;

/// What is behind a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backing<'f> {
    /// Nothing: it is anonymous.
    Anonymous {
        /// With children.
        shared: bool,
        /// Of 2 MiB pages of a hugetlb pool.
        hugetlb: bool,
    },
    /// A file, from its first byte on.
    File {
        /// The file.
        file: BorrowedFd<'f>,
        /// Writes go to the file.
        shared: bool,
    },
}

/// What a process may do with its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rights {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl Rights {
    const fn bits(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// The log of a page size, as mmap(2) wants it.
const HUGE_2MB: i32 = 21 << 26;

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(length(address))
}

/// Maps memory at an address where nothing is mapped.
///
/// # Errors
///
/// What mmap(2) says; `EEXIST` when something is there.
pub(crate) fn map(address: u64, bytes: u64, backing: Backing<'_>) -> Result<(), Errno> {
    let (flags, file) = match backing {
        Backing::Anonymous { shared, hugetlb } => {
            let huge = if hugetlb { libc::MAP_HUGETLB | HUGE_2MB } else { 0 };
            (libc::MAP_ANONYMOUS | huge | sharing(shared), -1)
        }
        Backing::File { file, shared } => (sharing(shared), file.as_raw_fd()),
    };
    let rights = Rights::ReadWrite.bits();
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping, which with MAP_FIXED_NOREPLACE takes the place of none.
    let mapped = unsafe { libc::mmap(pointer(address), length(bytes), rights, flags, file, 0) };
    if mapped == libc::MAP_FAILED { Err(last_errno()) } else { Ok(()) }
}

const fn sharing(shared: bool) -> i32 {
    if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE }
}

/// mprotect(2).
pub(crate) fn protect(address: u64, bytes: u64, rights: Rights) -> Result<(), Errno> {
    // SAFETY: the scenario's own memory: see the module `sys`.
    let result = unsafe { libc::mprotect(pointer(address), length(bytes), rights.bits()) };
    number_or_errno(result.into()).map(drop)
}

/// mlock(2).
pub(crate) fn lock(address: u64, bytes: u64) -> Result<(), Errno> {
    // SAFETY: changes when pages are reclaimed, never what they hold.
    let result = unsafe { libc::mlock(pointer(address), length(bytes)) };
    number_or_errno(result.into()).map(drop)
}

/// mlock2(2) with MLOCK_ONFAULT.
pub(crate) fn lock_on_fault(address: u64, bytes: u64) -> Result<(), Errno> {
    // SAFETY: as for `lock`.
    let result = unsafe { libc::mlock2(pointer(address), length(bytes), libc::MLOCK_ONFAULT) };
    number_or_errno(result.into()).map(drop)
}

/// munmap(2).
pub(crate) fn unmap(address: u64, bytes: u64) -> Result<(), Errno> {
    // SAFETY: the scenario's own memory: see the module `sys`.
    let result = unsafe { libc::munmap(pointer(address), length(bytes)) };
    number_or_errno(result.into()).map(drop)
}

/// madvise(2).
pub(crate) fn advise(address: u64, bytes: u64, advice: i32) -> Result<(), Errno> {
    // SAFETY: the scenario's own memory: see the module `sys`.
    let result = unsafe { libc::madvise(pointer(address), length(bytes), advice) };
    number_or_errno(result.into()).map(drop)
}

/// Has the process own every page of a range that it may write, as by writing what is there.
pub(crate) fn populate_for_writing(address: u64, bytes: u64) -> Result<(), Errno> {
    advise(address, bytes, libc::MADV_POPULATE_WRITE)
}

/// The page of an address.
fn page<T>(address: u64) -> *mut T {
    pointer(address & !(PAGE as u64 - 1))
}

/// Writes to a page, and leaves its content.
///
/// A plain store to a byte that belongs to no content: any instruction that reads first, a locked
/// one too where one thread emulates all CPUs, would fault in the zero page.
pub(crate) fn touch(address: u64) {
    // SAFETY: the kernel refuses an address that is not the process's to write by a signal. See the
    // module `sys` for what a scenario may name.
    unsafe { page::<u8>(address).write_volatile(WRITTEN) };
}

/// Reads one byte.
pub(crate) fn read(address: u64) -> u8 {
    // SAFETY: as for `touch`; volatile, since the read is what is wanted.
    unsafe { pointer::<u8>(address).read_volatile() }
}

/// Fills a page.
pub(crate) fn store(address: u64, byte: u8) {
    touch(address);
    let content = page::<u8>(address).wrapping_add(1);
    // SAFETY: as for `touch`; all but the first byte of the page.
    unsafe { ptr::write_bytes(content, byte, PAGE - 1) };
}

/// Whether a page is filled with this byte.
pub(crate) fn check(address: u64, byte: u8) -> bool {
    // SAFETY: as for `touch`; nothing writes to the page meanwhile, since one process acts at a
    // time, and migration does not change what a page holds: that is what is checked.
    let held = unsafe { std::slice::from_raw_parts(page::<u8>(address).cast_const(), PAGE) };
    held[1..].iter().all(|&held| held == byte)
}

/// Takes one more reference to the page at `address`, by vmsplice(2) of a byte into a pipe.
///
/// # Errors
///
/// What vmsplice(2) says; `EAGAIN` when the pipe is full.
pub(crate) fn pin(address: u64, pipe: BorrowedFd<'_>) -> Result<(), Errno> {
    let byte = libc::iovec { iov_base: pointer(address), iov_len: 1 };
    // SAFETY: the kernel reads one `iovec`, which outlives the call, and takes a reference to a
    // page; it looks the address up and refuses a bad one. The byte may change later.
    let result = unsafe { libc::vmsplice(pipe.as_raw_fd(), &byte, 1, libc::SPLICE_F_NONBLOCK) };
    number_or_errno(i64::try_from(result).unwrap_or(-1)).map(drop)
}

/// memfd_secret(2).
///
/// # Errors
///
/// `ENOSYS`: the kernel was booted without it.
pub(crate) fn secret_file() -> Result<OwnedFd, Errno> {
    // SAFETY: takes flags alone.
    let fd = number_or_errno(unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
