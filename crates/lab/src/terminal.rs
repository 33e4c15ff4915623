//! The user's terminal while a shell of the guest has it.
//!
//! Raw: every key goes to the guest, Ctrl-C too. It is given back as it was when the value is
//! dropped, which a panic does as well.

use std::io::{self, IsTerminal};

use agent::protocol::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Size for a guest's terminal when ours has none.
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Standard input in raw mode; nothing when it is no terminal.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Option<Termios>,
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
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs nothing back.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
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
