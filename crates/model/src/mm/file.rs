//! Files, and memory that is managed like one: page cache, shared policy, and who maps it.

use std::collections::BTreeMap;

use crate::Machine;
use crate::convert::next_id;
use crate::errno::Errno;
use crate::memory::frames::{Order, PMD_ORDER, Pfn, flag};
use crate::memory::owner::{FileId, Owner};
use crate::mm::address_space::MmId;
use crate::mm::task::TaskId;
use crate::mm::vma::{Vma, vm};
use crate::policy::mempolicy::MemPolicy;
use crate::policy::placement::Placing;

/// What a file is, as far as its pages differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Shared anonymous memory.
    SharedAnon,
    /// A memfd.
    Memfd,
    /// A file on tmpfs.
    Tmpfs,
    /// A file on ramfs: pages have no migration callback, and written ones stay dirty for ever.
    Ramfs,
    /// A file on a disk file system.
    Disk,
    /// A memfd_secret: pages never migrate.
    Secret,
    /// Memory of a hugetlb pool, of this order.
    Hugetlb(Order),
    /// Code that the kernel maps into every process.
    Vdso,
    /// Data beside the vdso.
    Vvar,
}

impl FileKind {
    /// Policies belong to the file and not to the mapping (spec 4.7).
    pub(crate) const fn has_shared_policy(self) -> bool {
        matches!(self, Self::SharedAnon | Self::Memfd | Self::Tmpfs)
    }

    /// Pages are swap-backed: dirty ones need no file system to be moved.
    pub(crate) const fn is_shmem(self) -> bool {
        self.has_shared_policy()
    }
}

/// A policy for pages `[start, end)` of a file.
#[derive(Clone, Debug, PartialEq)]
struct PolicyRange {
    start: u64,
    end: u64,
    policy: MemPolicy,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    pub(crate) kind: FileKind,
    /// Path as numa_maps prints it.
    pub(crate) name: String,
    pub(crate) inode: u64,
    /// Folios by the page offset of their head.
    pub(crate) pages: BTreeMap<u64, Pfn>,
    policies: Vec<PolicyRange>,
    /// Address spaces that have a VMA of it.
    pub(crate) mappers: Vec<MmId>,
    /// Huge pages that are promised to its mappings and not yet taken.
    pub(crate) reserved: u64,
}

impl File {
    pub(crate) fn policy_at(&self, offset: u64) -> Option<MemPolicy> {
        self.policies
            .iter()
            .find(|range| (range.start..range.end).contains(&offset))
            .map(|range| range.policy)
    }

    /// Replaces the policy of `[start, end)`.
    pub(crate) fn set_policy(&mut self, start: u64, end: u64, policy: Option<MemPolicy>) {
        let mut kept = Vec::new();
        for range in self.policies.drain(..) {
            if range.start < start.min(range.end) {
                kept.push(PolicyRange { end: range.end.min(start), ..range.clone() });
            }
            if range.end > end.max(range.start) {
                kept.push(PolicyRange { start: range.start.max(end), ..range });
            }
        }
        if let Some(policy) = policy {
            kept.push(PolicyRange { start, end, policy });
        }
        kept.sort_by_key(|range| range.start);
        self.policies = kept;
    }
}

impl Machine {
    /// Makes an empty file. `name` is its path as `/proc/PID/numa_maps` shows it.
    pub fn create_file(&mut self, kind: FileKind, name: &str) -> FileId {
        let id = FileId(next_id(self.files.len()));
        self.files.push(File {
            kind,
            name: name.to_owned(),
            inode: self.files.len() as u64 + 1,
            pages: BTreeMap::new(),
            policies: Vec::new(),
            mappers: Vec::new(),
            reserved: 0,
        });
        id
    }

    /// The name that it was made with.
    pub fn file_name(&self, id: FileId) -> &str {
        &self.file(id).name
    }

    /// What it is.
    pub fn file_kind(&self, id: FileId) -> FileKind {
        self.file(id).kind
    }

    pub(crate) fn file(&self, id: FileId) -> &File {
        &self.files[id.0 as usize]
    }

    pub(crate) fn file_mut(&mut self, id: FileId) -> &mut File {
        &mut self.files[id.0 as usize]
    }

    /// Forgets an address space among the mappers when its last VMA of the file is gone; memory
    /// that only mappings keep alive goes with the last mapper.
    pub(crate) fn leave_file(&mut self, id: FileId, mm: MmId) {
        let still = self.mms[mm.0 as usize]
            .as_ref()
            .is_some_and(|mm| mm.vmas.iter().any(|vma| vma.file() == Some(id)));
        if still {
            return;
        }
        let file = self.file_mut(id);
        file.mappers.retain(|&mapper| mapper != mm);
        let kept = !matches!(file.kind, FileKind::SharedAnon | FileKind::Hugetlb(_));
        if !file.mappers.is_empty() || kept {
            return;
        }
        let reserved = std::mem::take(&mut file.reserved);
        if let FileKind::Hugetlb(order) = file.kind {
            self.hugetlb.unreserve(order, reserved);
        }
        self.drop_pages(id);
    }

    /// Takes all pages out of the cache of a file that nobody maps. How many folios.
    pub(super) fn drop_pages(&mut self, id: FileId) -> u64 {
        let pages = std::mem::take(&mut self.file_mut(id).pages);
        self.free_cached(pages)
    }

