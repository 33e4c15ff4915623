//! Every unsafe call of the target program, one function each, and the memory it holds.
//!
//! Contents are only ever seen as `&[AtomicU64]`: a touch thread, a forked child and the kernel that
//! moves the page all share them, and relaxed atomics are plain moves on the machines we run on.

#![allow(unsafe_code, reason = "raw mappings and NUMA system calls; nothing else here has any")]

use std::ffi::{CStr, c_int, c_long};
use std::fs::File;
use std::hint;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::pattern::PAGE_WORDS;
use crate::spec::{ID_LIMIT, PAGE_BYTES, STACK_LIMIT_BYTES};

/// Room that the main thread keeps below its frames when a stack area is laid under them.
const STACK_GAP_BYTES: usize = 1 << 20;

/// Of mbind(2) and move_pages(2): pages that only we map move. Not in libc; linux/mempolicy.h.
const MPOL_MF_MOVE: c_int = 1 << 1;

/// What lies behind a new mapping.
pub(crate) enum Backing<'a> {
    Anon { is_shared: bool },
    Hugetlb { page_bytes: usize },
    File { file: &'a File, is_shared: bool, is_writable: bool },
}

/// Memory of our own; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: usize,
    bytes: usize,
    /// What [`Drop`] unmaps: the memory and the guards around it; nothing for the stack.
    reserved_start: usize,
    reserved_bytes: usize,
}

impl Mapping {
    /// Maps `bytes` at a multiple of `align`, which is a power of two and no less than a page.
    ///
    /// Inaccessible guards lie on both sides, so that the kernel never merges two areas into one
    /// VMA: a line of /proc/PID/maps is one area.
    pub(crate) fn new(backing: &Backing<'_>, bytes: usize, align: usize) -> io::Result<Self> {
        const WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
        let (protection, flags, fd) = match backing {
            Backing::Anon { is_shared } => (WRITE, sharing(*is_shared) | libc::MAP_ANONYMOUS, -1),
            Backing::Hugetlb { page_bytes } => {
                let size = c_int::try_from(page_bytes.ilog2()).unwrap_or(0) << libc::MAP_HUGE_SHIFT;
                (WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | size, -1)
            }
            Backing::File { file, is_shared, is_writable } => {
                let protection = if *is_writable { WRITE } else { libc::PROT_READ };
                (protection, sharing(*is_shared), file.as_raw_fd())
            }
        };
        let reserved_bytes = bytes + 2 * align;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let reserved_start = mmap(0, reserved_bytes, libc::PROT_NONE, reserve, -1)?;
        let start = (reserved_start + 1).next_multiple_of(align);
        // From here on drop gives everything back, also when the next call fails.
        let mapping = Self { start, bytes, reserved_start, reserved_bytes };
        mmap(start, bytes, protection, flags | libc::MAP_FIXED, fd)?;
        Ok(mapping)
    }

    /// Grows the heap by `bytes`; malloc copes with a break that others move.
    pub(crate) fn on_heap(bytes: usize) -> io::Result<Self> {
        // The area starts on a page of its own, and ends on one for malloc to go on from.
        let brk = sbrk(0)?;
        let start = brk.next_multiple_of(PAGE_BYTES);
        sbrk(start - brk + bytes)?;
        Ok(Self { start, bytes, reserved_start: start, reserved_bytes: bytes })
    }

    /// The main thread's stack, from [`STACK_GAP_BYTES`] below the caller's frame downwards.
    ///
    /// Only for the main thread, whose stack grows on a touch; once, for areas would overlap.
    pub(crate) fn on_stack(bytes: usize) -> io::Result<Self> {
        assert!(bytes <= STACK_LIMIT_BYTES, "the spec refuses more");
        let frame = ptr::from_ref(&bytes).addr();
        let start = (frame & !(PAGE_BYTES - 1)) - STACK_GAP_BYTES - bytes;
        allow_stack_of(2 * STACK_LIMIT_BYTES)?;
        Ok(Self { start, bytes, reserved_start: 0, reserved_bytes: 0 })
    }

