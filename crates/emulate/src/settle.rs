//! The rule of settling: pages that appeared since the last look are placed by the policy and the
//! CPU in force now, before anything is answered or changed that depends on where they are.
//!
//! What exists is the kernel's word: `/proc/PID/maps` for mappings, pagemap for pages. In a process
//! with several threads the one that touched a page is not known: each is given as many new pages
//! as it took page faults since the last look.

use std::collections::{BTreeMap, BTreeSet};

use linux::proc::maps::{Device, Mapping};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use model::{Fault, FileId, FileKind, Found, Machine, MapKind, Mirrored, Protection, TaskId};

use crate::first_touch::FirstTouch;
use crate::gone::Unmapped;
use crate::identity::{self, Identity};
use crate::process::Known;
use crate::remap;
use crate::scan::{self, Run};
use crate::world::{Notice, World};

/// What the kernel calls a file: its device, and its inode.
pub(crate) type FileKey = (Device, u64);

/// The name of shared anonymous memory, unless prctl(2) has given it another (`PR_SET_VMA_ANON_NAME`).
const SHARED_ANON: &str = "/dev/zero (deleted)";

/// Files that were seen mapped.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_inode: BTreeMap<FileKey, Mapped>,
    /// What a file on a device without a disk is.
    kinds: BTreeMap<Device, FileKind>,
    /// Files that nobody mapped before this look: what their inode numbers mean has been asked in it.
    new_in_look: BTreeSet<FileKey>,
    /// Pages of files in memory that nobody mapped, when it was last looked whether these exist.
    pub(crate) unmapped_pages_seen: u64,
}

/// A file that was seen mapped.
#[derive(Debug)]
struct Mapped {
    file: FileId,
    /// Of a file on a disk, if anything tells.
    identity: Option<Identity>,
}

/// Some page could not be placed.
struct Full;

impl World {
    /// Settles every process that was met, and those that it forked.
    pub(crate) fn settle_all(&mut self) {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.settle(pid));
    }

    /// Places the pages of a process that have appeared since the last look, and forgets those that
    /// are gone. A process that is ending is left as it was.
    pub(crate) fn settle(&mut self, pid: u32) {
        self.settle_for(pid, None);
    }

    /// The same before `thread` changes something of its own, or ends: as many new pages as it took
    /// page faults are placed, the others wait.
    pub(crate) fn settle_for(&mut self, pid: u32, thread: Option<u32>) {
        self.look(pid, thread);
        self.part_from_relatives(pid);
    }

    /// Places new pages and forgets those that are gone; of all threads, or of one.
    pub(crate) fn look(&mut self, pid: u32, only: Option<u32>) {
        if self.place_new_pages(pid, only).is_err() {
            self.tell_full(pid);
        }
    }

    /// A second thread is about to begin: what is there by now are the first one's pages.
    pub(crate) fn note_first_touch(&mut self, pid: u32, second: u32) {
        self.notice_exec(pid);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(pagemap) = process.pagemap(second) else { return };
        let Ok(runs) = scan::present_anywhere(pagemap) else { return self.settle(pid) };
        process.first_touch = FirstTouch::new(runs);
        // The page faults that they took are accounted for.
        process.new_faults(pid, None);
    }

    fn tell_full(&mut self, pid: u32) {
        let line = format!(
            "the machine is full: process {pid} has more memory than the nodes that its policy \
             allows have free; pages without a place are reported as not present"
        );
        self.tell_once(Notice::Full, &line);
    }

    fn place_new_pages(&mut self, pid: u32, only: Option<u32>) -> Result<(), Full> {
        self.adopt(pid);
        self.notice_exec(pid);
        let Some(task) = self.task(pid) else { return Ok(()) };
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let is_single = process.threads.len() == 1;
        let faults = process.new_faults(pid, only);
        let is_firsts_turn = only.is_none_or(|only| only == pid);
        let firsts_wait = is_firsts_turn && !process.first_touch.is_empty();
        if only.is_some() && faults.is_empty() && !firsts_wait {
            return Ok(());
        }
        let Some((tid, mappings)) = process.mappings() else { return Ok(()) };
        let mirrored = self.files.mirror(&mut self.machine, tid, &mappings);
        remap::follow(&mut self.machine, task, &mut process.remaps, &mirrored);
        let Some(pagemap) = process.pagemap(tid) else { return Ok(()) };
        let Ok(runs) = scan::present(pagemap, tid, &mirrored) else { return Ok(()) };
        self.machine.mirror(task, &mirrored);
        let faults = faults
            .into_iter()
            .filter_map(|(tid, faults)| Some((self.machine.task(tid.cast_signed())?, faults)));
        let noted = std::mem::take(&mut process.first_touch);
        let mut toucher = if is_single {
            Toucher::Only(task)
        } else {
            Toucher::Counted {
                noted,
                first: is_firsts_turn.then_some(task),
                threads: faults.collect(),
                rest: only.is_none().then_some(task),
            }
        };
        self.make_room();
        let mut placed = place_all(&mut self.machine, task, &mut toucher, &mirrored, &runs);
        if placed.is_err() && self.drop_gone_files() > 0 {
            placed = place_all(&mut self.machine, task, &mut toucher, &mirrored, &runs);
        }
        if let Toucher::Counted { noted, first: None, .. } = toucher
            && let Some(process) = self.processes.get_mut(&pid)
        {
            process.first_touch = noted;
        }
        placed
    }

    /// Pages that were shared after a fork and are a process's alone by now: somebody has copied
    /// them, or the others have gone. Who wrote first is not known; children are taken to have.
    pub(crate) fn part_from_relatives(&mut self, pid: u32) {
        if self.own_pages(pid).is_empty() {
            return;
        }
        let members = self.family(pid);
        members.iter().filter(|&&member| member != pid).for_each(|&member| self.look(member, None));
        for member in members {
            let Some(task) = self.task(member) else { continue };
            for address in self.own_pages(member) {
                if self.machine.unshare(task, address).is_err() {
                    self.tell_full(member);
                }
            }
        }
    }

    /// Whether a page moves depends on who else maps it: relatives may have mapped shared memory of
    /// this process since the last look.
    pub(crate) fn look_at_sharers(&mut self, pid: u32) {
        let members = self.family(pid);
        let shares = |task| self.machine.maps_shared_pages(task);
        if members.len() > 1 && self.task(pid).is_some_and(shares) {
            members.into_iter().filter(|&it| it != pid).for_each(|it| self.look(it, None));
        }
    }

    /// Those in the model that descend from one program by fork, the youngest first.
    fn family(&self, pid: u32) -> Vec<u32> {
        let Some(family) = self.processes.get(&pid).map(|process| process.family) else {
            return Vec::new();
        };
        let of_family = self
            .processes
            .iter()
            .filter(|(_, process)| process.family == family && process.known == Known::InModel);
        of_family.map(|(&member, _)| member).rev().collect()
    }

    /// Pages that the model shares with a relative, and the kernel does not.
    fn own_pages(&self, pid: u32) -> Vec<u64> {
        let Some(task) = self.task(pid) else { return Vec::new() };
        let runs = self.machine.copy_on_write_runs(task);
        let Some(process) = self.processes.get(&pid).filter(|_| !runs.is_empty()) else {
            return Vec::new();
        };
        process.open_pagemap().map(|pagemap| exclusive(pagemap, &runs)).unwrap_or_default()
    }
}

