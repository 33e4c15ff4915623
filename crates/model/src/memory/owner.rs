//! What a folio belongs to, and so how its mappings are found: the reverse map's starting point.

/// Address spaces that descend from one by fork: they may share anonymous pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FamilyId(pub(crate) u32);

/// A file, or memory that is managed like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub(crate) u32);

/// The kernel's `folio->mapping` with `folio->index`, in one word of the frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: just allocated, or free.
    None,
    /// Anonymous memory; the index is the page offset in its VMA (the virtual page number, unless
    /// the VMA was moved).
    Anon { family: FamilyId, index: u64 },
    /// A page of a file, at this page offset.
    File { file: FileId, index: u64 },
    /// A page that KSM merged; its mappings are kept by this number.
    Ksm { node: u32 },
}

/// Bits of the index: a page offset within 48 bits of address space.
const INDEX_BITS: u32 = 38;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const OBJECT_MASK: u64 = (1 << 24) - 1;

impl Owner {
    #[inline]
    pub(crate) fn pack(self) -> u64 {
        let (kind, object, index) = match self {
            Self::None => return 0,
            Self::Anon { family, index } => (1, family.0, index),
            Self::File { file, index } => (2, file.0, index),
            Self::Ksm { node } => (3, node, 0),
        };
        assert!(u64::from(object) <= OBJECT_MASK && index <= INDEX_MASK, "fits its bits");
        kind << 62 | u64::from(object) << INDEX_BITS | index
    }

    #[inline]
    pub(crate) fn unpack(word: u64) -> Self {
        let object = (word >> INDEX_BITS & OBJECT_MASK) as u32;
        let index = word & INDEX_MASK;
        match word >> 62 {
            0 => Self::None,
            1 => Self::Anon { family: FamilyId(object), index },
            2 => Self::File { file: FileId(object), index },
            _ => Self::Ksm { node: object },
        }
    }

    /// The owner of the page `pages` behind.
    pub(crate) fn plus(self, pages: u32) -> Self {
        let pages = u64::from(pages);
        match self {
            Self::Anon { family, index } => Self::Anon { family, index: index + pages },
            Self::File { file, index } => Self::File { file, index: index + pages },
            other => other,
        }
    }

    pub(crate) const fn is_anon(self) -> bool {
        matches!(self, Self::Anon { .. } | Self::Ksm { .. })
    }

    pub(crate) const fn is_ksm(self) -> bool {
        matches!(self, Self::Ksm { .. })
    }
}
