//! A capability of the calling thread, given up for the length of one call.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::Errno;

/// Calls `call` while this thread, and no other, is without `CAP_SYS_NICE`: migrate_pages(2) has no
/// flag that says whether shared pages go along, but asks for that capability. It is in effect again
/// afterwards, also when `call` panics.
///
/// # Errors
///
/// Why the capability could not be given up; `call` was not called then.
///
/// Source: capget(2); behaviour spec 2.1.
#[doc(alias = "capset")]
pub fn without_sys_nice<T>(call: impl FnOnce() -> T) -> Result<T, Errno> {
    let before = capabilities(None).map_err(errno)?;
    if !before.effective.contains(CapabilitySet::SYS_NICE) {
        return Ok(call());
    }
    let effective = before.effective - CapabilitySet::SYS_NICE;
    set_capabilities(None, CapabilitySets { effective, ..before }).map_err(errno)?;
    let _restored = Restored(before);
    Ok(call())
}

/// Puts the thread's capabilities back when dropped.
struct Restored(CapabilitySets);

impl Drop for Restored {
    fn drop(&mut self) {
        // What is permitted can always be put into effect, and nothing else is asked for.
        let _ = set_capabilities(None, self.0);
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective() -> CapabilitySet {
        capabilities(None).unwrap().effective
    }

    #[test]
    fn the_capability_is_gone_during_the_call_and_back_after_it() {
        let before = effective();
        let during = without_sys_nice(effective).unwrap();
        assert_eq!(during, before - CapabilitySet::SYS_NICE);
        assert_eq!(effective(), before);
    }

    #[test]
    fn other_threads_keep_the_capability() {
        let before = effective();
        let main = rustix::thread::gettid();
        std::thread::spawn(move || {
            let theirs = || capabilities(Some(main)).unwrap().effective;
            assert_eq!(without_sys_nice(theirs).unwrap(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_panic_in_the_call_does_not_cost_the_capability() {
        let before = effective();
        let panicked = std::panic::catch_unwind(|| without_sys_nice(|| panic!("as it happens")));
        assert!(panicked.is_err());
        assert_eq!(effective(), before);
    }
}
