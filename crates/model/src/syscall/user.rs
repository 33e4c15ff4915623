//! The caller's memory, and node masks in it.

use std::collections::BTreeMap;

use machine::{NodeId, NodeSet};

use crate::errno::Errno;

/// An access to memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl From<BadAddress> for Errno {
    fn from(_: BadAddress) -> Self {
        Self::EFAULT
    }
}

/// The memory of the program that makes a system call.
pub trait UserMemory {
    /// Fills `buffer` from `address`.
    ///
    /// # Errors
    ///
    /// Some byte is not readable.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), BadAddress>;

    /// Stores `bytes` at `address`.
    ///
    /// # Errors
    ///
    /// Some byte is not writable; what could be written before it may have been.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BadAddress>;
}

/// A caller's memory made of separate buffers: for players of scenarios, and tests.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    buffers: BTreeMap<u64, Vec<u8>>,
}

impl Buffers {
    /// Makes `bytes` accessible at `address`. Buffers must not touch.
    pub fn put(&mut self, address: u64, bytes: Vec<u8>) {
        self.buffers.insert(address, bytes);
    }

    /// The buffer that was put at `address`.
    pub fn get(&self, address: u64) -> &[u8] {
        self.buffers.get(&address).map_or(&[], Vec::as_slice)
    }

    fn find(&self, address: u64, length: usize) -> Result<(u64, usize), BadAddress> {
        let (&start, bytes) = self.buffers.range(..=address).next_back().ok_or(BadAddress)?;
        let at = usize::try_from(address - start).map_err(|_| BadAddress)?;
        let end = at.checked_add(length).ok_or(BadAddress)?;
        if end <= bytes.len() { Ok((start, at)) } else { Err(BadAddress) }
    }
}

impl UserMemory for Buffers {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), BadAddress> {
        let (start, at) = self.find(address, buffer.len())?;
        buffer.copy_from_slice(&self.buffers[&start][at..at + buffer.len()]);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let (start, at) = self.find(address, bytes.len())?;
        let buffer = self.buffers.get_mut(&start).ok_or(BadAddress)?;
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Reads the little-endian word with this index of an array; an address that wraps is bad.
pub(crate) fn read_word<const BYTES: usize>(
    user: &dyn UserMemory,
    array: u64,
    index: u64,
) -> Result<[u8; BYTES], Errno> {
    let mut word = [0; BYTES];
    let offset = index.checked_mul(BYTES as u64).ok_or(Errno::EFAULT)?;
    let address = array.checked_add(offset).ok_or(Errno::EFAULT)?;
    user.read(address, &mut word)?;
    Ok(word)
}

/// Largest `maxnode` that a mask may be given with, less one: a page of bits.
const MASK_BITS_MAX: u64 = 4096 * 8;

/// Reads a node mask (`get_nodes`, spec 1.1). Only the low `maxnode - 1` bits count.
pub(crate) fn read_mask(
    user: &dyn UserMemory,
    pointer: u64,
    maxnode: u64,
) -> Result<NodeSet, Errno> {
    const WORDS: usize = NodeId::LIMIT as usize / 64;
    let mut bits = maxnode.wrapping_sub(1);
    if bits == 0 || pointer == 0 {
        return Ok(NodeSet::EMPTY);
    }
    if bits > MASK_BITS_MAX {
        return Err(Errno::EINVAL);
    }
    // Words beyond the last node must be clear; the top one is looked at whole, so that even bits
    // at and above `maxnode - 1` must be.
    while bits > u64::from(NodeId::LIMIT) {
        let word = u64::from_le_bytes(read_word(user, pointer, (bits - 1) / 64)?);
        if (bits - 1) / 64 >= WORDS as u64 && word != 0 {
            return Err(Errno::EINVAL);
        }
        bits = (bits - 64).max(u64::from(NodeId::LIMIT));
    }
    let mut words = [0; WORDS];
    for (index, word) in (0..bits.div_ceil(64)).zip(&mut words) {
        *word = u64::from_le_bytes(read_word(user, pointer, index)?);
        if bits < (index + 1) * 64 {
            *word &= (1 << (bits % 64)) - 1;
        }
    }
    Ok(NodeSet::from_words(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(bits: &[usize], words: usize) -> Buffers {
        let mut bytes = vec![0; words * 8];
        bits.iter().for_each(|&bit| bytes[bit / 8] |= 1 << (bit % 8));
        let mut user = Buffers::default();
        user.put(0x1000, bytes);
        user
    }

    #[test]
    fn the_last_bit_that_counts_is_one_below_maxnode_minus_one() {
        let user = mask(&[0, 1], 1);
        assert_eq!(read_mask(&user, 0x1000, 2).unwrap().to_string(), "0");
        assert_eq!(read_mask(&user, 0x1000, 3).unwrap().to_string(), "0-1");
    }

    #[test]
    fn a_bit_past_maxnode_in_the_same_word_is_refused_beyond_1023() {
        assert_eq!(read_mask(&mask(&[1087], 64), 0x1000, 1026), Err(Errno::EINVAL));
        assert!(read_mask(&mask(&[1088], 64), 0x1000, 1026).is_ok());
    }

    #[test]
    fn only_the_words_up_to_maxnode_are_read() {
        let user = mask(&[0], 1);
        assert!(read_mask(&user, 0x1000, 65).is_ok());
        assert_eq!(read_mask(&user, 0x1000, 66), Err(Errno::EFAULT));
    }
}
