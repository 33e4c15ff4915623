//! move_pages(2): move pages one by one to nodes of their own, or ask where they are.
//!
//! Neighbouring entries with the same node form a batch. A batch that fails in the engine ends the
//! call, and no status word of it is written (spec 3.4): that is why callers fill the array first.

use machine::{NodeId, NodeSet};

use crate::Machine;
use crate::convert;
use crate::errno::Errno;
use crate::faults::PlantedFault;
use crate::memory::frames::{Pfn, flag};
use crate::migrate::queue::is_migratable;
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::address_space::MmId;
use crate::mm::file::FileKind;
use crate::mm::mapping::{PAGE_BYTES, USER_LIMIT};
use crate::mm::page_table::EntryKind;
use crate::mm::task::TaskId;
use crate::mm::vma::{Backing, Vma, vm};
use crate::observe::call_path::Caller;
use crate::policy::placement::Allocator;
use crate::syscall::user::{UserMemory, read_word};

const MOVE: i32 = 1 << 1;
const MOVE_ALL: i32 = 1 << 2;
/// Entries that a query copies at a time.
const QUERY_CHUNK: usize = 16;

/// The arrays of a call, as addresses in the caller.
#[derive(Clone, Copy, Debug)]
pub struct MovePagesArrays {
    /// Entries.
    pub count: u64,
    /// `void *pages[count]`.
    pub pages: u64,
    /// `int nodes[count]`, or 0: only ask.
    pub nodes: u64,
    /// `int status[count]`.
    pub status: u64,
}

/// Whose pages, and by whom.
struct Call {
    mm: MmId,
    move_all: bool,
    allowed: NodeSet,
    by: Allocator,
}

/// The open batch.
#[derive(Default)]
struct Batch {
    /// Index of the VMA that the last page was in.
    vma: usize,
    /// Node and index of the first entry.
    open: Option<(NodeId, u64)>,
    folios: Vec<Pfn>,
}

impl Machine {
    /// `move_pages(pid, count, pages, nodes, status, flags)`: 0, or how many entries were not moved
    /// or not tried.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`: flags; `EPERM`: `MPOL_MF_MOVE_ALL` without
    /// `CAP_SYS_NICE`; `ESRCH`: no such process; `EPERM`: no access to it; `EINVAL`: it has no
    /// memory of its own; then, at an entry: `EFAULT`: an array; `ENODEV`: no such node with
    /// memory; `EACCES`: a node outside the target's cpuset; `ENOMEM`: a node is full.
    ///
    /// # Panics
    ///
    /// When `caller` does not exist.
    ///
    /// Source: move_pages(2); behaviour spec 3; mm/migrate.c, `kernel_move_pages`.
    pub fn move_pages(
        &mut self,
        user: &mut dyn UserMemory,
        caller: TaskId,
        pid: i32,
        arrays: MovePagesArrays,
        flags: i32,
    ) -> Result<i64, Errno> {
        if flags & !(MOVE | MOVE_ALL) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & MOVE_ALL != 0 && !self.tasks[&caller].credentials.sys_nice {
            return Err(Errno::EPERM);
        }
        let target = if pid == 0 { caller } else { TaskId(pid) };
        if !self.tasks.contains_key(&target) {
            return Err(Errno::ESRCH);
        }
        if pid != 0 && !self.may_look_into(caller, target) {
            return Err(Errno::EPERM);
        }
        let mm = self.mm_of(target).ok_or(Errno::EINVAL)?;
        if arrays.nodes == 0 {
            return self.query_pages(user, mm, arrays);
        }
        let call = Call {
            mm,
            move_all: flags & MOVE_ALL != 0,
            allowed: self.allowed_mems(target),
            by: self.allocator(caller),
        };
        self.lru_drain_all();
        self.do_pages_move(user, &call, arrays)
    }

    // ---- the query form ----

    fn query_pages(
        &self,
        user: &mut dyn UserMemory,
        mm: MmId,
        arrays: MovePagesArrays,
    ) -> Result<i64, Errno> {
        let mut from = 0;
        while from < arrays.count {
            let upto = arrays.count.min(from + QUERY_CHUNK as u64);
            let mut words = [0i32; QUERY_CHUNK];
            for (word, index) in words.iter_mut().zip(from..upto) {
                let address = u64::from_le_bytes(read_word(user, arrays.pages, index)?);
                *word = self.query_page(mm, address);
            }
            for (word, index) in words.iter().zip(from..upto) {
                write_status(user, arrays.status, index, *word)?;
            }
            from = upto;
        }
        Ok(0)
    }

    /// Status word of a page (spec 3.3, "lookup").
    fn query_page(&self, mm: MmId, address: u64) -> i32 {
        let page = address / PAGE_BYTES;
        let vma = self.mm(mm).vma(page).filter(|_| page < USER_LIMIT / PAGE_BYTES);
        let found = vma.ok_or(Errno::EFAULT).and_then(|vma| self.look_up(mm, vma, page));
        match found {
            Ok(pfn) => self.nodes.id_of(pfn).as_raw(),
            Err(errno) => -errno.number(),
        }
    }

