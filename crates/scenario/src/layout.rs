//! Where things lie that a scenario does not place itself: the same for a player and for an actor,
//! since addresses are seen in results (interleaving goes by page number).

use crate::{Base, Place};

/// Bytes of a base page.
pub const PAGE_BYTES: u64 = 4096;
/// An address where nothing can be read or written: what `BAD` stands for.
pub const BAD_ADDRESS: u64 = 8;
/// A pid that nobody has: what `none` stands for.
pub const ABSENT_PID: i32 = 4_000_000;
/// What each byte of status words and masks holds before a call that may write them.
pub const SENTINEL: u8 = 0xa5;
/// A status word that the kernel did not write.
pub const UNWRITTEN_WORD: i32 = i32::from_le_bytes([SENTINEL; 4]);
/// Bytes of the longest mask that a call can be given: 32,768 bits, and one word more.
pub const MASK_BYTES: usize = 4096 + 8;
/// What `KERN` stands for.
pub const KERNEL_ADDRESS: u64 = 0xffff_8000_0000_0000;
/// First address that user space does not have; the page before it is `TOP`.
pub const USER_LIMIT: u64 = 0x7fff_ffff_f000;
/// Where the mapping of the first `hog` begins.
pub const FIRST_HOG: u64 = 0x2000_0000_0000;
/// From one hog to the next.
pub const HOG_STRIDE: u64 = 0x10_0000_0000;

const FIRST_AREA: u64 = 0x10_0000_0000;
const AREA_STRIDE: u64 = 0x1000_0000;

/// Where the area of this letter lies when `map` names no address.
pub fn area_address(letter: char) -> u64 {
    let number = u64::from(u32::from(letter)).saturating_sub(u64::from(u32::from('a')));
    FIRST_AREA + number * AREA_STRIDE
}

/// A stretch of addresses and which pages of it are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Address of the first page; unaligned when the place has an offset.
    pub start: u64,
    /// Pages from the first to the last.
    pub pages: u64,
    /// Every how many pages one is taken.
    pub stride: u64,
}

impl Span {
    /// `place` counted from a base at `address` that has `pages` pages.
    pub fn of(place: Place, address: u64, pages: u64) -> Self {
        let (from, upto) = place.pages.unwrap_or((0, pages));
        let start = address.wrapping_add(from.wrapping_mul(PAGE_BYTES));
        Self {
            start: start.wrapping_add_signed(place.offset),
            pages: upto.saturating_sub(from),
            stride: place.stride,
        }
    }

    /// The address of each page that is meant.
    pub fn addresses(self) -> impl Iterator<Item = u64> {
        let stride = usize::try_from(self.stride).unwrap_or(usize::MAX).max(1);
        (0..self.pages)
            .step_by(stride)
            .map(move |page| self.start.wrapping_add(page.wrapping_mul(PAGE_BYTES)))
    }

    /// Bytes from the first to the last page.
    pub const fn bytes(self) -> u64 {
        self.pages.wrapping_mul(PAGE_BYTES)
    }
}

impl Base {
    /// The address of a base that is the same in every process; none for areas, vdso and vvar.
    pub const fn fixed_address(self) -> Option<u64> {
        match self {
            Self::Address(address) => Some(address),
            Self::Kernel => Some(KERNEL_ADDRESS),
            Self::Top => Some(USER_LIMIT - PAGE_BYTES),
            Self::Null => Some(0),
            Self::Area(_) | Self::Vdso | Self::Vvar => None,
        }
    }
}

/// One node for each of `pages` pages, from a list whose last number goes on.
pub fn node_list(list: &[(i32, u64)], pages: usize) -> Vec<i32> {
    let nodes = list.iter().flat_map(|&(node, times)| (0..times).map(move |_| node));
    let last = list.last().map_or(0, |&(node, _)| node);
    nodes.chain(std::iter::repeat(last)).take(pages).collect()
}

/// The bytes of a node mask with these bits set, [`MASK_BYTES`] long.
pub fn mask_bytes(nodes: &[u16]) -> Vec<u8> {
    let mut bytes = vec![0; MASK_BYTES];
    for &node in nodes {
        if let Some(byte) = bytes.get_mut(usize::from(node) / 8) {
            *byte |= 1 << (node % 8);
        }
    }
    bytes
}

/// The bits that are set in the first bytes of a mask.
pub fn mask_nodes(bytes: &[u8]) -> Vec<u16> {
    let bits = (0..u16::MAX).take(bytes.len().saturating_mul(8));
    bits.filter(|&bit| bytes[usize::from(bit) / 8] >> (bit % 8) & 1 == 1).collect()
}