    /// Unmaps the last `bytes`, whole pages, of a mapping that [`Self::new`] made.
    pub(crate) fn cut(&mut self, bytes: usize) -> io::Result<()> {
        assert!(bytes < self.bytes && bytes.is_multiple_of(PAGE_BYTES), "cut {bytes} bytes off");
        self.bytes -= bytes;
        // The guard grows over it; drop unmaps that too.
        let guard = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        mmap(self.end(), bytes, libc::PROT_NONE, guard, -1).map(drop)
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn end(&self) -> usize {
        self.start + self.bytes
    }

    /// Base pages.
    pub(crate) fn pages(&self) -> usize {
        self.bytes / PAGE_BYTES
    }

    /// Address of base page number `page`.
    fn address(&self, page: usize) -> usize {
        self.start + page * PAGE_BYTES
    }

    /// The words of base page number `page`. A write to a mapping made without it is a SIGSEGV.
    pub(crate) fn page(&self, page: usize) -> &[AtomicU64] {
        assert!(page < self.pages(), "page {page} of {}", self.pages());
        let words = ptr::with_exposed_provenance::<AtomicU64>(self.address(page));
        // SAFETY: the page lies inside the mapping (asserted), which stays mapped as long as `self`
        // is borrowed, and is aligned to more than 8 bytes. Any bits are a valid AtomicU64, fresh
        // pages read as zero, and everyone who writes them here does it through atomics. Stack
        // areas lie farther below the main thread's frames than those ever reach (STACK_GAP_BYTES).
        unsafe { slice::from_raw_parts(words, PAGE_WORDS) }
    }

    /// `madvise` over the whole mapping.
    pub(crate) fn advise(&self, advice: c_int) -> io::Result<()> {
        self.advise_part(0, self.bytes, advice)
    }

    /// Faults pages in for writing, with an errno where a touch would be a SIGBUS.
    ///
    /// Source: madvise(2), `MADV_POPULATE_WRITE`, Linux 5.14.
    pub(crate) fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.advise_part(offset, bytes, libc::MADV_POPULATE_WRITE)
    }

    fn advise_part(&self, offset: usize, bytes: usize, advice: c_int) -> io::Result<()> {
        assert!(offset + bytes <= self.bytes, "advice past the end");
        let address = ptr::with_exposed_provenance_mut(self.start + offset);
        // SAFETY: the range is ours (asserted). The advices used here (huge pages, read-ahead,
        // populate, fork) change no contents.
        check(unsafe { libc::madvise(address, bytes, advice) }.into()).map(drop)
    }

    /// Locks the pages in memory.
    pub(crate) fn lock(&self, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.bytes, "lock past the end");
        let address = ptr::with_exposed_provenance::<libc::c_void>(self.start + offset);
        // SAFETY: mlock faults pages in and changes no contents.
        check(unsafe { libc::mlock(address, bytes) }.into()).map(drop)
    }

    /// Gives the VMA the mempolicy `MPOL_BIND` to `node`; pages that exist stay where they are.
    pub(crate) fn bind(&self, node: u32) -> io::Result<()> {
        self.mbind(node, 0)
    }

    /// The same, and pages that exist move to `node`.
    pub(crate) fn bind_and_move(&self, node: u32) -> io::Result<()> {
        self.mbind(node, MPOL_MF_MOVE)
    }

    fn mbind(&self, node: u32, flags: c_int) -> io::Result<()> {
        let mask = mask_of(&[node]);
        let bits = libc::c_ulong::from(ID_LIMIT) + 1;
        // SAFETY: the kernel reads `bits - 1` bits of `mask`, which has as many (ID_LIMIT), and
        // looks the range up; the flags used here change no contents.
        check(unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start,
                self.bytes,
                libc::MPOL_BIND,
                mask.as_ptr(),
                bits,
                flags,
            )
        })
        .map(drop)
    }

    /// Moves one base page to `node`, in a call of its own.
    ///
    /// Source: move_pages(2).
    pub(crate) fn move_page(&self, page: usize, node: c_int) -> io::Result<()> {
        let (address, mut status) = (self.address(page), c_int::MIN);
        // SAFETY: the three arrays have one entry each and outlive the call; pid 0 is us, and a move
        // changes no contents.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                1_usize,
                &raw const address,
                &raw const node,
                &raw mut status,
                MPOL_MF_MOVE,
            )
        })?;
        if status == node { Ok(()) } else { Err(io::Error::from_raw_os_error(-status)) }
    }

    /// Moves each page to the node at its place in `nodes`, all in one call. Where neighbours go to
    /// different nodes, the kernel migrates each page alone.
    ///
    /// Source: move_pages(2); kernel, mm/migrate.c (`do_pages_move`).
    pub(crate) fn move_each(&self, nodes: &[c_int]) -> io::Result<()> {
        let addresses: Vec<usize> = (0..self.pages()).map(|page| self.address(page)).collect();
        assert_eq!(nodes.len(), addresses.len(), "a node for each page");
        let mut status = vec![c_int::MIN; addresses.len()];
        // SAFETY: the three arrays have `addresses.len()` entries (asserted) and outlive the call; pid
        // 0 is us, and a move changes no contents.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                addresses.len(),
                addresses.as_ptr(),
                nodes.as_ptr(),
                status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        })?;
        match status.iter().zip(nodes).find(|(got, wanted)| got != wanted) {
            None => Ok(()),
            Some((got, _)) => Err(io::Error::from_raw_os_error(-got)),
        }
    }

    /// The status word of each base page: its node, or a negated errno. Moves nothing.
    ///
    /// Source: move_pages(2) with `nodes` null.
    pub(crate) fn status_words(&self) -> io::Result<Vec<c_int>> {
        let addresses: Vec<usize> = (0..self.pages()).map(|page| self.address(page)).collect();
        let mut status = vec![c_int::MIN; addresses.len()];
        // SAFETY: both arrays have `addresses.len()` entries and outlive the call; pid 0 is us, and
        // a null `nodes` only asks.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                addresses.len(),
                addresses.as_ptr(),
                ptr::null::<c_int>(),
                status.as_mut_ptr(),
                0,
            )
        })?;
        Ok(status)
    }

    /// Puts a reference to each of these base pages into `pipe`; gives how many it took.
    ///
    /// Source: vmsplice(2). The pipe holds the pages themselves, not copies.
    pub(crate) fn splice_into(&self, pages: &[usize], pipe: &impl AsFd) -> io::Result<usize> {
        assert!(pages.iter().all(|page| *page < self.pages()), "page past the end");
        let parts: Vec<libc::iovec> = pages
            .iter()
            .map(|page| libc::iovec {
                iov_base: ptr::with_exposed_provenance_mut(self.address(*page)),
                iov_len: PAGE_BYTES,
            })
            .collect();
        let fd = pipe.as_fd().as_raw_fd();
        // SAFETY: each part is a page of ours (asserted), which the kernel only reads; `parts`
        // outlives the call. Unmapping while the pipe lives is harmless: it has its own references.
        let taken = check(unsafe {
            libc::vmsplice(fd, parts.as_ptr(), parts.len(), libc::SPLICE_F_NONBLOCK)
        } as c_long)?;
        Ok(taken / PAGE_BYTES)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.reserved_bytes == 0 {
            return;
        }
        let address = ptr::with_exposed_provenance_mut(self.reserved_start);
        // SAFETY: the range is this mapping's own, and no borrow of its words outlives `self`.
        let result = unsafe { libc::munmap(address, self.reserved_bytes) };
        debug_assert_eq!(result, 0, "munmap of a range of our own");
    }
}

