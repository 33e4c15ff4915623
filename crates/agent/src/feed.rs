//! Standard input of a command: carries what the lab sends, and its end.
//!
//! A pipe ends when it is closed. A terminal has no end; who reads one ends at a line that is ended by
//! `VEOF` (^D), or takes that key itself, as shells do that edit their line. Who turns to one
//! mode while a key of the other waits does not understand it, and each program on the terminal
//! reads for itself: so the key is pressed again whenever nobody has anything left to read, until
//! the command has ended.

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};

use crate::port::Sender;
use crate::protocol::{Id, Message};

/// How long a program has to read the end before it is asked whether it did.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What carries the input of a command.
pub(crate) struct Feed {
    pub(crate) id: Id,
    pub(crate) stdin: File,
    pub(crate) is_terminal: bool,
    /// Hangs up when the command has ended.
    pub(crate) gone: Arc<PipeReader>,
    pub(crate) sender: Arc<Sender<File>>,
}

impl Feed {
    /// Carries pieces until an empty one, the end of input.
    pub(crate) fn run(mut self, pieces: &mpsc::Receiver<Vec<u8>>) {
        let mut open = true;
        let mut is_line_open = false;
        while let Ok(bytes) = pieces.recv() {
            let Some(&last) = bytes.last() else {
                if self.is_terminal {
                    // A terminal that cannot be asked is left as it is.
                    let _ = self.end(is_line_open);
                }
                return;
            };
            is_line_open = !matches!(last, b'\n' | b'\r');
            // A command that does not read on (EPIPE) is no reason to let the lab wait.
            open = open && self.stdin.write_all(&bytes).is_ok();
            let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if self.sender.send(&Message::Took { id: self.id, bytes }).is_err() {
                return;
            }
        }
    }

    /// Tells whoever reads the terminal that nothing comes any more.
    fn end(&mut self, mut is_line_open: bool) -> io::Result<()> {
        // Their side of it tells whether all is read.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&self.stdin, flags)?;
        while !self.is_gone()? {
            if is_read(&theirs)? {
                let modes = tcgetattr(&theirs)?;
                let is_edited = !modes.local_modes.contains(LocalModes::ICANON);
                // Who edits the line takes ^D for the end only where it is empty; elsewhere the first
                // one ends the line.
                let key = match is_edited && std::mem::take(&mut is_line_open) {
                    true => b'\r',
                    false => modes.special_codes[SpecialCodeIndex::VEOF],
                };
                self.stdin.write_all(&[key])?;
            }
        }
        Ok(())
    }

    /// Whether the command has ended, or does so within [`LOOK`].
    fn is_gone(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.gone, PollFlags::IN)];
        Ok(poll(&mut polled, Some(&LOOK))? > 0)
    }
}

/// Whether the programs on a terminal have read all that was typed.
fn is_read(theirs: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(theirs, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents().is_empty())
}
