//! Asking where a thread may run: sched_getaffinity(2).

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
    let tid = i32::try_from(tid).ok().and_then(Pid::from_raw).ok_or(Errno::ESRCH)?;
    let cpus = rustix::thread::sched_getaffinity(Some(tid))
        .map_err(|error| Errno::from(error.raw_os_error()))?;
    let numbers = 0..u32::try_from(rustix::thread::CpuSet::MAX_CPU).unwrap_or(u32::MAX);
    let is_set = |&cpu: &u32| usize::try_from(cpu).is_ok_and(|cpu| cpus.is_set(cpu));
    Ok(numbers.filter(is_set).filter_map(CpuId::new).collect())
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
    fn thread_0_and_threads_that_are_not_there_are_none() {
        assert_eq!(thread_cpus(0), Err(Errno::ESRCH));
        assert_eq!(thread_cpus(u32::MAX), Err(Errno::ESRCH));
    }
}
