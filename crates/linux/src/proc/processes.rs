//! Lists the processes of `/proc`. With `hidepid` mounts it shows the caller's own only.

use crate::{ReadError, Root};

/// The pids of all processes that we may see, in order. Kernel threads are among them.
///
/// # Errors
///
/// [`ReadError`].
pub fn pids(root: &Root) -> Result<Vec<u32>, ReadError> {
    let numbers = root.numbers("proc", "", "")?;
    Ok(numbers.into_iter().filter_map(|pid| pid.try_into().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_among_all_processes() {
        assert!(pids(&Root::default()).unwrap().contains(&std::process::id()));
    }
}
