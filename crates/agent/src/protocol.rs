//! The messages between the lab and the agent in its guest.
//!
//! The guest speaks first ([`Message::Ready`]). Each put, run and reset has a number that the lab
//! chose; several may be under way at once, and their messages interleave. Every one of them ends
//! with [`Message::Ended`] or [`Message::Failed`], and nothing follows that.
//!
//! Bytes in flight are limited ([`crate::port::Window`]): a sender of [`Message::Input`] or
//! [`Message::Output`] stops when the receiver has not yet said [`Message::Took`] for a window.
//!
//! A payload is one byte for the kind, then the fields in order: integers little-endian, bytes
//! with their length before them. Pure: [`crate::frame`] has the frames, [`crate::port`] the I/O.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Changes with every change of this file. Both ends are one binary: it is here for a lab that was
/// told to pack another one.
pub const VERSION: u32 = 2;

/// Number of a put or a run, chosen by the lab, never used twice in a guest.
pub type Id = u32;

/// One message. The first half goes to the guest, the second half comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Create or replace a file; its bytes follow as [`Message::Input`], up to an empty one.
    Put {
        /// Number of this put.
        id: Id,
        /// Absolute path in the guest; folders on the way are made.
        path: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// Start a command.
    Run {
        /// Number of this run.
        id: Id,
        /// What to start.
        command: Command,
    },
    /// Bytes for a file or for a command's standard input; none at all means its end.
    Input {
        /// Whose.
        id: Id,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The terminal of a run has another size now.
    Resize {
        /// Which run.
        id: Id,
        /// Its new size.
        size: WindowSize,
    },
    /// Send a signal to the process group of a run.
    Signal {
        /// Which run.
        id: Id,
        /// Signal number.
        signal: u8,
    },
    /// End what runs, and put the guest back to how it was when it began to serve.
    Reset {
        /// Number of this reset.
        id: Id,
    },
    /// Switch the guest off.
    PowerOff,

    /// The guest has booted and serves.
    Ready {
        /// [`VERSION`] of the agent.
        version: u32,
        /// Release of the kernel, as `uname -r` prints it.
        kernel: String,
    },
    /// A command wrote something.
    Output {
        /// Which run.
        id: Id,
        /// To which stream.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Both ways: so many bytes of [`Message::Input`] or [`Message::Output`] have reached their
    /// destination.
    Took {
        /// Whose.
        id: Id,
        /// How many.
        bytes: u32,
    },
    /// A command has ended, and all its output was sent; or a file is complete.
    Ended {
        /// Which run or put.
        id: Id,
        /// How.
        end: End,
    },
    /// A command could not be started, or a file not be written.
    Failed {
        /// Which run or put.
        id: Id,
        /// Exit code that a shell would give: 127 not found, 126 found but not started, else 1.
        code: u8,
        /// What was tried, and what the kernel said.
        text: String,
    },
}

/// A command for the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program, by path or by name, and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment variables beside those that the agent sets (`PATH`, `HOME`).
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; empty: `/`.
    pub cwd: Vec<u8>,
    /// On a terminal of its own with this size; all its output comes as [`Stream::Out`].
    pub terminal: Option<WindowSize>,
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// Where a command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl End {
    /// The exit code as a shell gives it: 128 and the signal for one that was killed.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// A payload that is no message: damaged in a way that the checksum missed, or of another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes on the agent's port is no message of protocol version {VERSION}")]
pub struct NotAMessage {
    /// Length of the payload.
    pub bytes: usize,
}

const PUT: u8 = 1;
const RUN: u8 = 2;
const INPUT: u8 = 3;
const RESIZE: u8 = 4;
const SIGNAL: u8 = 5;
const POWER_OFF: u8 = 6;
const READY: u8 = 7;
const OUTPUT: u8 = 8;
const TOOK: u8 = 9;
const ENDED: u8 = 10;
const FAILED: u8 = 11;
const RESET: u8 = 12;

impl Message {
    /// The payload of a frame that carries this message.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Fields(Vec::new());
        match self {
            Self::Put { id, path, mode } => to.byte(PUT).word(*id).bytes(path).word(*mode),
            Self::Run { id, command } => command.encode(to.byte(RUN).word(*id)),
            Self::Input { id, bytes } => to.byte(INPUT).word(*id).bytes(bytes),
            Self::Resize { id, size } => to.byte(RESIZE).word(*id).size(*size),
            Self::Signal { id, signal } => to.byte(SIGNAL).word(*id).byte(*signal),
            Self::Reset { id } => to.byte(RESET).word(*id),
            Self::PowerOff => to.byte(POWER_OFF),
            Self::Ready { version, kernel } => {
                to.byte(READY).word(*version).bytes(kernel.as_bytes())
            }
            Self::Output { id, stream, bytes } => {
                to.byte(OUTPUT).word(*id).byte(u8::from(*stream == Stream::Err)).bytes(bytes)
            }
            Self::Took { id, bytes } => to.byte(TOOK).word(*id).word(*bytes),
            Self::Ended { id, end } => match end {
                End::Code(code) => to.byte(ENDED).word(*id).byte(0).byte(*code),
                End::Signal(signal) => to.byte(ENDED).word(*id).byte(1).byte(*signal),
            },
            Self::Failed { id, code, text } => {
                to.byte(FAILED).word(*id).byte(*code).bytes(text.as_bytes())
            }
        };
        to.0
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    ///
    /// [`NotAMessage`]: unknown kind, fields that do not fit, or bytes left over.
    pub fn decode(payload: &[u8]) -> Result<Self, NotAMessage> {
        let mut from = Reader(payload);
        Self::read(&mut from)
            .filter(|_| from.0.is_empty())
            .ok_or(NotAMessage { bytes: payload.len() })
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(match from.byte()? {
            PUT => Self::Put { id: from.word()?, path: from.bytes()?, mode: from.word()? },
            RUN => Self::Run { id: from.word()?, command: Command::read(from)? },
            INPUT => Self::Input { id: from.word()?, bytes: from.bytes()? },
            RESIZE => Self::Resize { id: from.word()?, size: from.size()? },
            SIGNAL => Self::Signal { id: from.word()?, signal: from.byte()? },
            RESET => Self::Reset { id: from.word()? },
            POWER_OFF => Self::PowerOff,
            READY => Self::Ready { version: from.word()?, kernel: from.text()? },
            OUTPUT => Self::Output {
                id: from.word()?,
                stream: if from.flag()? { Stream::Err } else { Stream::Out },
                bytes: from.bytes()?,
            },
            TOOK => Self::Took { id: from.word()?, bytes: from.word()? },
            ENDED => Self::Ended {
                id: from.word()?,
                end: if from.flag()? { End::Signal(from.byte()?) } else { End::Code(from.byte()?) },
            },
            FAILED => Self::Failed { id: from.word()?, code: from.byte()?, text: from.text()? },
            _ => return None,
        })
    }
}

impl Command {
    /// These words, without input, in `/`, and on no terminal.
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(|word| word.as_ref().as_bytes().to_vec()).collect();
        Self { argv, ..Self::default() }
    }

    fn encode<'f>(&self, to: &'f mut Fields) -> &'f mut Fields {
        to.count(self.argv.len());
        for argument in &self.argv {
            to.bytes(argument);
        }
        to.count(self.env.len());
        for (name, value) in &self.env {
            to.bytes(name).bytes(value);
        }
        to.bytes(&self.cwd).byte(u8::from(self.terminal.is_some()));
        match self.terminal {
            Some(size) => to.size(size),
            None => to,
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        // Grown as it is read: a garbled count must not reserve memory.
        let mut command = Self::default();
        for _ in 0..from.word()? {
            command.argv.push(from.bytes()?);
        }
        for _ in 0..from.word()? {
            command.env.push((from.bytes()?, from.bytes()?));
        }
        command.cwd = from.bytes()?;
        command.terminal = if from.flag()? { Some(from.size()?) } else { None };
        Some(command)
    }
}

