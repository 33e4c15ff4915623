//! The memory of a thread that waits in a call, as the model's system calls read and write it.
//!
//! The model asks word by word, and each word would be a system call of ours. So a read takes the rest
//! of its page along, and writes that follow each other in one page are made together. Protection is a
//! matter of whole pages: whether an access fails, and which, stays as it was.

use std::cell::RefCell;

use model::{BadAddress, UserMemory};

use crate::sys::memory;

const PAGE: u64 = 4096;

/// Bytes of the thread's memory.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        start < self.end() && self.start < end
    }
}

/// A thread that waits. What it is answered is in its memory when this is dropped.
#[derive(Debug)]
pub(crate) struct Caller {
    tid: u32,
    ahead: RefCell<Window>,
    /// Not written yet. The page was found to be writable.
    behind: RefCell<Window>,
}

impl Caller {
    pub(crate) fn new(tid: u32) -> Self {
        Self { tid, ahead: RefCell::default(), behind: RefCell::default() }
    }

    fn flush(&self) -> Result<(), BadAddress> {
        let mut behind = self.behind.borrow_mut();
        let bytes = std::mem::take(&mut behind.bytes);
        let start = std::mem::replace(&mut behind.start, u64::MAX);
        if bytes.is_empty() {
            return Ok(());
        }
        memory::write(self.tid, start, &bytes).map_err(|_| BadAddress)
    }
}

/// Whether bytes lie in one page.
const fn in_one_page(start: u64, end: u64) -> bool {
    start < end && start / PAGE == (end - 1) / PAGE
}

impl UserMemory for Caller {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), BadAddress> {
        let end = address.checked_add(buffer.len() as u64).ok_or(BadAddress)?;
        if self.behind.borrow().overlaps(address, end) {
            self.flush()?;
        }
        if !in_one_page(address, end) {
            return memory::read(self.tid, address, buffer).map_err(|_| BadAddress);
        }
        let mut ahead = self.ahead.borrow_mut();
        if address < ahead.start || end > ahead.end() {
            let rest = usize::try_from(PAGE - address % PAGE).expect("at most a page");
            ahead.start = address;
            ahead.bytes.resize(rest, 0);
            if memory::read(self.tid, address, &mut ahead.bytes).is_err() {
                ahead.bytes.clear();
                return Err(BadAddress);
            }
        }
        let from = usize::try_from(address - ahead.start).expect("within a page");
        buffer.copy_from_slice(&ahead.bytes[from..from + buffer.len()]);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let end = address.checked_add(bytes.len() as u64).ok_or(BadAddress)?;
        let ahead = self.ahead.get_mut();
        if ahead.overlaps(address, end) {
            ahead.bytes.clear();
        }
        let behind = self.behind.get_mut();
        let follows = address == behind.end() && !address.is_multiple_of(PAGE);
        if follows && in_one_page(address, end) {
            behind.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        memory::write(self.tid, address, bytes).map_err(|_| BadAddress)?;
        *self.behind.get_mut() = Window { start: end, bytes: Vec::new() };
        Ok(())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // The page was writable; a thread that unmaps it meanwhile does not want it.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_tid() -> u32 {
        rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
    }

    fn address(bytes: &[u8]) -> u64 {
        bytes.as_ptr().expose_provenance() as u64
    }

    #[test]
    fn words_written_one_by_one_are_all_there_at_the_end_and_read_back_before() {
        let target = vec![0u8; 3 * 4096];
        let base = address(&target);
        let mut caller = Caller::new(own_tid());
        for word in 0..3072u32 {
            caller.write(base + u64::from(word) * 4, &word.to_le_bytes()).unwrap();
            let mut back = [0; 4];
            if word % 100 == 0 {
                caller.read(base + u64::from(word) * 4, &mut back).unwrap();
                assert_eq!(u32::from_le_bytes(back), word);
            }
        }
        drop(caller);
        let mut all = vec![0; target.len()];
        memory::read(own_tid(), base, &mut all).unwrap();
        let expected: Vec<u8> = (0..3072u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_read_sees_a_write_to_bytes_that_were_read_ahead() {
        let target = vec![7u8; 64];
        let base = address(&target);
        let mut caller = Caller::new(own_tid());
        let mut byte = [0];
        caller.read(base, &mut byte).unwrap();
        caller.write(base + 8, &[9]).unwrap();
        caller.write(base + 9, &[10]).unwrap();
        caller.read(base + 9, &mut byte).unwrap();
        assert_eq!(byte, [10]);
    }

    #[test]
    fn what_is_not_there_is_a_bad_address_in_both_directions() {
        let mut caller = Caller::new(own_tid());
        assert_eq!(caller.read(0x10, &mut [0; 8]), Err(BadAddress));
        assert_eq!(caller.write(0x10, &[0; 8]), Err(BadAddress));
        assert_eq!(caller.read(u64::MAX, &mut [0; 8]), Err(BadAddress));
    }
}