    /// The page of a VMA, as `follow_page` sees it.
    #[inline]
    fn look_up(&self, mm: MmId, vma: &Vma, page: u64) -> Result<Pfn, Errno> {
        let (entry, by_pmd) = self.entry(mm, page);
        let hidden = entry.kind() == EntryKind::Hint || !vma.protection.is_accessible();
        match entry.kind() {
            EntryKind::None => Err(self.nothing_mapped(vma)),
            EntryKind::Zero => Err(Errno::EFAULT),
            EntryKind::Special => Err(if self.behaviour.untouched_anon_is_fault {
                Errno::EFAULT
            } else {
                Errno::ENOENT
            }),
            EntryKind::Present | EntryKind::Hint
                if hidden && self.behaviour.prot_none_hides_pages =>
            {
                Err(if by_pmd { self.nothing_mapped(vma) } else { Errno::ENOENT })
            }
            EntryKind::Present | EntryKind::Hint => {
                let secret = vma.file().is_some_and(|f| self.file(f).kind == FileKind::Secret);
                if secret && self.behaviour.secret_hides_pages {
                    return Err(Errno::ENOENT);
                }
                Ok(entry.pfn())
            }
            EntryKind::Migration | EntryKind::Table => Err(Errno::ENOENT),
        }
    }

    fn nothing_mapped(&self, vma: &Vma) -> Errno {
        if vma.backing == Backing::Anon && self.behaviour.untouched_anon_is_fault {
            Errno::EFAULT
        } else {
            Errno::ENOENT
        }
    }

    // ---- the moving form ----

    fn do_pages_move(
        &mut self,
        user: &mut dyn UserMemory,
        call: &Call,
        arrays: MovePagesArrays,
    ) -> Result<i64, Errno> {
        let mut batch = Batch::default();
        let mut entries = Entries::new(arrays);
        for index in 0..arrays.count {
            let entry = entries.read(user, index);
            let (address, node) = match entry.and_then(|entry| self.check_target(call, entry)) {
                Ok(entry) => entry,
                Err(errno) => {
                    // What came before is still moved; its own outcome is not told.
                    let _ = self.flush(user, call, arrays, &mut batch, index);
                    return Err(errno);
                }
            };
            match batch.open {
                None => batch.open = Some((node, index)),
                Some((open, _)) if open != node => {
                    let stayed = self.flush(user, call, arrays, &mut batch, index)?;
                    if stayed > 0 {
                        return Ok(stayed);
                    }
                    batch.open = Some((node, index));
                }
                Some(_) => {}
            }
            let word = match self.queue_for_move(call, &mut batch.vma, address, node) {
                Ok(Some(head)) => {
                    batch.folios.push(head);
                    continue;
                }
                Ok(None) => node.as_raw(),
                Err(errno) => -errno.number(),
            };
            if let Err(errno) = write_status(user, arrays.status, index, word) {
                let _ = self.flush(user, call, arrays, &mut batch, index);
                return Err(errno);
            }
            let stayed = self.flush(user, call, arrays, &mut batch, index)?;
            if stayed > 0 {
                return Ok(stayed - 1);
            }
        }
        self.flush(user, call, arrays, &mut batch, arrays.count)
    }

    fn check_target(
        &self,
        call: &Call,
        (address, raw): (u64, i32),
    ) -> Result<(u64, NodeId), Errno> {
        let node = u16::try_from(raw).ok().and_then(NodeId::new).ok_or(Errno::ENODEV)?;
        if !self.nodes.with_memory.contains(node) {
            return Err(Errno::ENODEV);
        }
        if !call.allowed.contains(node) && !self.planted(PlantedFault::CpusetUnchecked) {
            return Err(Errno::EACCES);
        }
        Ok((address, node))
    }

    /// Isolates the folio of a page. `None`: it is on its node already.
    #[inline]
    fn queue_for_move(
        &mut self,
        call: &Call,
        near: &mut usize,
        address: u64,
        node: NodeId,
    ) -> Result<Option<Pfn>, Errno> {
        let page = address / PAGE_BYTES;
        let vma = self.mm(call.mm).vma_near(page, near).filter(|_| page < USER_LIMIT / PAGE_BYTES);
        let vma = vma.filter(|vma| is_migratable(vma)).ok_or(Errno::EFAULT)?;
        let is_huge = vma.has(vm::HUGETLB);
        let pfn = self.look_up(call.mm, vma, page)?;
        if self.nodes.id_of(pfn) == node {
            return Ok(None);
        }
        let head = self.frames.head(pfn);
        let refused = is_huge && pfn != head && self.behaviour.hugetlb_tail_is_refused;
        if !call.move_all && self.is_shared_page(pfn) || refused {
            return Err(Errno::EACCES);
        }
        // Reserved pages are mapped by everybody and on no list.
        let free_to_take = !self.frames.has(head, flag::RESERVED) && self.isolate(head);
        if free_to_take { Ok(Some(head)) } else { Err(Errno::EBUSY) }
    }

