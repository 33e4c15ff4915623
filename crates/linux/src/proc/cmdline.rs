//! Reads `/proc/PID/cmdline`: the arguments that a process was started with, unless it changed
//! them. Empty for kernel threads and zombies.
//!
//! Source: proc_pid_cmdline(5).

use crate::{ReadError, Root};

/// Splits the text of cmdline, in which a NUL ends each argument.
#[must_use]
pub fn parse(text: &str) -> Vec<String> {
    let text = text.trim_end_matches('\0');
    if text.is_empty() { Vec::new() } else { text.split('\0').map(str::to_owned).collect() }
}

/// The arguments of a process.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root, pid: u32) -> Result<Vec<String>, ReadError> {
    root.read(super::path(pid, "cmdline")).map(|text| parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_end_with_a_nul_and_may_be_empty() {
        assert_eq!(parse("a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(parse("postgres: writer   \0\0\0"), ["postgres: writer   "]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn our_own_arguments_are_those_that_the_standard_library_has() {
        let ours = read(&Root::default(), std::process::id()).unwrap();
        assert_eq!(ours, std::env::args().collect::<Vec<_>>());
    }
}