    /// Frees folios that were taken out of a file's cache. How many.
    fn free_cached(&mut self, folios: BTreeMap<u64, Pfn>) -> u64 {
        let many = folios.len() as u64;
        for folio in folios.into_values() {
            self.frames.set_owner(folio, Owner::None);
            self.free_if_unused(folio);
        }
        many
    }

    /// A hole is punched into a file: the pages at `[start, end)` are gone, for all who map them.
    /// Private copies stay. For files whose folios are single pages.
    pub(super) fn punch_hole(&mut self, id: FileId, start: u64, end: u64) {
        for mm in self.file(id).mappers.clone() {
            let of_file = self.mm(mm).vmas.iter().filter(|vma| vma.file() == Some(id));
            let parts: Vec<(u64, u64, bool)> = of_file
                .filter_map(|vma| {
                    let from = start.max(vma.pgoff);
                    let upto = end.min(vma.pgoff + vma.pages());
                    let page = |offset| vma.start + (offset - vma.pgoff);
                    (from < upto).then(|| (page(from), page(upto), vma.is_shared()))
                })
                .collect();
            for (from, upto, is_shared) in parts {
                if is_shared {
                    self.discard(mm, from, upto);
                } else {
                    self.zap_pages_of_file(mm, from, upto);
                }
                self.release_tables(mm, from, upto);
            }
        }
        let pages = &mut self.file_mut(id).pages;
        let mut gone = pages.split_off(&start);
        pages.append(&mut gone.split_off(&end));
        self.free_cached(gone);
    }

    /// Takes out of a private mapping what is of the file still.
    fn zap_pages_of_file(&mut self, mm: MmId, start: u64, end: u64) {
        for page in start..end {
            let of_file = |pfn| {
                let owner = self.frames.owner(self.frames.head(pfn));
                matches!(owner, Owner::File { .. })
            };
            if self.entry(mm, page).0.mapped().is_some_and(of_file) {
                self.zap(mm, page, page + 1);
            }
        }
    }

    /// The page cache page at `offset`, brought in by `task` if needed; new pages are placed by
    /// `placing` (spec 4.7: shmem by file or thread policy, other files by the thread's).
    pub(crate) fn cache_page(
        &mut self,
        task: TaskId,
        id: FileId,
        offset: u64,
        placing: &Placing,
    ) -> Option<Pfn> {
        if let Some(&page) = self.file(id).pages.get(&offset) {
            return Some(page);
        }
        let by = self.allocator(task);
        let page = self.allocate_by(&by, placing, 0)?;
        self.frames.set_owner(page, Owner::File { file: id, index: offset });
        let kind = self.file(id).kind;
        if kind.is_shmem() {
            self.frames.set(page, flag::SWAP_BACKED);
        }
        self.file_mut(id).pages.insert(offset, page);
        self.lru_add(page, self.tasks[&task].cpu);
        Some(page)
    }

    /// The placing of a file page that `task` brings in without a mapping (read(2), write(2)).
    fn placing_of_file(&self, task: TaskId, id: FileId, offset: u64) -> Placing {
        let file = self.file(id);
        let policy = file.policy_at(offset).or(self.tasks[&task].policy);
        Placing { policy, index: file.inode + offset }
    }

    /// write(2) of whole pages at page offsets `[start, end)`: fills them with `token`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no node that is allowed has a free page.
    pub fn write_file(
        &mut self,
        task: TaskId,
        file: FileId,
        start: u64,
        end: u64,
        token: u32,
    ) -> Result<(), Errno> {
        for offset in start..end {
            let placing = self.placing_of_file(task, file, offset);
            let page = self.cache_page(task, file, offset, &placing).ok_or(Errno::ENOMEM)?;
            self.frames.set_token(page, token);
            self.frames.set(page, flag::DIRTY);
        }
        Ok(())
    }

    /// read(2) of whole pages at page offsets `[start, end)`: the tokens found; zero for holes.
    pub fn read_file(&self, file: FileId, start: u64, end: u64) -> Vec<u32> {
        let pages = &self.file(file).pages;
        (start..end)
            .map(|offset| pages.get(&offset).map_or(0, |&page| self.frames.token(page)))
            .collect()
    }

    /// Pages of an ordinary file are placed by the thread policy, whatever the mapping says.
    pub(crate) fn placing_in_file(
        &self,
        task: TaskId,
        vma: &Vma,
        page: u64,
        id: FileId,
    ) -> Placing {
        let placing = self.placing(task, vma, page, 0);
        if self.file(id).kind.has_shared_policy() {
            placing
        } else {
            Placing { policy: self.tasks[&task].policy, ..placing }
        }
    }

    /// Order of the folios of a file.
    pub(crate) fn folio_order(&self, id: FileId) -> Order {
        match self.file(id).kind {
            FileKind::Hugetlb(order) => order,
            _ => 0,
        }
    }

    /// Pages of the units in which a VMA is mapped: 1, or the size of its huge pages.
    pub(crate) fn unit_pages(&self, vma: &Vma) -> u64 {
        let order = vma.file().map_or(0, |file| self.folio_order(file));
        1 << order.max(if vma.has(vm::HUGETLB) { PMD_ORDER } else { 0 })
    }
}
