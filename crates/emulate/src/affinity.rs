//! sched_setaffinity(2) and sched_getaffinity(2), over the machine's CPUs.
//!
//! The real affinity is left alone: the machine's CPUs are not this computer's. A thread runs where
//! it ran if it still may, else on the first CPU that is allowed.
//!
//! Source: sched_setaffinity(2); kernel, kernel/sched/syscalls.c.

use machine::{CpuId, CpuSet};
use model::UserMemory;

use crate::call::{Answer, int};
use crate::user::Caller;
use crate::world::World;

/// Bytes of the kernel's CPU mask: whole words that hold all CPU numbers.
fn mask_bytes(numbers: usize) -> usize {
    numbers.div_ceil(64) * 8
}

const fn number(cpu: CpuId) -> usize {
    cpu.get() as usize
}

/// One more than the highest CPU number.
fn cpu_numbers(world: &World) -> usize {
    world.cpus().iter().last().map_or(1, |cpu| number(cpu) + 1)
}

/// The thread that a call is about: of ours, another that lives, or none.
enum Target {
    Ours(u32),
    Stranger,
    None,
}

fn target(world: &mut World, caller: u32, pid: i32) -> Target {
    let Ok(tid) = u32::try_from(pid) else { return Target::None };
    let tid = if tid == 0 { caller } else { tid };
    match world.process_of(tid) {
        Some(process) => {
            world.adopt(process);
            Target::Ours(tid)
        }
        None if std::fs::exists(format!("/proc/{tid}")).unwrap_or(false) => Target::Stranger,
        None => Target::None,
    }
}

/// `sched_getaffinity(pid, length, mask)`: the bytes stored.
pub(crate) fn get(world: &mut World, user: &mut Caller, caller: u32, args: [u64; 6]) -> Answer {
    let [pid, length, mask, ..] = args;
    let numbers = cpu_numbers(world);
    let length = usize::try_from(length & 0xffff_ffff).unwrap_or(usize::MAX);
    if length.saturating_mul(8) < numbers || !length.is_multiple_of(8) {
        return Answer::Error(libc::EINVAL);
    }
    let allowed = match target(world, caller, int(pid)) {
        Target::Ours(tid) => world.thread(tid).map(|thread| thread.allowed.clone()),
        Target::Stranger => Some(world.cpus()),
        Target::None => None,
    };
    let Some(allowed) = allowed else { return Answer::Error(libc::ESRCH) };
    let mut bytes = vec![0u8; length.min(mask_bytes(numbers))];
    for cpu in allowed.iter() {
        let bit = number(cpu);
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    match user.write(mask, &bytes) {
        Ok(()) => Answer::Value(i64::try_from(bytes.len()).unwrap_or(i64::MAX)),
        Err(_) => Answer::Error(libc::EFAULT),
    }
}

/// `sched_setaffinity(pid, length, mask)`.
pub(crate) fn set(world: &mut World, user: &Caller, caller: u32, args: [u64; 6]) -> Answer {
    let [pid, length, mask, ..] = args;
    let length = usize::try_from(length & 0xffff_ffff).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(mask_bytes(cpu_numbers(world)))];
    if user.read(mask, &mut bytes).is_err() {
        return Answer::Error(libc::EFAULT);
    }
    let tid = match target(world, caller, int(pid)) {
        Target::Ours(tid) => tid,
        Target::Stranger => return Answer::Error(libc::EPERM),
        Target::None => return Answer::Error(libc::ESRCH),
    };
    let wanted = |cpu: &CpuId| {
        let bit = number(*cpu);
        bytes.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    };
    let allowed: CpuSet = world.cpus().iter().filter(wanted).collect();
    let Some(first) = allowed.iter().next() else { return Answer::Error(libc::EINVAL) };
    let Some(process) = world.process_of(tid) else { return Answer::Error(libc::ESRCH) };
    world.before_change(process, Some(tid));
    if let Some(task) = world.task(tid) {
        let stays = world.machine.cpu(task).is_some_and(|cpu| allowed.contains(cpu));
        if !stays {
            // The CPU is one of the machine's, and the task exists.
            let _ = world.machine.set_cpu(task, first);
        }
    }
    if let Some(thread) = world.thread_mut(tid) {
        thread.allowed = allowed;
    }
    Answer::Value(0)
}
