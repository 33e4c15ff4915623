//! mbind(2): a policy for a range of memory, and what is there already.

use machine::NodeSet;

use crate::Machine;
use crate::errno::Errno;
use crate::faults::PlantedFault;
use crate::memory::frames::Pfn;
use crate::migrate::queue::{Queue, Wants, is_migratable};
use crate::migrate::{MigrateMode, MigrateReason, Request, Target};
use crate::mm::address_space::MmId;
use crate::mm::mapping::PAGE_BYTES;
use crate::mm::task::TaskId;
use crate::mm::vma::Vma;
use crate::observe::call_path::Caller;
use crate::policy::mempolicy::{MemPolicy, ModeWord, PolicyMode};
use crate::syscall::user::{UserMemory, read_mask};

const STRICT: u32 = 1 << 0;
const MOVE: u32 = 1 << 1;
const MOVE_ALL: u32 = 1 << 2;

/// The arguments of a call.
#[derive(Clone, Copy, Debug)]
pub struct MbindArgs {
    /// First byte.
    pub start: u64,
    /// Bytes; rounded up to pages.
    pub length: u64,
    /// Mode and mode flags.
    pub mode: i32,
    /// Address of the mask in the caller.
    pub mask: u64,
    /// Bits of the mask, plus one.
    pub maxnode: u64,
    /// `MPOL_MF_*`.
    pub flags: u32,
}

