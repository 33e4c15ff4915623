//! `recycle PID COMMAND` and `as-user UID COMMAND`: another program, under a stated pid or user.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::error::{Error, Result, Tried};
use crate::sys;

/// The kernel's last pid of our pid namespace; the next fork gets one more. Needs
/// `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, and a kernel with `CONFIG_CHECKPOINT_RESTORE`.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Others fork between our write and our fork.
const TRIES: usize = 50;

/// Runs `command` as process `pid`, waits for it, and gives its exit code (128 + signal).
///
/// Prints `recycled pid=PID` on stderr once it runs: stdout is the command's.
pub(crate) fn recycle(pid: u32, command: &[OsString]) -> Result<u8> {
    let [program, args @ ..] = command else {
        return Err(Error::usage("recycle: no command"));
    };
    let mut command = Command::new(program);
    sys::only_as_pid(command.args(args), pid);
    for _ in 0..TRIES {
        if Path::new(&format!("/proc/{pid}")).exists() {
            return Err(Error::Unmet(format!(
                "process {pid} is still there: end and reap it first"
            )));
        }
        let last = pid.saturating_sub(1).to_string();
        fs::write(LAST_PID, last).tried(|| format!("cannot write {LAST_PID}"))?;
        let mut child = match command.spawn() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            result => result.tried(|| format!("cannot run {}", program.display()))?,
        };
        let said = writeln!(io::stderr(), "recycled pid={pid}");
        said.tried(|| "cannot write to stderr".to_owned())?;
        let status = child.wait().tried(|| format!("cannot wait for process {pid}"))?;
        return Ok(exit_code(status));
    }
    Err(Error::Unmet(format!("no fork of {TRIES} got pid {pid}: others fork too fast")))
}

/// Becomes `uid`, without groups or capabilities, and the command. Returns only when it cannot.
pub(crate) fn as_user(uid: u32, command: &[OsString]) -> Result<u8> {
    let [program, args @ ..] = command else {
        return Err(Error::usage("as-user: no command"));
    };
    sys::become_user(uid).tried(|| format!("cannot become user {uid}"))?;
    let error = Command::new(program).args(args).exec();
    Err(error).tried(|| format!("cannot run {} as user {uid}", program.display()))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_from_128_as_in_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(libc::SIGTERM)), 143);
    }
}
