//! Where the arrays of system calls lie: shared memory with a page that nobody can access behind
//! each drawer, so that an array can be made to end in the middle for the kernel.
//!
//! It is touched before the first scenario, and all processes use the same: one acts at a time.
//! So a call with arrays allocates no memory, which would take a turn of an interleaving policy.

use std::io;
use std::ptr;

const PAGE: usize = 4096;

/// A place for one array.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drawer {
    /// Addresses of pages.
    Pages,
    /// Target nodes.
    Nodes,
    /// Status words.
    Status,
    /// A node mask.
    FirstMask,
    /// A second one.
    SecondMask,
    /// A mode word.
    Mode,
}

/// Drawers with their size in pages.
const DRAWERS: [(Drawer, usize); 6] = [
    (Drawer::Pages, 64),
    (Drawer::Nodes, 32),
    (Drawer::Status, 32),
    (Drawer::FirstMask, 2),
    (Drawer::SecondMask, 2),
    (Drawer::Mode, 1),
];

/// The drawers. Mapped once, for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desk {
    start: usize,
}

impl Desk {
    /// Maps the drawers and touches them.
    ///
    /// # Errors
    ///
    /// What mmap(2) or mprotect(2) says.
    pub(crate) fn map() -> io::Result<Self> {
        let bytes: usize = DRAWERS.iter().map(|(_, pages)| (pages + 1) * PAGE).sum();
        // SAFETY: a new shared anonymous mapping at an address of the kernel's choice touches no
        // memory that exists.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let desk = Self { start: mapped.addr() };
        for (drawer, _) in DRAWERS {
            let (_, end) = desk.bounds(drawer);
            // SAFETY: the page lies in our mapping, behind a drawer, and nothing uses it.
            let guarded = unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(end), PAGE, 0) };
            if guarded != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        mapped.expose_provenance();
        Ok(desk)
    }

    /// First byte of a drawer, and the first behind it.
    fn bounds(self, wanted: Drawer) -> (usize, usize) {
        let mut start = self.start;
        for (drawer, pages) in DRAWERS {
            if drawer as usize == wanted as usize {
                return (start, start + pages * PAGE);
            }
            start += (pages + 1) * PAGE;
        }
        (start, start)
    }

    /// Puts an array into a drawer, whole or so that only its first `cut` bytes can be accessed and
    /// nothing behind them. Its address; `None` when the drawer is too small.
    pub(crate) fn put(self, drawer: Drawer, bytes: &[u8], cut: Option<usize>) -> Option<u64> {
        let visible = cut.unwrap_or(bytes.len()).min(bytes.len());
        let (start, end) = self.bounds(drawer);
        if bytes.len() > end - start {
            return None;
        }
        let start = if cut.is_some() { end - visible } else { start };
        let to = ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: `visible` bytes from `start` on lie in a drawer of our mapping, which is
        // writable; `bytes` has as many, and is no part of a drawer, since those are never lent out.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, visible) };
        Some(start as u64)
    }

    /// The bytes at an address that [`Desk::put`] gave.
    pub(crate) fn get(self, drawer: Drawer, address: u64, length: usize) -> Vec<u8> {
        let (start, end) = self.bounds(drawer);
        let address = usize::try_from(address).unwrap_or(usize::MAX);
        if address < start || address > end || length > end - address {
            return Vec::new();
        }
        let mut bytes = vec![0; length];
        let from = ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the bytes lie in a drawer (checked), which is readable; the kernel may have
        // written them, but no call is under way.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length) };
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_drawer_is_read_back() {
        let desk = Desk::map().unwrap();
        let words = [1, 2, 3, 4, 5];
        let at = desk.put(Drawer::Status, &words, None).unwrap();
        desk.put(Drawer::Nodes, &[9; 100], None).unwrap();
        assert_eq!(desk.get(Drawer::Status, at, 5), words);
    }

    #[test]
    fn an_array_that_is_cut_ends_at_a_page_that_nobody_can_access() {
        let desk = Desk::map().unwrap();
        let at = desk.put(Drawer::Status, &[7; 32], Some(16)).unwrap();
        assert_eq!((at + 16) % 4096, 0);
        let written = crate::sys::call(crate::sys::Call::GetMempolicy, [at + 16, 0, 0, 0, 0, 0]);
        assert_eq!(written, Err(linux::Errno::EFAULT));
        assert_eq!(desk.get(Drawer::Status, at, 16), [7; 16]);
    }

    #[test]
    fn what_is_too_long_for_a_drawer_is_refused() {
        let desk = Desk::map().unwrap();
        assert_eq!(desk.put(Drawer::Mode, &[0; 5000], None), None);
    }
}
