//! Where a thread may run: sched_getaffinity(2) and sched_setaffinity(2).

use machine::{CpuId, CpuSet};
use rustix::process::Pid;

use crate::Errno;

/// CPUs where a thread may run. Unlike the list in its status file, CPUs that are offline are left
/// out.
///
/// # Errors
///
/// - `ESRCH`: no such thread.
/// - `EINVAL`: the kernel knows more than the 1024 CPUs that fit in a `cpu_set_t`.
///
/// Source: sched_getaffinity(2).
#[doc(alias = "sched_getaffinity")]
pub fn thread_cpus(tid: u32) -> Result<CpuSet, Errno> {
    let cpus = rustix::thread::sched_getaffinity(Some(thread(tid)?)).map_err(errno)?;
    let numbers = 0..u32::try_from(rustix::thread::CpuSet::MAX_CPU).unwrap_or(u32::MAX);
    let is_set = |&cpu: &u32| usize::try_from(cpu).is_ok_and(|cpu| cpus.is_set(cpu));
    Ok(numbers.filter(is_set).filter_map(CpuId::new).collect())
}

/// Lets a thread run on these CPUs only.
///
/// # Errors
///
/// - `ESRCH`: no such thread.
/// - `EPERM`: it is another user's, and we lack `CAP_SYS_NICE`.
/// - `EINVAL`: none of the CPUs is there and allowed by its cpuset.
///
/// Source: sched_setaffinity(2).
#[doc(alias = "sched_setaffinity")]
pub fn set_thread_cpus(tid: u32, cpus: &CpuSet) -> Result<(), Errno> {
    let mut set = rustix::thread::CpuSet::new();
    let numbers = cpus.iter().filter_map(|cpu| usize::try_from(cpu.get()).ok());
    for cpu in numbers.filter(|&cpu| cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(Some(thread(tid)?), &set).map_err(errno)
}

fn thread(tid: u32) -> Result<Pid, Errno> {
    i32::try_from(tid).ok().and_then(Pid::from_raw).ok_or(Errno::ESRCH)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;
    use crate::proc::status;

    #[test]
    fn a_thread_of_ours_may_run_where_its_status_file_says() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let file = status::read(&Root::default(), tid).unwrap();
        assert_eq!(thread_cpus(tid).unwrap(), file.cpus_allowed);
    }

    #[test]
    fn a_thread_may_be_kept_to_the_cpus_that_it_has_and_to_no_cpu_that_is_not_there() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let cpus = thread_cpus(tid).unwrap();
        assert_eq!(set_thread_cpus(tid, &cpus), Ok(()));
        assert_eq!(set_thread_cpus(tid, &CpuSet::default()), Err(Errno::EINVAL));
        assert_eq!(thread_cpus(tid).unwrap(), cpus);
    }

    #[test]
    fn thread_0_and_threads_that_are_not_there_are_none() {
        assert_eq!(thread_cpus(0), Err(Errno::ESRCH));
        assert_eq!(thread_cpus(u32::MAX), Err(Errno::ESRCH));
    }
}
