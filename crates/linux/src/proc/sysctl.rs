//! Reads single values under `/proc/sys`.

use crate::{ReadError, Root};

/// The identity of this boot: pids and start times of another one mean nothing.
///
/// # Errors
///
/// [`ReadError`].
pub fn boot_id(root: &Root) -> Result<String, ReadError> {
    root.read("proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// The version of the kernel, such as `6.12.117-amd64`.
///
/// # Errors
///
/// [`ReadError`].
pub fn kernel_release(root: &Root) -> Result<String, ReadError> {
    root.read("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned())
}

/// Automatic NUMA balancing: bit 0 for pages near their CPUs, bit 1 for tiers. `None` when the
/// kernel is built without it.
///
/// # Errors
///
/// [`ReadError`].
///
/// Source: kernel, Documentation/admin-guide/sysctl/kernel.rst, "numa_balancing".
pub fn numa_balancing(root: &Root) -> Result<Option<u32>, ReadError> {
    match root.value("proc/sys/kernel/numa_balancing") {
        Err(ReadError::NotFound { .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// Whether the kernel counts NUMA allocations (`numa_hit` and the like); where it does not, those
/// counters stand still. A kernel without the switch (before 4.15, or without NUMA) has it on.
///
/// # Errors
///
/// [`ReadError`].
///
/// Source: kernel, Documentation/admin-guide/sysctl/vm.rst, "numa_stat".
pub fn numa_stat(root: &Root) -> Result<bool, ReadError> {
    match root.value::<u32>("proc/sys/vm/numa_stat") {
        Err(ReadError::NotFound { .. }) => Ok(true),
        result => result.map(|value| value != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_kernel_without_balancing_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(numa_balancing(&root).unwrap(), None);
        fs::create_dir_all(folder.path().join("proc/sys/kernel")).unwrap();
        fs::write(folder.path().join("proc/sys/kernel/numa_balancing"), "2\n").unwrap();
        assert_eq!(numa_balancing(&root).unwrap(), Some(2));
    }

    #[test]
    fn this_boot_has_an_identity_and_a_kernel() {
        let root = Root::default();
        assert_eq!(boot_id(&root).unwrap().len(), 36);
        assert!(kernel_release(&root).unwrap().contains('.'));
    }
}
