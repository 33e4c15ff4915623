//! Masks and arrays in the memory of the model's callers, as a scenario describes them.

use model::Buffers;
use scenario::layout::{BAD_ADDRESS, mask_bytes};
use scenario::{Mask, Pointer};

/// Where the first mask of a call lies.
pub(crate) const FIRST_MASK: u64 = 0x10_0000;

/// Puts a mask into the caller's memory; its address.
pub(crate) fn put_mask(user: &mut Buffers, mask: &Mask, address: u64) -> u64 {
    match mask {
        Mask::Null => 0,
        Mask::Bad => BAD_ADDRESS,
        Mask::Nodes { nodes, words } => {
            let mut bytes = mask_bytes(nodes);
            if let Some(words) = words {
                bytes.truncate(*words as usize * 8);
            }
            user.put(address, bytes);
            address
        }
    }
}

/// Puts an array into the caller's memory, as far as `pointer` lets it be seen; its address.
pub(crate) fn put_array(
    user: &mut Buffers,
    mut bytes: Vec<u8>,
    pointer: Pointer,
    entry: usize,
    at: u64,
) -> u64 {
    match pointer {
        Pointer::Null => return 0,
        Pointer::Bad => return BAD_ADDRESS,
        Pointer::Good => {}
        Pointer::Cut(entries) => bytes.truncate(usize::try_from(entries).unwrap_or(0) * entry),
    }
    user.put(at, bytes);
    at
}