    /// Moves the open batch and stores its status words. Returns what stayed, with the entries
    /// from `upto` on that nobody will look at.
    fn flush(
        &mut self,
        user: &mut dyn UserMemory,
        call: &Call,
        arrays: MovePagesArrays,
        batch: &mut Batch,
        upto: u64,
    ) -> Result<i64, Errno> {
        let Some((node, start)) = batch.open.take() else { return Ok(0) };
        if batch.folios.is_empty() {
            return Ok(0);
        }
        let slot = self.nodes.slot(node).expect("a node with memory is a node of the machine");
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::Syscall,
            target: Target::Exactly { slot, by: call.by },
            caller: Caller::MovePages,
        };
        let outcome = self.migrate(std::mem::take(&mut batch.folios), &request);
        self.put_back_all(outcome.left);
        let stayed = outcome.result?;
        if stayed > 0 && !self.planted(PlantedFault::BatchFailureIgnored) {
            return Ok(i64::try_from(stayed + (arrays.count - upto)).unwrap_or(i64::MAX));
        }
        write_statuses(user, arrays.status, start..upto, node.as_raw())?;
        Ok(0)
    }
}

/// Entries that are read, and status words that are written, at a time where nobody can tell.
const AHEAD: usize = 64;

/// Reads entries ahead; one that cannot be read is read again by itself when its turn comes.
struct Entries {
    arrays: MovePagesArrays,
    may_read_ahead: bool,
    /// The entries that were read: index of the first, and their number.
    first: u64,
    count: usize,
    pages: [u64; AHEAD],
    nodes: [i32; AHEAD],
}

impl Entries {
    fn new(arrays: MovePagesArrays) -> Self {
        let overlaps = |start: u64, bytes: u64| {
            let end = |start: u64, bytes| arrays.count.saturating_mul(bytes).saturating_add(start);
            start < end(arrays.status, 4) && arrays.status < end(start, bytes)
        };
        Self {
            arrays,
            may_read_ahead: !overlaps(arrays.pages, 8) && !overlaps(arrays.nodes, 4),
            first: 0,
            count: 0,
            pages: [0; AHEAD],
            nodes: [0; AHEAD],
        }
    }

    /// Address and node number of an entry.
    #[inline]
    fn read(&mut self, user: &dyn UserMemory, index: u64) -> Result<(u64, i32), Errno> {
        if index - self.first >= self.count as u64 {
            self.fill(user, index)?;
        }
        let at = convert::index(index - self.first);
        Ok((self.pages[at], self.nodes[at]))
    }

    fn fill(&mut self, user: &dyn UserMemory, index: u64) -> Result<(), Errno> {
        let left = self.arrays.count - index;
        let many = if self.may_read_ahead { left.min(AHEAD as u64) } else { 1 };
        let (first, many) = (index, convert::index(many));
        let address = |array: u64, bytes| index.checked_mul(bytes)?.checked_add(array);
        let read = |array, buffer: &mut [u8], bytes| {
            address(array, bytes).is_some_and(|address| user.read(address, buffer).is_ok())
        };
        self.first = first;
        self.count = 0;
        let (mut pages, mut nodes) = ([0; AHEAD * 8], [0; AHEAD * 4]);
        if read(self.arrays.pages, &mut pages[..many * 8], 8)
            && read(self.arrays.nodes, &mut nodes[..many * 4], 4)
        {
            let pages = pages.as_chunks().0.iter().copied().map(u64::from_le_bytes);
            let nodes = nodes.as_chunks().0.iter().copied().map(i32::from_le_bytes);
            self.pages.iter_mut().zip(pages).for_each(|(to, page)| *to = page);
            self.nodes.iter_mut().zip(nodes).for_each(|(to, node)| *to = node);
            self.count = many;
            return Ok(());
        }
        self.pages[0] = u64::from_le_bytes(read_word(user, self.arrays.pages, index)?);
        self.nodes[0] = i32::from_le_bytes(read_word(user, self.arrays.nodes, index)?);
        self.count = 1;
        Ok(())
    }
}

/// Stores one word for each entry; up to the first that cannot be stored.
fn write_statuses(
    user: &mut dyn UserMemory,
    status: u64,
    mut entries: std::ops::Range<u64>,
    word: i32,
) -> Result<(), Errno> {
    let mut words = [0; AHEAD * 4];
    words.chunks_exact_mut(4).for_each(|place| place.copy_from_slice(&word.to_le_bytes()));
    while entries.start < entries.end {
        let many = (entries.end - entries.start).min(AHEAD as u64);
        let address = entries.start.checked_mul(4).and_then(|at| at.checked_add(status));
        let bytes = &words[..convert::index(many) * 4];
        if address.is_some_and(|address| user.write(address, bytes).is_ok()) {
            entries.start += many;
        } else {
            write_status(user, status, entries.start, word)?;
            entries.start += 1;
        }
    }
    Ok(())
}

fn write_status(
    user: &mut dyn UserMemory,
    status: u64,
    index: u64,
    word: i32,
) -> Result<(), Errno> {
    let offset = index.checked_mul(4).ok_or(Errno::EFAULT)?;
    let address = status.checked_add(offset).ok_or(Errno::EFAULT)?;
    user.write(address, &word.to_le_bytes())?;
    Ok(())
}
