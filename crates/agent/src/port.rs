//! Messages over anything that reads and writes: the guest's port, the lab's socket.
//!
//! Both ends use the same three: a [`Sender`] that many threads share, a [`Receiver`] that one
//! thread owns, and a [`Window`] for each stream of bytes. The window is there because one port
//! carries many streams: without it, one stream that nobody reads would stop all others, and a
//! serial line would lose bytes once the guest's tty buffer (64 KiB) is full.

use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::frame::{self, Decoder, FrameError};
use crate::protocol::{Message, NotAMessage};

/// Bytes of the largest piece of a stream in one message: with its headers it fits in 32 KiB, which a
/// virtio port sends at once.
pub const CHUNK_BYTES: usize = (32 << 10) - 64;

/// Bytes of output of one run that may be under way to the lab.
pub const OUTPUT_WINDOW_BYTES: usize = 256 << 10;

/// What went wrong on the port.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Bytes were lost or garbled.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A whole frame that is no message.
    #[error(transparent)]
    Message(#[from] NotAMessage),
    /// The kernel said no.
    #[error("cannot read the agent's port: {0}")]
    Read(io::Error),
}

/// Sends messages; each arrives whole, whatever threads send at the same time.
#[derive(Debug)]
pub struct Sender<W> {
    port: Mutex<W>,
}

impl<W: Write> Sender<W> {
    /// Sends to `port`.
    pub fn new(port: W) -> Self {
        Self { port: Mutex::new(port) }
    }

    /// Sends one message; returns when the port has taken it.
    ///
    /// # Errors
    ///
    /// What writing gave (`EPIPE`: the other end is gone); `InvalidInput` for a message that no
    /// frame can hold.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::encode(&message.encode(), &mut bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut port = lock(&self.port);
        port.write_all(&bytes)?;
        port.flush()
    }
}

/// Receives messages.
#[derive(Debug)]
pub struct Receiver<R> {
    port: R,
    decoder: Decoder,
    buffer: Box<[u8]>,
}

impl<R: Read> Receiver<R> {
    /// Receives from `port`.
    pub fn new(port: R) -> Self {
        Self { port, decoder: Decoder::default(), buffer: vec![0; 2 * CHUNK_BYTES].into() }
    }

    /// The next message; `None` when the other end is gone. Waits for it.
    ///
    /// # Errors
    ///
    /// [`PortError`]. After all but [`PortError::Read`] the next call goes on behind what was bad.
    pub fn receive(&mut self) -> Result<Option<Message>, PortError> {
        loop {
            if let Some(payload) = self.decoder.next_payload()? {
                return Ok(Some(Message::decode(payload)?));
            }
            match self.port.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PortError::Read(error)),
            }
        }
    }
}

/// How many more bytes of a stream may be sent before the receiver has said that it took some.
#[derive(Debug)]
pub struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    closed: bool,
}

impl Window {
    /// A window of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { state: Mutex::new(State { free: bytes, closed: false }), changed: Condvar::new() }
    }

    /// Waits until at least one byte may be sent, and takes up to `wanted` out of the window.
    /// `None` once it is closed.
    pub fn take(&self, wanted: usize) -> Option<usize> {
        let blocked = |state: &mut State| state.free == 0 && !state.closed;
        let mut state = self
            .changed
            .wait_while(lock(&self.state), blocked)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let taken = wanted.min(state.free);
        state.free -= taken;
        Some(taken)
    }

    /// The receiver took so many bytes.
    pub fn give(&self, bytes: u32) {
        let mut state = lock(&self.state);
        state.free = state.free.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.changed.notify_all();
    }

    /// The receiver is gone: whoever waits, waits no longer.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

/// Locks, whatever became of another thread that held the lock: every critical section here leaves
/// its data whole at each step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_sent_is_received_and_then_the_end_is_seen() {
        let sender = Sender::new(Vec::new());
        let messages = [Message::PowerOff, Message::Took { id: 7, bytes: 9 }];
        messages.iter().for_each(|message| sender.send(message).unwrap());
        let bytes = sender.port.into_inner().unwrap();
        let mut receiver = Receiver::new(bytes.as_slice());
        for message in messages {
            assert_eq!(receiver.receive().unwrap(), Some(message));
        }
        assert_eq!(receiver.receive().unwrap(), None);
    }

    #[test]
    fn a_message_longer_than_a_frame_is_an_error_and_nothing_is_sent() {
        let sender = Sender::new(Vec::new());
        let message = Message::Input { id: 1, bytes: vec![0; frame::PAYLOAD_BYTES_MAX] };
        assert_eq!(sender.send(&message).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(sender.port.into_inner().unwrap().is_empty());
    }

    #[test]
    fn a_window_gives_what_is_free_and_then_waits_for_the_receiver() {
        let window = Arc::new(Window::new(10));
        assert_eq!(window.take(8), Some(8));
        assert_eq!(window.take(8), Some(2));
        let waiting = thread::spawn({
            let window = Arc::clone(&window);
            move || window.take(8)
        });
        window.give(5);
        assert_eq!(waiting.join().unwrap(), Some(5));
    }

    #[test]
    fn closing_a_window_releases_who_waits() {
        let window = Arc::new(Window::new(0));
        let waiting = thread::spawn({
            let window = Arc::clone(&window);
            move || window.take(1)
        });
        window.close();
        assert_eq!(waiting.join().unwrap(), None);
    }
}
