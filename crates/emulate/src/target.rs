//! The process that migrate_pages(2) or move_pages(2) is about, and who may look into whom.
//!
//! User ids, capabilities and dumpability are the kernel's to know: they are read anew when a call
//! depends on them. Targets without memory, which are never met, are stood in for during the call: so
//! the order in which the model refuses stays the kernel's.
//!
//! Source: kernel, mm/migrate.c, `find_mm_struct`; kernel/ptrace.c, `__ptrace_may_access`;
//! fs/proc/base.c, `task_dump_owner`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use linux::Root;
use linux::proc::status::{self, Status};
use machine::CpuId;
use model::{Credentials, Errno, Machine, TaskId};

use crate::call::int;
use crate::call::{Answer, Call};
use crate::namespace;
use crate::pids;
use crate::world::World;

/// Makes a call of `caller` that is about process `pid` (0: the caller's own) once that process is
/// settled and what both may do is known.
pub(crate) fn call_about(
    world: &mut World,
    caller: TaskId,
    pid: i32,
    call: impl FnOnce(&mut Machine) -> Result<i64, Errno>,
) -> Answer {
    let number = if pid == 0 { caller.get() } else { pid };
    // A negative number is nobody's.
    let Ok(tid) = u32::try_from(number) else { return call(&mut world.machine).into() };
    learn_credentials(world, caller);
    end_if_dead(world, tid);
    if let Some(process) = world.process_of(tid) {
        world.before_change(process, None);
        world.look_at_sharers(process);
        if let Some(target) = world.task(tid).filter(|&target| target != caller) {
            learn_credentials(world, target);
        }
        return call(&mut world.machine).into();
    }
    match status::read(&Root::default(), tid) {
        Ok(status) if status.has_memory() => Answer::Error(libc::EPERM),
        Ok(status) => {
            let stand_in = spawn_without_memory(world, number, &status);
            let result = call(&mut world.machine);
            world.machine.reap(stand_in);
            result.into()
        }
        Err(_) => call(&mut world.machine).into(),
    }
}

/// The process whose memory a call is about.
pub(crate) fn process_about(world: &mut World, call: &Call) -> u32 {
    let caller = world.process_of_met(call.tid).unwrap_or(call.tid);
    let named = match call.number {
        libc::SYS_move_pages | libc::SYS_migrate_pages => {
            u32::try_from(pids::here(world, caller, call.tid, int(call.args[0]))).ok()
        }
        _ => None,
    };
    let thread = named.filter(|&pid| pid != 0).unwrap_or(call.tid);
    world.process_of_met(thread).unwrap_or(thread)
}

/// Reads what a thread is and may do.
pub(crate) fn learn_credentials(world: &mut World, task: TaskId) {
    let Ok(tid) = u32::try_from(task.get()) else { return };
    let Ok(status) = status::read(&Root::default(), tid) else { return };
    let credentials = credentials(&status, world.is_privileged());
    if world.machine.credentials(task) != Some(credentials) {
        world.machine.set_credentials(task, credentials);
    }
    world.machine.set_dumpable(task, is_dumpable(&status));
}

/// A kernel thread, or a process that has ended and was not waited for.
fn spawn_without_memory(world: &mut World, number: i32, status: &Status) -> TaskId {
    let cpu = world.cpus().iter().next().unwrap_or(CpuId::new(0).expect("0 is a CPU number"));
    let credentials = credentials(status, world.is_privileged());
    world.machine.set_last_task(number - 1);
    let task = world.machine.spawn(credentials, cpu);
    world.machine.exit(task);
    task
}

/// The end of a process may be known to the kernel before the supervisor was told.
fn end_if_dead(world: &mut World, pid: u32) {
    if !world.processes.contains_key(&pid) {
        return;
    }
    // The first thread may end before the others: the process lives on.
    let is_dead = |status: &Status| matches!(status.state, 'Z' | 'X') && status.threads <= 1;
    if status::read(&Root::default(), pid).ok().as_ref().is_none_or(is_dead) {
        world.end_process(pid);
        world.ended.insert(pid);
    }
}

/// `may_be_privileged`: a run that is not privileged itself gives no program capabilities, whatever
/// they have in a user namespace.
pub(crate) fn credentials(status: &Status, may_be_privileged: bool) -> Credentials {
    let [real, effective, saved, _] = status.uids;
    let in_ours = || namespace::of(status.pid, "user") == namespace::of(std::process::id(), "user");
    let has = |capability| may_be_privileged && status.is_capable(capability) && in_ours();
    Credentials {
        uids: [real, effective, saved],
        sys_nice: has(Status::CAP_SYS_NICE),
        sys_ptrace: has(Status::CAP_SYS_PTRACE),
    }
}

/// The files of a process that is not dumpable are root's; of root's own it cannot be told.
fn is_dumpable(status: &Status) -> bool {
    let owner = fs::metadata(format!("/proc/{}/stat", status.pid)).map(|stat| stat.uid());
    owner.is_ok_and(|owner| owner == status.uids[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_we_are_is_read_and_a_run_without_privileges_gives_none() {
        let own = status::read(&Root::default(), std::process::id()).unwrap();
        let ours = credentials(&own, false);
        assert_eq!(ours.uids[..], own.uids[..3]);
        assert!(!ours.sys_nice && !ours.sys_ptrace);
        assert_eq!(credentials(&own, true).sys_nice, own.is_capable(Status::CAP_SYS_NICE));
        assert!(is_dumpable(&own));
    }
}
