//! The calls that were handed over: the caller's words go to the model, its answer goes back.
//!
//! Which calls need the pages settled, and whose:
//!
//! - what asks where a page is, and what moves pages: the target's;
//! - what changes a policy or an affinity: the caller's (or target's), with all its children, who
//!   inherit what was there before;
//! - what only asks for a policy, a CPU or an affinity: nobody's.

use model::{Errno, GetMempolicyArgs, MbindArgs, MovePagesArrays, TaskId, UserMemory};

use crate::affinity;
use crate::call::{Answer, Call, int, unsigned};
use crate::filter::{ARCH, DROPPING_ADVICE, REMOVE, SYS_SET_MEMPOLICY_HOME_NODE};
use crate::pids;
use crate::process::Known;
use crate::remap::{self, Remap};
use crate::target;
use crate::user::Caller;
use crate::world::{Notice, World};

/// `MPOL_F_NODE`.
const NODE: u64 = 1 << 0;
/// `MPOL_F_ADDR`.
const BY_ADDRESS: u64 = 1 << 1;
/// `MPOL_MF_MOVE`.
const MOVE: u32 = 1 << 1;
/// `MPOL_MF_MOVE_ALL`.
const MOVE_ALL: u32 = 1 << 2;

impl From<Result<i64, Errno>> for Answer {
    fn from(result: Result<i64, Errno>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(errno) => Self::Error(errno.number()),
        }
    }
}

/// Answers a call.
pub(crate) fn answer(world: &mut World, call: &Call) -> Answer {
    let Some(pid) = world.process_of(call.tid) else { return Answer::Continue };
    if call.arch != ARCH {
        world.tell_once(
            Notice::ThirtyTwoBit,
            &format!("process {pid} is a 32-bit program: its NUMA calls are answered by ENOSYS"),
        );
        return Answer::Error(libc::ENOSYS);
    }
    let execs = matches!(call.number, libc::SYS_execve | libc::SYS_execveat);
    if !execs || world.processes.get(&pid).is_some_and(|process| process.getcpu.is_some()) {
        world.notice_exec(pid);
    }
    match call.number {
        libc::SYS_execve | libc::SYS_execveat => {
            world.execs(pid, call.tid);
            Answer::Continue
        }
        libc::SYS_exit => {
            thread_exits(world, pid, call.tid);
            Answer::Continue
        }
        libc::SYS_exit_group => {
            world.before_leaving(pid, call.tid);
            Answer::Continue
        }
        libc::SYS_munmap | libc::SYS_mmap => {
            drops(world, pid, call.args[0], call.args[1]);
            Answer::Continue
        }
        libc::SYS_madvise => {
            advises(world, pid, call.args[0], call.args[1], unsigned(call.args[2]));
            Answer::Continue
        }
        libc::SYS_mremap => {
            remap::before(world, pid, call.args);
            Answer::Continue
        }
        _ => about_numa(world, pid, call),
    }
}

fn about_numa(world: &mut World, pid: u32, call: &Call) -> Answer {
    if !is_about_numa(call.number) {
        return Answer::Continue;
    }
    world.adopt(pid);
    let Some(task) = world.task(call.tid) else { return Answer::Continue };
    let mut user = Caller::new(call.tid);
    let mut args = call.args;
    if names_a_process(call.number) {
        let number = pids::here(world, pid, call.tid, int(args[0]));
        args[0] = u64::from(number.cast_unsigned());
    }
    match call.number {
        libc::SYS_getcpu => getcpu(world, &mut user, task, args),
        libc::SYS_sched_getaffinity => affinity::get(world, &mut user, call.tid, args),
        libc::SYS_sched_setaffinity => affinity::set(world, &user, call.tid, args),
        libc::SYS_get_mempolicy => get_mempolicy(world, &mut user, pid, task, args),
        libc::SYS_set_mempolicy => {
            world.before_change(pid, Some(call.tid));
            let set = world.machine.set_mempolicy(&user, task, int(args[0]), args[1], args[2]);
            set.map(|()| 0).into()
        }
        libc::SYS_mbind => mbind(world, &user, pid, task, args),
        SYS_SET_MEMPOLICY_HOME_NODE => {
            world.before_change(pid, None);
            let [start, length, node, flags, ..] = args;
            let set = world.machine.set_mempolicy_home_node(task, start, length, node, flags);
            set.map(|()| 0).into()
        }
        libc::SYS_migrate_pages => migrate_pages(world, &user, task, args),
        _ => move_pages(world, &mut user, task, args),
    }
}

/// Whether the first word of a call is a pid.
const fn names_a_process(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_sched_getaffinity
            | libc::SYS_sched_setaffinity
            | libc::SYS_migrate_pages
            | libc::SYS_move_pages
    )
}

/// Whether the model answers this call: numbers of 32-bit calls mean others.
pub(crate) fn is_numa_call(call: &Call) -> bool {
    call.arch == ARCH && is_about_numa(call.number)
}

/// Whether the model answers a call with this number.
pub(crate) fn is_about_numa(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_getcpu
            | libc::SYS_sched_getaffinity
            | libc::SYS_sched_setaffinity
            | libc::SYS_get_mempolicy
            | libc::SYS_set_mempolicy
            | libc::SYS_mbind
            | SYS_SET_MEMPOLICY_HOME_NODE
            | libc::SYS_migrate_pages
            | libc::SYS_move_pages
    )
}

