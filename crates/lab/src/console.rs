//! What a guest's log tells about its death: its console, and QEMU's complaints.
//!
//! It is read when a guest has failed, and not before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A breakpoint that nobody has set: what a kernel after 6.1 dies of when QEMU has translated wrongly what
/// was being patched ([`crate::Accel::TcgParallel`]).
const LOST_BREAKPOINT: &str = "int3: 0000 [#";

/// Signs of death, worst first: in the kernel's words, our init's, and QEMU's.
const SIGNS: [&str; 13] = [
    LOST_BREAKPOINT,
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
    "qemu-system-x86_64: ",
    "qemu: ",
];

/// How far back signs are looked for; a program may have written a lot to the console.
const LOG_BYTES_READ: u64 = 256 << 10;
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
    /// Reads the last part of a log. A log that cannot be read says nothing.
    pub(crate) fn read(log: &File) -> Self {
        let bytes = last_bytes(log).unwrap_or_default();
        Self::of(&String::from_utf8_lossy(&bytes))
    }

    /// Whether the emulator is to blame, and not who used the guest.
    pub(crate) fn blames_emulator(&self) -> bool {
        self.verdict.as_ref().is_some_and(|line| line.contains(LOST_BREAKPOINT))
    }

    fn of(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        let sign =
            |sign| lines.iter().find(|line| line.contains(sign) && !line.contains("warning:"));
        let verdict = SIGNS.into_iter().find_map(sign).map(|line| without_time(line).to_owned());
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Self { verdict, tail }
    }
}

fn last_bytes(log: &File) -> io::Result<Vec<u8>> {
    let mut at = log.metadata()?.len().saturating_sub(LOG_BYTES_READ);
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    // By position: the file's own is shared with QEMU.
    while let count @ 1.. = log.read_at(&mut piece, at)? {
        bytes.extend_from_slice(&piece[..count]);
        at += count as u64;
    }
    Ok(bytes)
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
    fn a_breakpoint_that_nobody_has_set_is_blamed_on_the_emulator_and_a_panic_is_not() {
        let panic = "[    2.6] Kernel panic - not syncing: Fatal exception in interrupt\n";
        for oops in [
            "[    2.5] int3: 0000 [#1] PREEMPT SMP NOPTI\n",
            "[    2.5] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n",
        ] {
            assert!(Console::of(&(oops.to_owned() + panic)).blames_emulator());
        }
        assert!(!Console::of(panic).blames_emulator());
    }

    #[test]
    fn a_complaint_of_qemu_is_the_verdict_and_a_warning_is_not() {
        let console = Console::of(
            "qemu-system-x86_64: warning: TCG doesn't support requested feature\n\
             qemu-system-x86_64: -m 1B: RAM size too small\n",
        );
        let complaint = "qemu-system-x86_64: -m 1B: RAM size too small";
        assert_eq!(console.verdict.as_deref(), Some(complaint));
    }

    #[test]
    fn of_a_long_log_the_last_part_is_read() {
        use std::io::Write;

        let mut log = tempfile::tempfile().unwrap();
        let line = "a program that talks to the console\n";
        let lines = usize::try_from(LOG_BYTES_READ).unwrap() / line.len() + 100;
        log.write_all(line.repeat(lines).as_bytes()).unwrap();
        log.write_all(b"[ 9.5] Kernel panic - not syncing: late\n").unwrap();
        let verdict = Console::read(&log).verdict;
        assert_eq!(verdict.as_deref(), Some("Kernel panic - not syncing: late"));
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