fn sharing(is_shared: bool) -> c_int {
    if is_shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE }
}

fn mmap(
    address: usize,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
) -> io::Result<usize> {
    let hint = ptr::without_provenance_mut(address);
    // SAFETY: without MAP_FIXED the kernel picks unused addresses; with it, the only caller gives
    // the inside of a reservation that it has just made and nobody knows of.
    let start = unsafe { libc::mmap(hint, bytes, protection, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(start.expose_provenance())
    }
}

/// Moves the program break up; gives where it was.
fn sbrk(bytes: usize) -> io::Result<usize> {
    let bytes = isize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    // SAFETY: the break only grows, so no memory of malloc goes away; glibc's malloc asks for the
    // break before it extends its arena and skips what others have taken.
    let old = unsafe { libc::sbrk(bytes) };
    if old.addr() == usize::MAX {
        Err(io::Error::last_os_error())
    } else {
        Ok(old.expose_provenance())
    }
}

/// Raises the soft limit of the stack to `bytes`, which the kernel asks for on each growth.
fn allow_stack_of(bytes: usize) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into a live one.
    check(unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) }.into())?;
    limit.rlim_cur = limit.rlim_cur.max(bytes as libc::rlim_t).min(limit.rlim_max);
    // SAFETY: the kernel reads one rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) }.into()).map(drop)
}

/// The thread's mempolicy: bound to `node`, or the default again.
pub(crate) fn set_thread_policy(node: Option<u32>) -> io::Result<()> {
    let mask = mask_of(node.as_slice());
    let (mode, mask, bits) = match node {
        Some(_) => (libc::MPOL_BIND, mask.as_ptr(), libc::c_ulong::from(ID_LIMIT) + 1),
        None => (libc::MPOL_DEFAULT, ptr::null(), 0),
    };
    // SAFETY: the kernel reads `bits - 1` bits of a mask that has as many, or none of a null one.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Empties the per-CPU batches of pages on their way to the LRU, on every CPU.
///
/// Source: kernel, mm/migrate.c, `do_pages_move`, which begins with `lru_cache_disable`; a call that
/// names no page does nothing else.
pub(crate) fn empty_lru_batches() -> io::Result<()> {
    let (page, node, mut status): (usize, c_int, c_int) = (0, 0, 0);
    // SAFETY: with a count of 0 the kernel reads and writes nothing through the pointers, which are
    // of live variables all the same; pid 0 is us.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            0,
            &raw const page,
            &raw const node,
            &raw mut status,
            0,
        )
    })
    .map(drop)
}

