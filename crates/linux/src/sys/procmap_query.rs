//! The `PROCMAP_QUERY` ioctl of `/proc/PID/maps` (Linux 6.11): one mapping, found by the kernel, instead
//! of a line of text for each.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// What a mapping is to be like, as `PROCMAP_QUERY_VMA_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct MappingFlags(u64);

impl MappingFlags {
    /// The process may write to it, and what it writes others see: `rw-s` or the like in maps.
    pub const WRITABLE_SHARED: Self = Self(1 << 1 | 1 << 3);
}

/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
const COVERING_OR_NEXT: u64 = 1 << 4;

/// `struct procmap_query` of include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const PROCMAP_QUERY: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<Query>(b'f', 17);

/// `ioctl(maps, PROCMAP_QUERY, ...)`: the first and the last address, this one not included, of the
/// first mapping that ends behind `from` and has all of `flags`.
///
/// # Errors
///
/// - `ENOENT`: there is none.
/// - `ENOTTY`: the kernel is older than 6.11.
/// - `ESRCH`: the process has exited.
///
/// Source: kernel, include/uapi/linux/fs.h and fs/proc/task_mmu.c, `do_procmap_query`.
#[doc(alias = "PROCMAP_QUERY")]
pub fn procmap_query(maps: impl AsFd, from: u64, flags: MappingFlags) -> io::Result<(u64, u64)> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT | flags.0,
        query_addr: from,
        ..Query::default()
    };
    // SAFETY: `query` has the layout and, in `size`, the length that the kernel expects, and lives until
    // after the call. With no room for a name and a build id the kernel writes nothing else. On a file
    // that is no maps the number means nothing to the driver, or another ioctl of type 'f' and size
    // 104, of which there is none.
    let result = unsafe {
        libc::ioctl(
            maps.as_fd().as_raw_fd(),
            PROCMAP_QUERY as libc::Ioctl,
            ptr::from_mut(&mut query),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((query.vma_start, query.vma_end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_opcode_is_the_one_of_the_kernel_header() {
        assert_eq!(PROCMAP_QUERY, 0xC068_6611);
    }

    #[test]
    fn a_shared_mapping_is_found_and_a_private_one_passed_over_where_the_kernel_can() {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let maps = File::open("/proc/self/maps").unwrap();
        for (flags, is_found) in [(libc::MAP_SHARED, true), (libc::MAP_PRIVATE, false)] {
            let flags = flags | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping, at an address of the kernel's choice.
            let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            let address = page.addr() as u64;
            let found = match procmap_query(&maps, address, MappingFlags::WRITABLE_SHARED) {
                Ok((start, end)) => (start..end).contains(&address),
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => return,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
                    false
                }
            };
            assert_eq!(found, is_found);
            // SAFETY: the mapping is ours, and nothing refers to it.
            unsafe { libc::munmap(page, 4096) };
        }
    }

    #[test]
    fn another_file_is_no_place_to_ask() {
        let file = File::open("/proc/self/stat").unwrap();
        let error = procmap_query(&file, 0, MappingFlags::WRITABLE_SHARED).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