/// Whose first touch pages were.
enum Toucher {
    /// There is one thread.
    Only(TaskId),
    /// As many pages were a thread's as it took page faults.
    Counted {
        /// Pages that are known to be the first thread's.
        noted: FirstTouch,
        /// The first thread; `None`: its pages wait.
        first: Option<TaskId>,
        /// Threads with page faults that are not accounted for yet.
        threads: Vec<(TaskId, u64)>,
        /// Whose all others are; `None`: they wait.
        rest: Option<TaskId>,
    },
}

impl Toucher {
    /// Who touched the page at `start` in `run`, and those behind it up to which address, at most
    /// `end`. `None`: none of those who are asked about. `step` bytes are mapped at a page fault.
    fn of(&mut self, run: &Run, start: u64, end: u64, step: Step) -> (Option<TaskId>, u64) {
        let (noted, first, threads, rest) = match self {
            Self::Only(task) => return (Some(*task), end),
            Self::Counted { noted, first, threads, rest } => (noted, *first, threads, *rest),
        };
        let (is_noted, upto) = noted.at(run, start, end);
        let upto = end.min(upto.next_multiple_of(step.bytes));
        if is_noted {
            return (first, upto);
        }
        let pages = (upto - start).div_ceil(step.bytes);
        let has_all = |&at: &usize| threads[at].1 >= pages;
        let best = (0..threads.len()).filter(has_all).min_by_key(|&at| threads[at].1);
        let some = || threads.iter().position(|thread| thread.1 > 0);
        let Some(at) = best.or_else(some).filter(|_| step.is_counted) else { return (rest, upto) };
        let (task, faults) = &mut threads[at];
        let pages = pages.min(*faults);
        *faults -= pages;
        (Some(*task), upto.min(start.saturating_add(pages.saturating_mul(step.bytes))))
    }
}

/// What a page fault maps.
#[derive(Clone, Copy)]
struct Step {
    bytes: u64,
    /// Whether each is one page fault. Around a page of a file that is read, the kernel maps those that
    /// are cached: what that costs in page faults says nothing.
    is_counted: bool,
}

