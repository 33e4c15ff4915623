//! Memory of our own, to try the kernel on: which frame is the zero page, what one page costs to
//! move.

use std::io;
use std::ptr::{self, NonNull};

use machine::{AddrRange, BASE_PAGE_BYTES, Bytes};

/// How [`OwnMemory`] is to be backed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Base pages only (`MADV_NOHUGEPAGE`).
    BasePages,
    /// Huge pages where the kernel has them (`MADV_HUGEPAGE`); the range is aligned to 2 MiB.
    HugePages,
}

/// Private anonymous memory that is unmapped when dropped. Nothing in it is ever lent out as a
/// reference, so that the kernel may do with it what it likes. It lies between two pages that
/// nobody may touch, so that the kernel merges no other mapping with it: its range is a line of
/// `/proc/PID/maps` for as long as it lives.
#[derive(Debug)]
pub struct OwnMemory {
    mapped: NonNull<libc::c_void>,
    mapped_bytes: usize,
    range: AddrRange,
}

// SAFETY: the mapping belongs to the process, not to a thread; any thread may unmap it.
unsafe impl Send for OwnMemory {}
// SAFETY: a shared reference only reads; writing takes a unique one.
unsafe impl Sync for OwnMemory {}

impl OwnMemory {
    /// Maps memory and touches none of it.
    ///
    /// # Errors
    ///
    /// What mmap(2), mprotect(2) or madvise(2) says; `EINVAL` for no bytes, and for a size that no address
    /// space has.
    pub fn map(size: Bytes, backing: Backing) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let align = match backing {
            Backing::BasePages => BASE_PAGE_BYTES,
            Backing::HugePages => 2 << 20,
        };
        if size == Bytes::ZERO {
            return Err(invalid());
        }
        // Room to align, and a page before and after.
        let whole = size.get().checked_add(align + BASE_PAGE_BYTES).ok_or_else(invalid)?;
        let mapped_bytes = usize::try_from(whole).map_err(|_| invalid())?;
        let bytes = usize::try_from(size.get()).map_err(|_| invalid())?;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no
        // memory that exists.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(mapped).ok_or_else(invalid)?;
        let start = (mapped.addr().get() as u64 + BASE_PAGE_BYTES).next_multiple_of(align);
        let range = AddrRange::new(start, start + size.get()).ok_or_else(invalid)?;
        let memory = Self { mapped, mapped_bytes, range };
        let first = memory.pointer(start).cast();
        // SAFETY: the range lies within our own mapping, which nothing points into yet.
        if unsafe { libc::mprotect(first, bytes, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let advice = match backing {
            Backing::BasePages => libc::MADV_NOHUGEPAGE,
            Backing::HugePages => libc::MADV_HUGEPAGE,
        };
        // SAFETY: the range is our own memory, and both advices leave its contents alone.
        let advised = unsafe { libc::madvise(first, bytes, advice) };
        // EINVAL: this kernel was built without huge pages, so base pages are all there is.
        match io::Error::last_os_error() {
            error if advised != 0 && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(memory),
        }
    }

    /// Its addresses.
    #[must_use]
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// Reads the byte at `address`, as a program would: an untouched page becomes the zero page.
    ///
    /// # Panics
    ///
    /// When `address` is outside the range.
    #[must_use]
    pub fn read(&self, address: u64) -> u8 {
        // SAFETY: `pointer` asserts that the address is in our mapping, which is readable;
        // volatile, since the kernel changes what backs it.
        unsafe { self.pointer(address).read_volatile() }
    }

    /// Writes the byte at `address`: the page becomes one of our own.
    ///
    /// # Panics
    ///
    /// When `address` is outside the range.
    pub fn write(&mut self, address: u64, byte: u8) {
        // SAFETY: as for `read`; the mapping is writable, and `self` is the only way to it.
        unsafe { self.pointer(address).write_volatile(byte) };
    }

    fn pointer(&self, address: u64) -> *mut u8 {
        assert!(self.range.contains(address), "{address:#x} is outside {}", self.range);
        let offset = address - self.mapped.addr().get() as u64;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.mapped.as_ptr().cast::<u8>().wrapping_add(offset)
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, was made with this length, and is not used after.
        unsafe { libc::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::Root;
    use crate::proc::maps;

    #[test]
    fn what_is_written_is_read_back_and_the_rest_is_zero() {
        let mut memory = OwnMemory::map(Bytes::new(8192), Backing::BasePages).unwrap();
        let start = memory.range().start();
        memory.write(start + 5000, 7);
        assert_eq!((memory.read(start), memory.read(start + 5000)), (0, 7));
    }

    #[test]
    fn memory_for_huge_pages_begins_at_one() {
        let memory = OwnMemory::map(Bytes::new(4 << 20), Backing::HugePages).unwrap();
        assert_eq!(memory.range().start() % (2 << 20), 0);
        assert_eq!(memory.range().bytes(), Bytes::new(4 << 20));
    }

    #[test]
    fn its_range_is_a_mapping_of_its_own_whatever_is_mapped_beside_it() {
        let memories: Vec<_> =
            iter::repeat_with(|| OwnMemory::map(Bytes::new(8192), Backing::BasePages))
                .map(Result::unwrap)
                .take(20)
                .collect();
        let mapped = maps::read(&Root::default(), std::process::id()).unwrap();
        for memory in &memories {
            assert!(mapped.iter().any(|mapping| mapping.range == memory.range()));
        }
    }

    #[test]
    fn no_bytes_and_too_many_are_refused() {
        for size in [0, u64::MAX, u64::MAX - (4 << 20)] {
            for backing in [Backing::BasePages, Backing::HugePages] {
                assert!(OwnMemory::map(Bytes::new(size), backing).is_err(), "{size}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn an_address_of_somebody_else_is_not_read() {
        let memory = OwnMemory::map(Bytes::new(4096), Backing::BasePages).unwrap();
        let _ = memory.read(memory.range().end());
    }
}
