//! A VMA: a run of pages with one backing, one protection and one policy.

use crate::memory::owner::FileId;
use crate::policy::mempolicy::MemPolicy;

/// Access rights of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
    /// The mapping holds program text.
    pub execute: bool,
}

impl Protection {
    /// No access.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Reads only.
    pub const READ: Self = Self { read: true, write: false, execute: false };
    /// Reads and writes.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };

    pub(crate) const fn is_accessible(self) -> bool {
        self.read || self.write || self.execute
    }
}

/// What is behind a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Private anonymous memory.
    Anon,
    /// A file; `shared` writes go to it, private ones to copies.
    File { file: FileId, shared: bool },
}

/// Flags of a VMA (the kernel's `VM_*`).
pub(crate) mod vm {
    pub(crate) const LOCKED: u16 = 1 << 0;
    pub(crate) const LOCK_ON_FAULT: u16 = 1 << 1;
    pub(crate) const HUGEPAGE: u16 = 1 << 2;
    pub(crate) const MERGEABLE: u16 = 1 << 3;
    pub(crate) const HUGETLB: u16 = 1 << 4;
    pub(crate) const PFNMAP: u16 = 1 << 5;
    /// A special mapping that must not be split.
    pub(crate) const DONT_SPLIT: u16 = 1 << 6;
    pub(crate) const SOFT_DIRTY: u16 = 1 << 7;
    pub(crate) const NO_HUGEPAGE: u16 = 1 << 8;
    /// It has had a page of its own (`anon_vma`).
    pub(crate) const HAD_ANON: u16 = 1 << 9;
}

/// What the balancing scanner remembers of a VMA (6.12 and later; spec 10.2).
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct VmaScan {
    pub(crate) met: bool,
    pub(crate) next_scan_ms: u64,
    pub(crate) start_seq: u32,
    pub(crate) prev_seq: u32,
    pub(crate) pids: [u64; 2],
    pub(crate) pids_reset_ms: u64,
}

/// Page numbers are virtual: an address divided by 4096.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vma {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Page offset of `start` in the backing; for anonymous memory the page number at creation.
    pub(crate) pgoff: u64,
    /// By how many pages mremap(2) moved it: anonymous pages keep their old index.
    pub(crate) moved: i64,
    pub(crate) backing: Backing,
    pub(crate) protection: Protection,
    pub(crate) flags: u16,
    pub(crate) policy: Option<Box<MemPolicy>>,
    pub(crate) scan: VmaScan,
}

impl Vma {
    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) const fn pages(&self) -> u64 {
        self.end - self.start
    }

    /// Page offset of a page in the backing.
    pub(crate) const fn offset_of(&self, page: u64) -> u64 {
        self.pgoff + (page - self.start)
    }

    pub(crate) const fn file(&self) -> Option<FileId> {
        match self.backing {
            Backing::Anon => None,
            Backing::File { file, .. } => Some(file),
        }
    }

    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.backing, Backing::File { shared: true, .. })
    }

    /// Whether two neighbours may become one.
    pub(crate) fn joins(&self, next: &Self) -> bool {
        // One without an anon_vma joins one that has it (`is_mergeable_anon_vma`).
        const ALIKE: u16 = !(vm::SOFT_DIRTY | vm::HAD_ANON);
        self.end == next.start
            && self.backing == next.backing
            && self.pgoff + self.pages() == next.pgoff
            && self.moved == next.moved
            && self.protection == next.protection
            && self.flags & ALIKE == next.flags & ALIKE
            && self.policy == next.policy
            && !self.has(vm::DONT_SPLIT)
    }
}