impl Machine {
    /// `mbind(start, length, mode, mask, maxnode, flags)`.
    ///
    /// # Errors
    ///
    /// In the order of the checks: `EINVAL`: mode; `EINVAL`, `EFAULT`: mask; `EINVAL`: flags;
    /// `EPERM`: `MPOL_MF_MOVE_ALL` without `CAP_SYS_NICE`; `EINVAL`: alignment, length, or nodes
    /// that do not fit the mode or the cpuset; `EFAULT`: a hole; `EIO`: a page that is not where
    /// `MPOL_MF_STRICT` wants it; `EINVAL`: a mapping that cannot be cut.
    ///
    /// # Panics
    ///
    /// When `caller` does not exist or has no memory.
    ///
    /// Source: mbind(2); behaviour spec 4.3; mm/mempolicy.c, `do_mbind`.
    pub fn mbind(
        &mut self,
        user: &dyn UserMemory,
        caller: TaskId,
        args: MbindArgs,
    ) -> Result<(), Errno> {
        let word = ModeWord::parse(args.mode, self.behaviour)?;
        let nodes = read_mask(user, args.mask, args.maxnode)?;
        if args.flags & !(STRICT | MOVE | MOVE_ALL) != 0 {
            return Err(Errno::EINVAL);
        }
        let credentials = self.tasks[&caller].credentials;
        if args.flags & MOVE_ALL != 0 && !credentials.sys_nice {
            return Err(Errno::EPERM);
        }
        if !args.start.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL);
        }
        let is_default = word.mode == PolicyMode::Default;
        let flags = if is_default { args.flags & !STRICT } else { args.flags };
        let length = args.length.wrapping_add(PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        let end = args.start.checked_add(length).ok_or(Errno::EINVAL)?;
        if end == args.start {
            return Ok(());
        }
        let policy = match MemPolicy::new(word, &nodes)? {
            Some(policy) => Some(self.contextualise(caller, policy, &nodes)?),
            None => None,
        };
        if flags & (MOVE | MOVE_ALL) != 0 {
            self.lru_drain_all();
        }
        let range = (args.start / PAGE_BYTES, end / PAGE_BYTES);
        self.do_mbind(caller, range, policy, &nodes, flags, is_default)
    }

    /// Fits a new policy to the caller's cpuset.
    pub(crate) fn contextualise(
        &self,
        caller: TaskId,
        policy: MemPolicy,
        nodes: &NodeSet,
    ) -> Result<MemPolicy, Errno> {
        let mems = self.tasks[&caller].mems_allowed;
        policy.contextualise(nodes, &mems, &self.nodes.with_memory, self.behaviour)
    }

    fn do_mbind(
        &mut self,
        caller: TaskId,
        range: (u64, u64),
        policy: Option<MemPolicy>,
        nodes: &NodeSet,
        flags: u32,
        is_default: bool,
    ) -> Result<(), Errno> {
        let mm = self.mm_of(caller).expect("a task that runs has memory");
        let only_look = flags & (STRICT | MOVE | MOVE_ALL) == STRICT;
        let mut queue = Queue::new(Wants::NotOn(nodes), flags & MOVE_ALL != 0, only_look);
        let walked = self.walk_range(mm, range, flags, is_default, &mut queue);
        let installed = walked.and_then(|()| self.install(mm, range, policy));
        let folios = std::mem::take(&mut queue.folios);
        if let Err(errno) = installed {
            self.put_back_all(folios);
            return Err(errno);
        }
        let stayed = !folios.is_empty() && self.move_misplaced(caller, mm, range, policy, folios);
        let strict = flags & STRICT != 0 && !self.planted(PlantedFault::StrictForgotten);
        if strict && (stayed || queue.failed > 0) { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Looks for holes and queues misplaced pages, VMA by VMA (spec 4.3.1).
    fn walk_range(
        &mut self,
        mm: MmId,
        (start, end): (u64, u64),
        flags: u32,
        is_default: bool,
        queue: &mut Queue<'_>,
    ) -> Result<(), Errno> {
        let vmas: Vec<Vma> = {
            let mm = self.mm(mm);
            let from = mm.find_from(start);
            mm.vmas[from..].iter().take_while(|vma| vma.start < end).cloned().collect()
        };
        if vmas.is_empty() {
            return Err(Errno::EFAULT);
        }
        for (position, vma) in vmas.iter().enumerate() {
            let next = vmas.get(position + 1).map(|next| next.start);
            let hole_before = position == 0 && vma.start > start;
            let hole_behind = vma.end < end && next != Some(vma.end);
            if (hole_before || hole_behind) && !is_default {
                return Err(Errno::EFAULT);
            }
            let looks = flags & (STRICT | MOVE | MOVE_ALL) != 0;
            if looks && (is_migratable(vma) || flags & STRICT != 0) {
                self.queue_range(mm, vma, (start, end), queue);
            }
            if queue.found_misplaced {
                return Err(Errno::EIO);
            }
        }
        Ok(())
    }

    /// Gives the policy to every VMA of the range, or to the file behind it. One that has the same
    /// policy is neither cut nor touched, whatever another mapping of its file has set since
    /// (`mbind_range`).
    pub(crate) fn install(
        &mut self,
        mm: MmId,
        (start, end): (u64, u64),
        policy: Option<MemPolicy>,
    ) -> Result<(), Errno> {
        let mut page = start;
        while page < end {
            let all = self.mm(mm);
            let vma = all.vmas.get(all.find_from(page)).filter(|vma| vma.start < end);
            let Some(vma) = vma else { break };
            let (from, upto) = (vma.start.max(page), vma.end.min(end));
            page = upto;
            let is_same = match (vma.policy.as_deref(), &policy) {
                (Some(old), Some(new)) => old.is_same(new, self.behaviour),
                (old, new) => old.is_none() && new.is_none(),
            };
            if !is_same {
                self.cut(mm, from, upto)?;
                self.replace_policy(mm, from, policy);
                self.mm_mut(mm).merge(from, upto);
            }
        }
        Ok(())
    }

    /// Gives the policy to the VMA that begins at `page`.
    fn replace_policy(&mut self, mm: MmId, page: u64, policy: Option<MemPolicy>) {
        let at = self.mm(mm).find_from(page);
        let vma = &mut self.mm_mut(mm).vmas[at];
        vma.policy = policy.map(Box::new);
        let (first, last) = (vma.pgoff, vma.pgoff + vma.pages());
        if let Some(file) = vma.file().filter(|&file| self.file(file).kind.has_shared_policy()) {
            self.file_mut(file).set_policy(first, last, policy);
        }
    }

    /// Runs the engine over the queued folios; `true`: some stayed (spec 4.3.2).
    fn move_misplaced(
        &mut self,
        caller: TaskId,
        mm: MmId,
        range: (u64, u64),
        policy: Option<MemPolicy>,
        folios: Vec<Pfn>,
    ) -> bool {
        let by = self.allocator(caller);
        let target = if self.behaviour.mbind_allocates_by_vma {
            Target::VmaPolicy { task: caller, from: range.0, by }
        } else {
            let policy = policy.or(self.tasks[&caller].policy);
            Target::Policy { policy, base: self.interleave_base(mm, range, &folios), by }
        };
        let request = Request {
            mode: MigrateMode::Sync,
            reason: MigrateReason::MempolicyMbind,
            target,
            caller: Caller::Mbind,
        };
        let outcome = self.migrate(folios, &request);
        self.put_back_all(outcome.left);
        outcome.result != Ok(0)
    }

    /// The base with which the first queued folio gets the node that its address would get.
    fn interleave_base(&self, mm: MmId, (start, end): (u64, u64), folios: &[Pfn]) -> u64 {
        let first = folios.iter().find(|&&head| !self.frames.owner(head).is_ksm());
        let Some(&head) = first else { return 0 };
        let mut mappings = Vec::new();
        self.mappings(head, &mut mappings);
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.mm == mm && (start..end).contains(&mapping.page))
            .or_else(|| mappings.iter().find(|mapping| mapping.mm == mm));
        let Some(vma) = mapping.and_then(|mapping| self.mm(mm).vma(mapping.page)) else { return 0 };
        let page = mapping.map_or(0, |mapping| mapping.page);
        let order = self.frames.order(head);
        let index = self.interleave_index(vma, page, order);
        index.wrapping_sub(self.folio_index(head) >> order)
    }
}