/// Appends fields to a payload.
struct Fields(Vec<u8>);

impl Fields {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn word(&mut self, word: u32) -> &mut Self {
        self.0.extend_from_slice(&word.to_le_bytes());
        self
    }

    /// A count or length. One that does not fit in a word belongs to a payload that the frame
    /// refuses as too long, so what is written here is never read.
    fn count(&mut self, count: usize) -> &mut Self {
        self.word(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    fn size(&mut self, size: WindowSize) -> &mut Self {
        self.word(u32::from(size.rows) << 16 | u32::from(size.columns))
    }
}

/// Takes fields off a payload; `None` once it is too short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn word(&mut self) -> Option<u32> {
        let (&word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(word))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.word()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn size(&mut self) -> Option<WindowSize> {
        let [columns_low, columns_high, rows_low, rows_high] = self.word()?.to_le_bytes();
        Some(WindowSize {
            rows: u16::from_le_bytes([rows_low, rows_high]),
            columns: u16::from_le_bytes([columns_low, columns_high]),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..60)
    }

    fn any_size() -> impl Strategy<Value = WindowSize> {
        any::<(u16, u16)>().prop_map(|(rows, columns)| WindowSize { rows, columns })
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let env = vec((any_bytes(), any_bytes()), 0..4);
        (vec(any_bytes(), 0..5), env, any_bytes(), option::of(any_size()))
            .prop_map(|(argv, env, cwd, terminal)| Command { argv, env, cwd, terminal })
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let id = any::<Id>;
        let stream = prop_oneof![Just(Stream::Out), Just(Stream::Err)];
        let end = prop_oneof![any::<u8>().prop_map(End::Code), any::<u8>().prop_map(End::Signal)];
        prop_oneof![
            (id(), any_bytes(), any::<u32>()).prop_map(|(id, path, mode)| Message::Put {
                id,
                path,
                mode
            }),
            (id(), any_command()).prop_map(|(id, command)| Message::Run { id, command }),
            (id(), any_bytes()).prop_map(|(id, bytes)| Message::Input { id, bytes }),
            (id(), any_size()).prop_map(|(id, size)| Message::Resize { id, size }),
            (id(), any::<u8>()).prop_map(|(id, signal)| Message::Signal { id, signal }),
            id().prop_map(|id| Message::Reset { id }),
            Just(Message::PowerOff),
            (any::<u32>(), ".*").prop_map(|(version, kernel)| Message::Ready { version, kernel }),
            (id(), stream, any_bytes()).prop_map(|(id, stream, bytes)| Message::Output {
                id,
                stream,
                bytes
            }),
            (id(), any::<u32>()).prop_map(|(id, bytes)| Message::Took { id, bytes }),
            (id(), end).prop_map(|(id, end)| Message::Ended { id, end }),
            (id(), any::<u8>(), ".*").prop_map(|(id, code, text)| Message::Failed {
                id,
                code,
                text
            }),
        ]
    }

    #[test]
    fn a_killed_command_has_the_exit_code_that_a_shell_gives() {
        assert_eq!(End::Signal(9).code(), 137);
        assert_eq!(End::Code(3).code(), 3);
    }

    proptest! {
        #[test]
        fn every_message_reads_back_as_it_was_written(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn a_message_that_was_cut_short_is_refused(message in any_message(), cut in 1..20usize) {
            let payload = message.encode();
            let kept = &payload[..payload.len().saturating_sub(cut)];
            prop_assert_eq!(Message::decode(kept), Err(NotAMessage { bytes: kept.len() }));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(payload in vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&payload);
        }
    }
}