/// getcpu(2): both words are optional.
fn getcpu(world: &World, user: &mut Caller, task: TaskId, args: [u64; 6]) -> Answer {
    let Some(cpu) = world.machine.cpu(task) else { return Answer::Error(libc::EINVAL) };
    let nodes = world.machine.topology().nodes();
    let node = nodes.iter().find(|node| node.cpus.contains(cpu)).map_or(0, |node| node.id.get());
    let words = [(args[0], cpu.get()), (args[1], u32::from(node))];
    for (address, word) in words {
        if address != 0 && user.write(address, &word.to_ne_bytes()).is_err() {
            return Answer::Error(libc::EFAULT);
        }
    }
    Answer::Value(0)
}

fn get_mempolicy(
    world: &mut World,
    user: &mut Caller,
    pid: u32,
    task: TaskId,
    args: [u64; 6],
) -> Answer {
    let [mode, mask, maxnode, address, flags, _] = args;
    let args = GetMempolicyArgs { mode, mask, maxnode, address, flags };
    if flags == NODE | BY_ADDRESS && !world.machine.is_mask_too_short(args) {
        // The kernel faults the page in to see where it is. There may be no mapping.
        let _ = user.read(address, &mut [0]);
    }
    if flags & BY_ADDRESS != 0 {
        world.settle(pid);
    }
    world.machine.get_mempolicy(user, task, args).map(|()| 0).into()
}

fn mbind(world: &mut World, user: &Caller, pid: u32, task: TaskId, args: [u64; 6]) -> Answer {
    // A policy of a mapping is one for all threads; and the mapping may be new.
    world.before_change(pid, None);
    let [start, length, mode, mask, maxnode, flags] = args;
    let (mode, flags) = (int(mode), unsigned(flags));
    if flags & MOVE_ALL != 0 {
        target::learn_credentials(world, task);
    }
    if flags & MOVE != 0 {
        world.look_at_sharers(pid);
    }
    let args = MbindArgs { start, length, mode, mask, maxnode, flags };
    world.machine.mbind(user, task, args).map(|()| 0).into()
}

fn migrate_pages(world: &mut World, user: &Caller, task: TaskId, args: [u64; 6]) -> Answer {
    let [pid, maxnode, old, new, ..] = args;
    let pid = int(pid);
    target::call_about(world, task, pid, |machine| {
        machine.migrate_pages(user, task, pid, maxnode, old, new)
    })
}

fn move_pages(world: &mut World, user: &mut Caller, task: TaskId, args: [u64; 6]) -> Answer {
    let [pid, count, pages, nodes, status, flags] = args;
    let pid = int(pid);
    let arrays = MovePagesArrays { count, pages, nodes, status };
    target::call_about(world, task, pid, |machine| {
        machine.move_pages(user, task, pid, arrays, int(flags))
    })
}

/// A thread is about to end. Its last pages are placed while it is known, unless another thread that
/// lives on would have put them on the same node.
fn thread_exits(world: &mut World, pid: u32, tid: u32) {
    let threads = world.processes.get(&pid).map_or(0, |process| process.threads.len());
    if threads > 1 {
        match world.heir(pid, tid) {
            Some(heir) => world.bequeath_faults(pid, tid, heir),
            None => world.settle_for(pid, Some(tid)),
        }
        world.end_thread(pid, tid);
    } else {
        world.before_leaving(pid, tid);
    }
}

/// `[start, start + length)` as the kernel takes it, by its end; `None`: it refuses it, or does nothing.
fn range_end(start: u64, length: u64) -> Option<u64> {
    let is_range = start.is_multiple_of(4096) && length > 0;
    let end = is_range.then(|| start.checked_add(length)?.checked_next_multiple_of(4096)).flatten();
    end.filter(|&end| end <= model::USER_LIMIT)
}

/// A range is about to be unmapped, to be left so or to be mapped anew. Cheap where nothing was seen
/// mapped.
pub(crate) fn drops(world: &mut World, pid: u32, start: u64, length: u64) {
    let Some(end) = range_end(start, length) else { return };
    let is_followed = |it: &Remap| it.overlaps(start, end);
    if world.processes.get(&pid).is_some_and(|it| it.remaps.iter().any(is_followed)) {
        // What was there was moved, and is known here still.
        world.settle(pid);
    }
    let Some(task) = forgets(world, pid, start, end) else { return };
    if world.machine.is_mapped(task, start, end) {
        // A boundary that cannot be cut: the kernel refuses the call as well.
        let _ = world.machine.munmap(task, start, length);
    }
}

/// Pages of a range are about to be dropped by madvise(2); the mapping stays.
fn advises(world: &mut World, pid: u32, start: u64, length: u64, advice: u32) {
    let Some(end) = range_end(start, length) else { return };
    if advice == REMOVE {
        // Rare. Others may have the pages, and this process may never have been looked at.
        world.settle(pid);
        if let Some(task) = world.task(pid) {
            world.machine.remove_pages(task, start, end);
        }
    } else if DROPPING_ADVICE.contains(&advice)
        && let Some(task) = forgets(world, pid, start, end)
        && world.machine.knows(task, start, end)
    {
        world.machine.forget(task, start, end);
    }
}

/// Whoever touches a range next is not known. The task of a process that is in the model.
fn forgets(world: &mut World, pid: u32, start: u64, end: u64) -> Option<TaskId> {
    let process = world.processes.get_mut(&pid)?;
    if process.known != Known::InModel {
        return None;
    }
    process.first_touch.forget(start, end);
    world.task(pid)
}
