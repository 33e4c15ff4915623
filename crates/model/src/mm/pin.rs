//! References from outside the page tables: pipes, direct I/O, registered buffers.
//!
//! They are why a page cannot be migrated: the engine counts references (spec 7.8).

use crate::Machine;
use crate::memory::frames::{Pfn, flag};
use crate::memory::zone::ZoneKind;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::fault::{Access, Fault};
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::observe::call_path::Caller;
use crate::policy::placement::Allocator;

/// Who holds the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A plain reference, as a pipe holds it after vmsplice(2).
    Reference,
    /// FOLL_PIN, as a registered buffer of io_uring holds it: the page is not even unmapped.
    Buffer,
}

impl Machine {
    /// Takes a reference to the page at `address`; a large folio is held as a whole.
    ///
    /// # Errors
    ///
    /// As [`Machine::access`]: the page is brought in for reading, for a buffer for writing.
    ///
    /// # Panics
    ///
    /// As [`Machine::access`].
    pub fn pin(&mut self, task: TaskId, address: u64, kind: PinKind) -> Result<(), Fault> {
        let access = if kind == PinKind::Buffer { Access::Write } else { Access::Read };
        self.access(task, address, access)?;
        let mm = self.mm_of(task).expect("a task that runs has memory");
        let Some(pfn) = self.entry(mm, address / PAGE_BYTES).0.mapped() else { return Ok(()) };
        if kind == PinKind::Buffer && self.nodes.zone_kind(pfn) == ZoneKind::Movable {
            self.leave_movable_zone(self.frames.head(pfn))?;
        }
        let Some(pfn) = self.entry(mm, address / PAGE_BYTES).0.mapped() else { return Ok(()) };
        let head = self.frames.head(pfn);
        self.frames.add_reference(head);
        if kind == PinKind::Buffer {
            self.frames.set(head, flag::LONGTERM_PIN);
        }
        if let Some(task) = self.tasks.get_mut(&task) {
            task.pins.push(head);
        }
        Ok(())
    }

    /// A page that a device holds for long must not stay where memory has to be movable (spec 9.6).
    fn leave_movable_zone(&mut self, head: Pfn) -> Result<(), Fault> {
        self.lru_drain_all();
        if !self.isolate(head) {
            return Err(Fault::OutOfMemory);
        }
        let nodes = self.nodes.with_memory;
        let by = Allocator { cpu: self.nodes.slot_of(head), mems: None };
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::LongtermPin,
            target: Target::Among { nodes: &nodes, by, movable: false },
            caller: Caller::LongtermPin,
        };
        let outcome = self.migrate(vec![head], &request);
        self.put_back_all(outcome.left);
        if outcome.result == Ok(0) { Ok(()) } else { Err(Fault::OutOfMemory) }
    }

    /// Drops all references that a task took.
    pub fn unpin_all(&mut self, task: TaskId) {
        let pins = self.tasks.get_mut(&task).map(|task| std::mem::take(&mut task.pins));
        pins.into_iter().flatten().for_each(|page| self.drop_reference(page));
    }

    pub(crate) fn drop_reference(&mut self, page: Pfn) {
        // A folio that was split meanwhile would not have been: the reference forbids it.
        self.frames.drop_reference(page);
        if self.frames.extra_references(page) == 0 {
            self.frames.clear(page, flag::LONGTERM_PIN);
        }
        self.free_if_unused(page);
    }
}
