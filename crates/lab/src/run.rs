//! One command in a guest, seen from the lab: its input, its output, its end.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use agent::port::{CHUNK_BYTES, Sender, Window};
use agent::protocol::{Id, Message, Stream, WindowSize};

use crate::guest::{Guest, GuestError};
use crate::routes::{Event, Route};

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 and the signal when one killed it; 127 and 126 when it was not started.
    pub code: u8,
    /// All that it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All that it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// A command that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running<'g> {
    guest: &'g Guest,
    events: mpsc::Receiver<Event>,
    input: Option<Input>,
    control: Control,
    ended: bool,
}

impl<'g> Running<'g> {
    pub(crate) fn new(
        guest: &'g Guest,
        id: Id,
        sender: Arc<Sender<UnixStream>>,
        route: Route,
    ) -> Self {
        let input = Input { id, sender: Arc::clone(&sender), window: route.window };
        let control = Control { id, sender };
        Self { guest, events: route.events, input: Some(input), control, ended: false }
    }

    /// Its standard input, once; who does not take it gives the command none.
    pub fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// For signals and the size of its terminal; may go to another thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits for its end, and passes on what it writes meanwhile. The code is that of a shell: see
    /// [`Output::code`].
    ///
    /// # Errors
    ///
    /// [`GuestError::Gone`]; [`GuestError::Host`] when `stdout` or `stderr` cannot be written.
    pub fn wait(
        mut self,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<u8, GuestError> {
        drop(self.take_input());
        loop {
            match self.next_event()? {
                Event::Output(stream, bytes) => {
                    match stream {
                        Stream::Out => write_now(stdout, &bytes)?,
                        Stream::Err => write_now(stderr, &bytes)?,
                    }
                    self.took(bytes.len())?;
                }
                Event::Ended(end) => return Ok(end.code()),
                Event::Failed { code, text } => {
                    write_now(stderr, format!("{text}\n").as_bytes())?;
                    return Ok(code);
                }
            }
        }
    }

    pub(crate) fn wait_for_put(mut self) -> Result<(), GuestError> {
        drop(self.take_input());
        match self.next_event()? {
            Event::Ended(_) => Ok(()),
            Event::Failed { text, .. } => Err(GuestError::File { text }),
            Event::Output(..) => {
                Err(GuestError::File { text: "a file that is put says something".to_owned() })
            }
        }
    }

    pub(crate) fn wait_for_reset(mut self) -> Result<(), GuestError> {
        drop(self.take_input());
        match self.next_event()? {
            Event::Ended(_) => Ok(()),
            Event::Failed { text, .. } => Err(GuestError::Reset { text }),
            Event::Output(..) => {
                Err(GuestError::Reset { text: "a reset says something".to_owned() })
            }
        }
    }

    fn next_event(&mut self) -> Result<Event, GuestError> {
        let event = self.events.recv().map_err(|_| self.guest.gone())?;
        self.ended = !matches!(event, Event::Output(..));
        Ok(event)
    }

    fn took(&self, bytes: usize) -> Result<(), GuestError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.control.took(bytes).map_err(|_| self.guest.gone())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Both fail only for a guest that is gone, and its commands with it. What the command
            // still writes is taken as read, or the agent would keep it for ever.
            let _ = self.control.signal(SIGKILL);
            let _ = self.control.took(u32::MAX);
            self.guest.routes().forget(self.control.id);
        }
    }
}

const SIGKILL: u8 = 9;

fn write_now(to: &mut dyn Write, bytes: &[u8]) -> Result<(), GuestError> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(|reason| GuestError::Host { what: "write what the command wrote", reason })
}

/// Acts on a command that runs.
#[derive(Clone, Debug)]
pub struct Control {
    id: Id,
    sender: Arc<Sender<UnixStream>>,
}

impl Control {
    /// Sends a signal to its process group. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// `EPIPE`: the guest is gone.
    pub fn signal(&self, signal: u8) -> io::Result<()> {
        self.sender.send(&Message::Signal { id: self.id, signal })
    }

    /// Tells it the size of its terminal.
    ///
    /// # Errors
    ///
    /// `EPIPE`: the guest is gone.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        self.sender.send(&Message::Resize { id: self.id, size })
    }

    /// So many bytes of its output have reached their destination.
    fn took(&self, bytes: u32) -> io::Result<()> {
        self.sender.send(&Message::Took { id: self.id, bytes })
    }
}

/// Standard input of a command, or the bytes of a file. Dropping it is the end of input.
#[derive(Debug)]
pub struct Input {
    id: Id,
    sender: Arc<Sender<UnixStream>>,
    window: Arc<Window>,
}

impl Write for Input {
    /// Sends a piece, once the window has room. `BrokenPipe` when the command has ended.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let count = self.window.take(bytes.len().min(CHUNK_BYTES));
        let count = count.ok_or(io::ErrorKind::BrokenPipe)?;
        self.sender.send(&Message::Input { id: self.id, bytes: bytes[..count].to_vec() })?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // Fails only for a guest that is gone.
        let _ = self.sender.send(&Message::Input { id: self.id, bytes: Vec::new() });
    }
}