/// `any` is some thread of the process.
fn place_all(
    machine: &mut Machine,
    any: TaskId,
    toucher: &mut Toucher,
    mirrored: &[Mirrored],
    runs: &[Run],
) -> Result<(), Full> {
    let mut result = Ok(());
    let mut runs = runs.iter().peekable();
    for mapping in mirrored {
        let mut at = mapping.start;
        while let Some(run) = runs.peek().filter(|run| run.start < mapping.end) {
            let (start, end) = (run.start.max(mapping.start), run.end.min(mapping.end));
            if start < end {
                machine.forget(any, at, start);
                let run = Run { start, end, ..**run };
                let placed = place_run(machine, any, toucher, &run, mapping);
                result = result.and(placed);
                at = end;
            }
            if run.end > mapping.end {
                break;
            }
            runs.next();
        }
        machine.forget(any, at, mapping.end);
    }
    result
}

fn place_run(
    machine: &mut Machine,
    any: TaskId,
    toucher: &mut Toucher,
    run: &Run,
    mapping: &Mirrored,
) -> Result<(), Full> {
    let found = run.found(mapping, machine);
    if let Toucher::Only(task) = *toucher {
        return place(machine, task, run.start, run.end, found);
    }
    let step = Step {
        bytes: if found == Found::Huge { 2 << 20 } else { 4096 },
        is_counted: found != Found::File || matches!(mapping.kind, MapKind::Shared(..)),
    };
    for (mut start, end) in machine.unplaced(any, run.start, run.end, found) {
        while start < end {
            let (task, upto) = toucher.of(run, start, end, step);
            if let Some(task) = task {
                place(machine, task, start, upto, found)?;
            }
            start = upto;
        }
    }
    Ok(())
}

fn place(
    machine: &mut Machine,
    task: TaskId,
    start: u64,
    end: u64,
    found: Found,
) -> Result<(), Full> {
    match machine.place(task, start, end, found) {
        Err(Fault::OutOfMemory) if machine.drop_caches() > 0 => {
            machine.place(task, start, end, found).map_err(|_| Full)
        }
        Err(Fault::OutOfMemory) => Err(Full),
        // A mapping that the model could not mirror has no pages there.
        _ => Ok(()),
    }
}

/// Pages of these runs that are mapped once.
fn exclusive(pagemap: &Pagemap, runs: &[(u64, u64)]) -> Vec<u64> {
    const PAGE: u64 = 4096;
    let mut words = [0; 512];
    let mut found = Vec::new();
    for &(start, end) in runs {
        let mut at = start;
        while at < end {
            let many = usize::try_from((end - at) / PAGE).unwrap_or(usize::MAX).min(words.len());
            let Ok(read @ 1..) = pagemap.read_entries(at / PAGE, &mut words[..many]) else { break };
            for (&word, page) in words[..read].iter().zip((at..).step_by(4096)) {
                let entry = PagemapEntry(word);
                if entry.is_present() && entry.is_exclusive() {
                    found.push(page);
                }
            }
            at += PAGE * read as u64;
        }
    }
    found
}

impl Mapped {
    /// Whether the inode number may mean another file by now. Not while somebody maps it; and the numbers of
    /// files in memory are not given away again.
    fn may_be_another(&self, machine: &Machine) -> bool {
        machine.file_kind(self.file) == FileKind::Disk && !machine.is_file_mapped(self.file)
    }

    /// Whether a mapping with its inode number is of this file.
    fn is_of(&mut self, machine: &Machine, pid: u32, mapping: &Mapping) -> bool {
        let now = Identity::of(pid, mapping);
        if now.is_some() && self.identity.is_some() {
            return now == self.identity;
        }
        let is_named = identity::is_named(pid, mapping, machine.file_name(self.file));
        if is_named && now.is_some() {
            self.identity = now;
        }
        is_named
    }
}

impl Files {
    /// Files in memory that have pages and that nobody maps.
    pub(crate) fn unmapped(&self, machine: &Machine) -> Vec<Unmapped> {
        let has_pages = |it: &Mapped| machine.pages_without_mapping(it.file) > 0;
        let files = self.by_inode.iter().filter(|(_, it)| has_pages(it));
        let named = |(&key, it): (&FileKey, &Mapped)| Unmapped {
            key,
            file: it.file,
            name: machine.file_name(it.file).to_owned(),
        };
        files.map(named).collect()
    }

    /// The pages of all of them.
    pub(crate) fn unmapped_pages(&self, machine: &Machine) -> u64 {
        self.by_inode.values().map(|it| machine.pages_without_mapping(it.file)).sum()
    }

