//! Every unsafe call of the subject, one function each. Answers are the kernel's: a value, or the
//! errno by number.

#![allow(unsafe_code, reason = "raw memory and NUMA system calls; nothing else here has any")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::io;
use std::ptr;

pub(crate) const PAGE: usize = 4096;
/// `MPOL_MF_MOVE`.
const MOVE: c_int = 2;

unsafe extern "C" {
    /// glibc 2.29; libc 0.2 has no declaration of it.
    fn getcpu(cpu: *mut c_uint, node: *mut c_uint) -> c_int;
}

/// Memory that lives until the end of the program, unless it is unmapped by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) start: usize,
    pub(crate) pages: usize,
}

/// `Err` is an errno.
pub(crate) type Answer = Result<i64, c_int>;

fn answer(result: c_long) -> Answer {
    if result >= 0 { Ok(result) } else { Err(errno()) }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn at(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// Maps memory: at `start` if that is not 0, replacing what is there.
pub(crate) fn map(start: usize, bytes: usize, is_shared: bool) -> Result<usize, c_int> {
    let sharing = if is_shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let fixed = if start == 0 { 0 } else { libc::MAP_FIXED };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, or in place of an area of ours to
    // which no reference exists: areas are only touched through volatile accesses.
    let mapped = unsafe {
        libc::mmap(at(start), bytes, protection, sharing | fixed | libc::MAP_ANONYMOUS, -1, 0)
    };
    if mapped == libc::MAP_FAILED { Err(errno()) } else { Ok(mapped.expose_provenance()) }
}

pub(crate) fn unmap(area: Area) -> Answer {
    // SAFETY: an area of ours, to which no reference exists.
    answer(unsafe { libc::munmap(at(area.start), area.pages * PAGE) }.into())
}

pub(crate) fn advise(area: Area, advice: c_int) -> Answer {
    // SAFETY: an area of ours, whose contents nobody relies on.
    answer(unsafe { libc::madvise(at(area.start), area.pages * PAGE, advice) }.into())
}

/// Moves an area to a place that is `pages` long, elsewhere.
pub(crate) fn stretch(area: Area, pages: usize) -> Result<usize, c_int> {
    // SAFETY: an area of ours, to which no reference exists.
    let moved = unsafe {
        libc::mremap(at(area.start), area.pages * PAGE, pages * PAGE, libc::MREMAP_MAYMOVE)
    };
    if moved == libc::MAP_FAILED { Err(errno()) } else { Ok(moved.expose_provenance()) }
}

pub(crate) fn write(address: usize) {
    // SAFETY: an address in an area of ours, which is writable; volatile, for others see it too.
    unsafe { at(address).cast::<u8>().write_volatile(1) };
}

pub(crate) fn read(address: usize) {
    // SAFETY: an address in an area of ours, which is readable.
    unsafe { at(address).cast::<u8>().read_volatile() };
}

/// `nodes`: where each page shall go; `None` only asks.
pub(crate) fn move_pages(area: Area, node: Option<c_int>, status: &mut [c_int]) -> Answer {
    let pages: Vec<usize> = (0..area.pages).map(|page| area.start + page * PAGE).collect();
    let nodes: Vec<c_int> = node.into_iter().cycle().take(pages.len()).collect();
    let nodes = if node.is_some() { nodes.as_ptr() } else { ptr::null() };
    assert_eq!(status.len(), pages.len(), "a status word for each page");
    // SAFETY: the three arrays have as many entries as the kernel is told, or are null.
    answer(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            nodes,
            status.as_mut_ptr(),
            MOVE,
        )
    })
}

pub(crate) fn migrate_pages(from: u64, to: u64) -> Answer {
    // SAFETY: the kernel reads 64 bits of each mask.
    answer(unsafe {
        libc::syscall(libc::SYS_migrate_pages, 0, 65, ptr::from_ref(&from), ptr::from_ref(&to))
    })
}

pub(crate) fn set_mempolicy(mode: c_int, nodes: u64) -> Answer {
    // SAFETY: the kernel reads 64 bits of the mask.
    answer(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, ptr::from_ref(&nodes), 65) })
}

pub(crate) fn mbind(area: Area, mode: c_int, nodes: u64, flags: c_uint) -> Answer {
    let bytes = area.pages * PAGE;
    // SAFETY: the kernel reads 64 bits of the mask; the area is ours, and keeps its contents.
    answer(unsafe {
        libc::syscall(libc::SYS_mbind, area.start, bytes, mode, ptr::from_ref(&nodes), 65, flags)
    })
}

/// Mode and nodes of the thread's policy.
pub(crate) fn get_mempolicy() -> Result<(c_int, u64), c_int> {
    let (mut mode, mut nodes) = (0, [0u64; 16]);
    // SAFETY: the kernel writes an int and 1024 bits.
    answer(unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            ptr::from_mut::<c_int>(&mut mode),
            nodes.as_mut_ptr(),
            1025,
            0,
            0,
        )
    })?;
    Ok((mode, nodes[0]))
}

/// `MPOL_F_NODE | MPOL_F_ADDR`.
pub(crate) fn node_of(address: usize) -> Result<c_int, c_int> {
    let mut node = 0;
    // SAFETY: the kernel writes an int, and faults in a page of ours.
    answer(unsafe {
        libc::syscall(libc::SYS_get_mempolicy, ptr::from_mut::<c_int>(&mut node), 0, 0, address, 3)
    })?;
    Ok(node)
}

/// getcpu(2) by the vDSO, and sched_getcpu(3).
pub(crate) fn cpu() -> (c_uint, c_uint, c_int) {
    let (mut cpu, mut node) = (0, 0);
    // SAFETY: two unsigned ints are written.
    unsafe { getcpu(&raw mut cpu, &raw mut node) };
    // SAFETY: takes nothing.
    (cpu, node, unsafe { libc::sched_getcpu() })
}

pub(crate) fn set_affinity(cpus: u64) -> Answer {
    // SAFETY: the kernel reads 8 bytes.
    answer(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, 8, ptr::from_ref(&cpus)) })
}

pub(crate) fn affinity() -> Result<u64, c_int> {
    let mut cpus = 0u64;
    // SAFETY: the kernel writes at most 8 bytes.
    answer(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, 8, ptr::from_mut(&mut cpus)) })?;
    Ok(cpus)
}

/// Runs `body` in a child, and waits for it.
pub(crate) fn in_child(body: impl FnOnce()) {
    // SAFETY: called by the only thread; the child runs `body`, ends, and returns to nobody.
    match unsafe { libc::fork() } {
        0 => {
            body();
            std::process::exit(0)
        }
        child => {
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        }
    }
}

pub(crate) fn kill_self(signal: c_int) {
    // SAFETY: a signal to ourselves ends us, or does nothing.
    unsafe { libc::raise(signal) };
}
