//! What a word of move_pages' status array says about a page.
//!
//! The kernel writes a node number or a negative errno, and leaves out the words of pages that it
//! did not reach, or whose batch failed. Those are told apart by [`UNWRITTEN`], with which the
//! wrappers in [`crate::calls`] fill the array before the call.

use machine::NodeId;

use crate::Errno;

/// A status word that the kernel never writes: neither a node nor an errno.
pub const UNWRITTEN: i32 = i32::MIN;

/// One word of the status array that move_pages(2) fills (behaviour spec 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageStatus {
    /// The page is on this node; after a move, it may have been there before.
    On(NodeId),
    /// Mapped more than once, mostly by another process; `MOVE_ALL` would move it (`-EACCES`).
    /// On 6.1 also the tail address of a hugetlb page.
    Shared,
    /// Isolated just now, off the LRU, or the second address of one folio: worth another try
    /// (`-EBUSY`).
    Busy,
    /// No page there: never touched, swapped out, or in flight (`-ENOENT`).
    NotPresent,
    /// No mapping there, or one that cannot migrate; also the zero page, and on 6.1 untouched
    /// anonymous memory (`-EFAULT`).
    NotMapped,
    /// No memory on the target node (`-ENOMEM`).
    NoMemory,
    /// The kernel stopped before this page, or the batch that it was in failed; ask again.
    Unwritten,
    /// A word that we have no name for, as the kernel wrote it. A new kernel must not make an old
    /// pagetide lie.
    Other(i32),
}

impl PageStatus {
    /// Reads a word that the kernel wrote, or [`UNWRITTEN`].
    #[must_use]
    pub fn from_word(word: i32) -> Self {
        if let Some(node) = u16::try_from(word).ok().and_then(NodeId::new) {
            return Self::On(node);
        }
        match word {
            UNWRITTEN => Self::Unwritten,
            _ => match Errno::from(word.wrapping_neg()) {
                Errno::EACCES => Self::Shared,
                Errno::EBUSY => Self::Busy,
                Errno::ENOENT => Self::NotPresent,
                Errno::EFAULT => Self::NotMapped,
                Errno::ENOMEM => Self::NoMemory,
                _ => Self::Other(word),
            },
        }
    }

    /// The word that [`PageStatus::from_word`] reads as this.
    #[must_use]
    pub fn word(self) -> i32 {
        match self {
            Self::On(node) => node.as_raw(),
            Self::Shared => -Errno::EACCES.get(),
            Self::Busy => -Errno::EBUSY.get(),
            Self::NotPresent => -Errno::ENOENT.get(),
            Self::NotMapped => -Errno::EFAULT.get(),
            Self::NoMemory => -Errno::ENOMEM.get(),
            Self::Unwritten => UNWRITTEN,
            Self::Other(word) => word,
        }
    }

    /// The node, if the page is on one.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::On(node) => Some(node),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_word_of_zero_or_more_is_a_node() {
        assert_eq!(PageStatus::from_word(0).node(), NodeId::new(0));
        assert_eq!(PageStatus::from_word(1023).node(), NodeId::new(1023));
    }

    #[test]
    fn a_word_the_kernel_never_wrote_is_not_mistaken_for_an_error() {
        assert_eq!(PageStatus::from_word(UNWRITTEN), PageStatus::Unwritten);
    }

    #[test]
    fn an_errno_is_read_as_what_it_means_for_a_page() {
        assert_eq!(PageStatus::from_word(-13), PageStatus::Shared);
        assert_eq!(PageStatus::from_word(-16), PageStatus::Busy);
        assert_eq!(PageStatus::from_word(-2), PageStatus::NotPresent);
        assert_eq!(PageStatus::from_word(-14), PageStatus::NotMapped);
        assert_eq!(PageStatus::from_word(-12), PageStatus::NoMemory);
        assert_eq!(PageStatus::from_word(-999), PageStatus::Other(-999));
    }

    proptest! {
        #[test]
        fn no_word_is_lost_in_reading_it(word: i32) {
            prop_assert_eq!(PageStatus::from_word(word).word(), word);
        }
    }
}