/// For how long the calling thread has run: what the scheduler counts, and balancing goes by.
pub(crate) fn thread_cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into a live one.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }.into())?;
    let part = |number: c_long| u64::try_from(number).unwrap_or(0);
    Ok(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
}

/// Lets the calling thread run on `cpus` alone.
pub(crate) fn set_affinity(cpus: &[u32]) -> io::Result<()> {
    let mask = mask_of(cpus);
    // SAFETY: the kernel reads as many bytes as the mask has; pid 0 is this thread.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr())
    })
    .map(drop)
}

/// Sets the name of the calling thread; that of the main thread is the process's comm.
pub(crate) fn set_thread_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel reads up to 16 bytes of a string that ends with a zero byte.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }.into()).map(drop)
}

/// Becomes user and group `uid`, of no other group, for good.
pub(crate) fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: no groups are read.
    check(unsafe { libc::setgroups(0, ptr::null()) }.into())?;
    // SAFETY: takes a number.
    check(unsafe { libc::setgid(uid) }.into())?;
    // SAFETY: takes a number.
    check(unsafe { libc::setuid(uid) }.into()).map(drop)
}

/// An empty file in memory.
pub(crate) fn memfd(name: &CStr) -> io::Result<File> {
    // SAFETY: the kernel reads a string that ends with a zero byte.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?;
    let fd = c_int::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Makes room for `bytes` in a pipe.
pub(crate) fn set_pipe_bytes(pipe: &impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes a descriptor that is open as long as `pipe` is borrowed, and a number.
    check(unsafe { libc::fcntl(pipe.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }.into())
        .map(drop)
}

/// Forks a child that sleeps until its parent ends; gives its pid once it has touched every page of
/// `shared` (fork leaves the page tables of files and shared memory to be faulted in) and closed
/// every descriptor (pins would else outlive `unpin`, and readers of our stdout our exit).
///
/// Only while the process has one thread. The child dies with the *thread* that forks it.
pub(crate) fn fork_sleeper(shared: &[&Mapping]) -> io::Result<u32> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: there is one thread, so no lock is held that the child would miss.
    let pid = check(unsafe { libc::fork() }.into())?;
    if pid == 0 {
        sleep_until_parent_ends(shared);
    }
    drop(writer);
    reader.read_to_end(&mut Vec::new())?;
    u32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))
}

fn sleep_until_parent_ends(shared: &[&Mapping]) -> ! {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    for mapping in shared {
        for page in 0..mapping.pages() {
            hint::black_box(mapping.page(page)[0].load(Ordering::Relaxed));
        }
    }
    // SAFETY: the child uses no descriptor after this, and never returns to the owners of any.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

/// Lets `command` go on to exec only when its process is `pid`; it dies with its parent.
///
/// Spawning fails with `EAGAIN` when the kernel gave another number.
pub(crate) fn only_as_pid(command: &mut Command, pid: u32) {
    let check_pid = move || {
        if std::process::id() != pid {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        // SAFETY: takes numbers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
    };
    // SAFETY: between fork and exec the closure calls getpid and prctl alone, which are
    // async-signal-safe, and allocates nothing (an errno in io::Error is a plain number).
    unsafe { command.pre_exec(check_pid) };
}

/// A bit for each of `ids`, as the kernel reads masks of nodes and CPUs.
fn mask_of(ids: &[u32]) -> [u64; ID_LIMIT as usize / 64] {
    let mut mask = [0; ID_LIMIT as usize / 64];
    for id in ids {
        mask[*id as usize / 64] |= 1 << (id % 64);
    }
    mask
}

/// The result of a call that answers -1 and sets errno when it fails.
fn check(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

const _: () = assert!(size_of::<AtomicU64>() * PAGE_WORDS == PAGE_BYTES, "pages are whole words");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_one_bit_for_each_id() {
        let mask = mask_of(&[0, 63, 64, ID_LIMIT - 1]);
        assert_eq!((mask[0], mask[1]), (1 << 63 | 1, 1));
        assert_eq!(mask.iter().map(|word| word.count_ones()).sum::<u32>(), 4);
    }

    #[test]
    fn a_mapping_is_aligned_and_reads_as_zero() {
        let mapping = Mapping::new(&Backing::Anon { is_shared: false }, 2 << 20, 2 << 20).unwrap();
        assert_eq!(mapping.start() % (2 << 20), 0);
        assert_eq!(mapping.page(511)[511].load(Ordering::Relaxed), 0);
    }
}
