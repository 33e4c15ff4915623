//! The vdso and its data: pages of the kernel that every process maps.
//!
//! They matter because a migration finds them: the code is part of the kernel image, and its data
//! became ordinary shared pages in 7.3 (cases MV-76, MV-77, MP-103).

use crate::memory::alloc::Wanted;
use crate::memory::frames::flag;
use crate::memory::node::Slot;
use crate::memory::owner::{FileId, Owner};
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::mm::vma::Protection;
use crate::{Access, Machine, MapKind};

/// Where the vdso lies; its data is right before it.
pub const VDSO_ADDRESS: u64 = 0x7fff_f7fc_1000;
/// Pages of the vdso.
pub(crate) const VDSO_PAGES: u64 = 2;
/// Pages of data before the vdso.
pub const VVAR_PAGES: u64 = 4;

impl Machine {
    /// Maps the vdso and its data into a new process. Every process uses the data at once.
    pub(crate) fn map_vdso(&mut self, task: TaskId) {
        let (vdso, vvar) = (self.vdso, self.vvar);
        let data = VDSO_ADDRESS - VVAR_PAGES * PAGE_BYTES;
        let text = Protection { execute: true, ..Protection::READ };
        self.mmap(task, VDSO_ADDRESS, VDSO_PAGES, MapKind::Private(vdso, 0), text)
            .expect("a new address space has room for the vdso");
        self.mmap(task, data, VVAR_PAGES, MapKind::Shared(vvar, 0), Protection::READ)
            .expect("a new address space has room for the vdso's data");
        for page in 0..VVAR_PAGES {
            self.access(task, data + page * PAGE_BYTES, Access::Read)
                .expect("the data of the vdso can be read");
        }
    }

    /// The vdso and its data: pages of the kernel that every process maps.
    pub(crate) fn make_vdso(&mut self, id: FileId, pages: u64, is_text: bool) {
        let is_of_image = is_text || !self.behaviour.vvar_is_ordinary;
        let slot = if is_of_image { self.nodes.of_kernel_image() } else { Slot(0) };
        for index in 0..pages {
            let wanted = Wanted {
                order: 0,
                start: slot,
                this_node: false,
                nodes: None,
                mems: None,
                cpu: slot,
                movable: false,
            };
            let page = self.allocate(&wanted).expect("a machine has room for its kernel");
            self.frames.set_owner(page, Owner::File { file: id, index });
            // Text is part of the kernel image; the data is, before it became ordinary pages.
            if is_of_image {
                self.frames.set(page, flag::RESERVED);
            }
            self.file_mut(id).pages.insert(index, page);
        }
    }
}
