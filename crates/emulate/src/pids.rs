//! Ids of processes and threads as a caller means them: a program may have made a pid namespace
//! (`unshare -p`, bwrap, a sandbox of a build), and its numbers are not ours then.
//!
//! Called for the calls that name a process. Whom nobody has met has no number here.
//!
//! Source: pid_namespaces(7); proc(5), `NSpid`.

use linux::Root;
use linux::proc::status;

use crate::namespace;
use crate::world::World;

/// A number that the kernel gives nobody: more than the limit of `/proc/sys/kernel/pid_max`.
const NOBODY: i32 = i32::MAX;

/// What `pid` of `caller`, a thread of process `process`, is here. 0 is the caller itself everywhere.
pub(crate) fn here(world: &mut World, process: u32, caller: u32, pid: i32) -> i32 {
    if pid <= 0 || !is_apart(world, process) {
        return pid;
    }
    let Some(level) = numbers(caller).len().checked_sub(1) else { return pid };
    let own = namespace::of(caller, "pid");
    let is_meant = |tid: u32| {
        let all = numbers(tid);
        let is_named = all.get(level).is_some_and(|&number| i32::try_from(number) == Ok(pid));
        // One that is in a namespace further in has a number in the caller's, too.
        is_named && (all.len() > level + 1 || namespace::of(tid, "pid") == own)
    };
    let met = world.processes.values().flat_map(|process| process.threads.keys().copied());
    let found = std::iter::once(caller).chain(met).find(|&tid| is_meant(tid));
    found.and_then(|tid| i32::try_from(tid).ok()).unwrap_or(NOBODY)
}

/// Whether a process is in a pid namespace further in than we are. It never changes.
fn is_apart(world: &mut World, pid: u32) -> bool {
    let Some(process) = world.processes.get_mut(&pid) else { return false };
    *process.is_apart.get_or_insert_with(|| numbers(pid).len() > numbers(std::process::id()).len())
}

/// The numbers of a thread, from our namespace to its own; none: it has ended.
fn numbers(tid: u32) -> Vec<u32> {
    status::read(&Root::default(), tid).map(|status| status.namespace_pids).unwrap_or_default()
}
