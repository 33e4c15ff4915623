//! What a guest's console tells about its death.
//!
//! The console goes to a file; it is read when a guest has failed, and not before.

use std::fs;
use std::path::Path;

/// Signs of death in the kernel's words and our init's, worst first.
const SIGNS: [&str; 10] = [
    "Kernel panic",
    "Oops:",
    "BUG:",
    "general protection fault",
    "soft lockup",
    "hard LOCKUP",
    "rcu: INFO:",
    "blocked for more than",
    "Out of memory:",
    "pagetide init: cannot serve",
];

/// Lines that are shown.
const TAIL_LINES: usize = 20;

/// The end of a console's output, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The line that tells most; `None` when the kernel did not complain.
    pub verdict: Option<String>,
    /// The last lines.
    pub tail: String,
}

impl Console {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        Self::of(&String::from_utf8_lossy(&bytes))
    }

    fn of(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        let sign = |sign| lines.iter().find(|line| line.contains(sign));
        let verdict = SIGNS.into_iter().find_map(sign).map(|line| without_time(line).to_owned());
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Self { verdict, tail }
    }
}

/// A console line without the kernel's `[    1.234567] ` before it.
fn without_time(line: &str) -> &str {
    match line.split_once("] ") {
        Some((time, rest)) if time.starts_with('[') => rest.trim_start(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_verdict_whatever_else_the_kernel_said() {
        let console = Console::of(
            "[    1.5] rcu: INFO: rcu_sched self-detected stall on CPU\r\n\
             [    2.5] Kernel panic - not syncing: Attempted to kill init!\r\n\
             [    2.6] CPU: 0 PID: 1\r\n",
        );
        let panic = "Kernel panic - not syncing: Attempted to kill init!";
        assert_eq!(console.verdict.as_deref(), Some(panic));
        assert!(console.tail.ends_with("CPU: 0 PID: 1"));
    }

    #[test]
    fn a_console_without_complaint_has_no_verdict_and_a_short_tail() {
        let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let console = Console::of(&text);
        assert_eq!(console.verdict, None);
        assert_eq!(console.tail.lines().count(), TAIL_LINES);
        assert!(console.tail.ends_with("line 99"));
    }
}