    /// A file has ceased to exist.
    pub(crate) fn forget(&mut self, key: FileKey) {
        self.by_inode.remove(&key);
    }

    /// The mappings of a process as the model sees them. Those of the kernel itself are its own.
    fn mirror(&mut self, machine: &mut Machine, pid: u32, mappings: &[Mapping]) -> Vec<Mirrored> {
        self.new_in_look.clear();
        mappings.iter().filter_map(|mapping| self.mirror_one(machine, pid, mapping)).collect()
    }

    fn mirror_one(
        &mut self,
        machine: &mut Machine,
        pid: u32,
        mapping: &Mapping,
    ) -> Option<Mirrored> {
        let (start, end) = (mapping.range.start(), mapping.range.end());
        let (vdso, vvar) = machine.vdso_files();
        let kind = match mapping.name.as_str() {
            "[vdso]" => MapKind::Private(vdso, 0),
            "[vvar]" => MapKind::Shared(vvar, 0),
            // What later kernels keep apart ([vvar_vclock], 6.13): none of the data.
            name if name.starts_with("[vvar") => MapKind::Shared(vvar, model::VVAR_PAGES),
            "[vsyscall]" => return None,
            // The inode of a segment of shmget(2) is its identifier, which may be 0.
            name if mapping.inode == 0 && !name.starts_with("/SYSV") => MapKind::Anon,
            _ => {
                let file = self.file(machine, pid, mapping);
                let offset = mapping.offset / 4096;
                if mapping.permissions.shared {
                    MapKind::Shared(file, offset)
                } else {
                    MapKind::Private(file, offset)
                }
            }
        };
        let protection = Protection {
            read: mapping.permissions.read,
            write: mapping.permissions.write,
            execute: mapping.permissions.execute,
        };
        (end <= model::USER_LIMIT).then_some(Mirrored { start, end, kind, protection })
    }

    fn file(&mut self, machine: &mut Machine, pid: u32, mapping: &Mapping) -> FileId {
        let key = (mapping.device, mapping.inode);
        if let Some(known) = self.by_inode.get_mut(&key) {
            if !known.may_be_another(machine) || !self.new_in_look.insert(key) {
                return known.file;
            }
            if known.is_of(machine, pid, mapping) {
                return known.file;
            }
            // The pages of a file go with it.
            machine.delete_file(known.file);
        }
        let kind = match mapping.name.as_str() {
            SHARED_ANON => FileKind::SharedAnon,
            name if name.starts_with("[anon_shmem:") => FileKind::SharedAnon,
            name if name.starts_with("/memfd:") => FileKind::Memfd,
            name if name.starts_with("/SYSV") => FileKind::Tmpfs,
            name if name.starts_with("/secretmem") => FileKind::Secret,
            _ => self.kind_on_device(pid, mapping),
        };
        let name = if kind == FileKind::SharedAnon { SHARED_ANON } else { &mapping.name };
        let file = machine.create_file(kind, name);
        let is_disk = kind == FileKind::Disk;
        let identity = is_disk.then(|| Identity::of(pid, mapping)).flatten();
        self.by_inode.insert(key, Mapped { file, identity });
        self.new_in_look.insert(key);
        file
    }

    fn kind_on_device(&mut self, pid: u32, mapping: &Mapping) -> FileKind {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        const RAMFS_MAGIC: u64 = 0x8584_58f6;
        if mapping.device.major != 0 {
            return FileKind::Disk;
        }
        *self.kinds.entry(mapping.device).or_insert_with(|| {
            // The path of a file that was removed ends in ` (deleted)`: its folder is as good.
            let folder = mapping.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let stat = rustix::fs::statfs(format!("/proc/{pid}/root{folder}/"));
            match stat.map(|stat| stat.f_type.cast_unsigned()) {
                Ok(TMPFS_MAGIC) => FileKind::Tmpfs,
                Ok(RAMFS_MAGIC) => FileKind::Ramfs,
                _ => FileKind::Disk,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use linux::proc::maps;
    use model::{KernelVersion, Options};

    use super::*;

    #[test]
    fn shared_memory_that_prctl_has_named_is_no_file_on_a_disk() {
        let topology = machine::load("two-socket").unwrap();
        let mut machine = Machine::boot(topology, KernelVersion::V6_12, Options::default());
        let line = "7f5c8c000000-7f5c8c200000 rw-s 00000000 00:01 2053  [anon_shmem:pool]\n";
        let mapping = &maps::parse(line).unwrap()[0];
        let file = Files::default().file(&mut machine, std::process::id(), mapping);
        assert_eq!(machine.file_kind(file), FileKind::SharedAnon);
        assert_eq!(machine.file_name(file), SHARED_ANON);
    }
}
