//! The user's terminal while a shell of the guest has it.
//!
//! Raw: every key goes to the guest, Ctrl-C too. It is given back as it was when the value is
//! dropped, which a panic does as well, and before a signal from elsewhere ends us.

use std::io::{self, IsTerminal, Read};
use std::sync::{Arc, Mutex};
use std::thread;

use agent::port::lock;
use agent::protocol::WindowSize;
use linux::Root;
use linux::proc::status;
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level;

/// Size for a guest's terminal when ours has none.
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };
/// Signals that end us, unless they are ignored. No key sends one while the terminal is raw.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Standard input in raw mode; nothing when it is no terminal.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    /// Locked by who changes the terminal: what a signal gives back is not taken again.
    before: Option<Arc<Mutex<Termios>>>,
}

impl RawTerminal {
    pub(crate) fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let before = Arc::new(Mutex::new(before));
        let own = Root::default().parse("proc/self/status", status::parse);
        let own = own.map_err(io::Error::other)?;
        for signal in ENDING.into_iter().filter(|&signal| !own.ignores(signal.cast_unsigned())) {
            give_back_at(signal, Arc::clone(&before))?;
        }
        let held = lock(&before);
        set(&raw)?;
        drop(held);
        Ok(Self { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs nothing back.
            let _ = set(&lock(before));
        }
    }
}

/// Sets the terminal's modes. What was typed before is for nobody: keys for the guest must not reach
/// the user's shell. Output is not waited for, which a terminal that is stopped would never take.
fn set(modes: &Termios) -> io::Result<()> {
    tcflush(io::stdin(), QueueSelector::IFlush)?;
    Ok(tcsetattr(io::stdin(), OptionalActions::Now, modes)?)
}

/// When this signal comes, gives the terminal back, and then ends us by the signal.
fn give_back_at(signal: i32, before: Arc<Mutex<Termios>>) -> io::Result<()> {
    let (mut came, sender) = io::pipe()?;
    low_level::pipe::register(signal, sender)?;
    thread::Builder::new().name("terminal".into()).spawn(move || {
        if let Ok(1..) = came.read(&mut [0]) {
            // Held to the end.
            let before = lock(&before);
            let _ = set(&before);
            let _ = low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Size of our terminal now.
pub(crate) fn size() -> WindowSize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            WindowSize { rows: size.ws_row, columns: size.ws_col }
        }
        _ => DEFAULT_SIZE,
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use rustix::process::{Pid, Signal, kill_process};
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// Set in the process that the test starts, which is the test again.
    const PART: &str = "PAGETIDE_TEST_HAS_THE_TERMINAL";

    /// Has the terminal until it is killed.
    fn hold_the_terminal() -> ! {
        let _raw = RawTerminal::new().unwrap();
        writeln!(io::stderr(), "it is raw").unwrap();
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_signal_that_ends_the_lab_leaves_the_terminal_as_it_was() {
        const NAME: &str =
            "terminal::tests::a_signal_that_ends_the_lab_leaves_the_terminal_as_it_was";
        if env::var_os(PART).is_some() {
            hold_the_terminal();
        }
        // Whoever runs the tests may ignore some (nohup), and then they end nothing.
        let own = Root::default().parse("proc/self/status", status::parse).unwrap();
        let is_heeded = |signal: &Signal| !own.ignores(signal.as_raw().cast_unsigned());
        for signal in [Signal::TERM, Signal::HUP, Signal::INT].into_iter().filter(is_heeded) {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
            let outer = openpt(flags).unwrap();
            unlockpt(&outer).unwrap();
            let inner = File::from(ioctl_tiocgptpeer(&outer, flags).unwrap());
            let before = tcgetattr(&inner).unwrap();
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env(PART, "")
                .stdin(inner.try_clone().unwrap())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let said = BufReader::new(child.stderr.take().unwrap()).lines().next();
            assert_eq!(said.unwrap().unwrap(), "it is raw");
            assert!(!tcgetattr(&inner).unwrap().local_modes.contains(LocalModes::ICANON));
            kill_process(Pid::from_child(&child), signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
            let after = tcgetattr(&inner).unwrap();
            assert_eq!(after.local_modes, before.local_modes, "after {signal:?}");
            assert_eq!(after.output_modes, before.output_modes, "after {signal:?}");
        }
    }
}
