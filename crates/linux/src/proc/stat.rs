//! Reads `/proc/PID/stat`: when a process or thread was started, and on which CPU it ran last.
//!
//! Pid and start time together name a process for as long as the machine runs. The name stands in
//! parentheses and may hold blanks and parentheses: the last `)` ends it.
//!
//! Source: proc_pid_stat(5); kernel, fs/proc/array.c, `do_task_stat`.

use machine::CpuId;

use crate::{Malformed, ReadError, Root};

/// What stat says, as far as pagetide asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The id that the file is about.
    pub pid: u32,
    /// At most 15 bytes of the program's name.
    pub name: String,
    /// `R` running, `S` sleeping, `Z` zombie and so on.
    pub state: char,
    /// Threads of the process.
    pub threads: u32,
    /// When it was started, in clock ticks (mostly 10 ms) since boot.
    pub start_ticks: u64,
    /// The CPU on which it ran last.
    pub last_cpu: Option<CpuId>,
}

/// Reads the text of stat.
///
/// # Errors
///
/// When a field is missing or no number.
pub fn parse(text: &str) -> Result<Stat, Malformed> {
    fields(text).ok_or_else(|| Malformed::new(1, "not `PID (NAME) STATE ...` with 39 fields"))
}

fn fields(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    // The state is field 3 of the man page, so that field `n` is at `n - 3`.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
        threads: field(20)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
        last_cpu: CpuId::new(field(39)?.parse().ok()?),
    })
}

/// Start time and last CPU of a process.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root, pid: u32) -> Result<Stat, ReadError> {
    root.parse(super::path(pid, "stat"), parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_read_whole() {
        let text = format!("42 (a) b (c) S 1{}", " 7".repeat(40));
        let stat = parse(&text).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.state), (42, "a) b (c", 'S'));
        assert_eq!((stat.start_ticks, stat.last_cpu), (7, CpuId::new(7)));
    }

    #[test]
    fn our_own_start_time_is_what_procfs_reads() {
        let ours = read(&Root::default(), std::process::id()).unwrap();
        let theirs = procfs::process::Process::myself().unwrap().stat().unwrap();
        assert_eq!((ours.start_ticks, ours.name), (theirs.starttime, theirs.comm));
    }

    #[test]
    fn a_short_line_is_refused() {
        let error = parse("42 (a) S 1 2 3").unwrap_err();
        assert_eq!(error.to_string(), "line 1: not `PID (NAME) STATE ...` with 39 fields");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "[0-9]{0,3} ?\\(?[ -~]{0,30}\\)? ?([a-zA-Z0-9-]{1,4} ?){0,50}"
        ) {
            let _ = parse(&text);
        }
    }
}
