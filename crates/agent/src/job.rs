//! One command in the guest, from its start to its end: three threads carry its bytes, a fourth
//! waits for it.
//!
//! A run ends when its first process has ended and all that it wrote until then was sent; whoever
//! it left in the background still holds the pipes, and would keep them open for ever. What those
//! write later is read and dropped, so that they are neither blocked nor killed by `SIGPIPE`.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::{ffi::OsStr, process, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::feed::Feed;
use crate::port::{CHUNK_BYTES, OUTPUT_WINDOW_BYTES, Sender, Window};
use crate::protocol::{Command, End, Id, Message, Stream, WindowSize};
use crate::reaper::Reaper;

/// More than a terminal keeps of what was written to it (8 KiB before its line discipline, and 4 KiB there):
/// so much is read once the command has ended, since others may go on writing.
const TERMINAL_BYTES: usize = 64 << 10;
/// Where commands are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The environment of every command; that of process 1 holds words of the kernel's command line.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", PATH), ("HOME", "/root")];

/// What the environment of commands is made of, beside their own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    /// [`ENVIRONMENT`]: in a guest.
    Guest,
    /// That of the agent.
    Inherited,
}

/// Gives a shell on a terminal its own session, with the terminal in control of it. The standard
/// library could do it only with unsafe code between fork and exec.
const SESSION: [&[u8]; 4] = [b"busybox", b"setsid", b"-c", b"--"];

/// What the serving thread needs to know of a command that runs.
#[derive(Debug)]
pub(crate) struct Job {
    group: Option<Pid>,
    input: mpsc::Sender<Vec<u8>>,
    window: Arc<Window>,
    terminal: Option<OwnedFd>,
}

impl Job {
    /// Starts a command. `ended` is called, on another thread, after its last output was sent.
    pub(crate) fn start(
        id: Id,
        command: &Command,
        environment: Environment,
        reaper: &Reaper,
        sender: &Arc<Sender<File>>,
        ended: impl FnOnce(End) + Send + 'static,
    ) -> io::Result<Self> {
        let ends = Ends::open(command.terminal)?;
        let (child, exit) = reaper.start(&mut to_start(command, environment, ends.inner)?)?;
        let window = Arc::new(Window::new(OUTPUT_WINDOW_BYTES));
        let (gone, gone_writer) = io::pipe()?;
        let gone = Arc::new(gone);

        let (drained, all_drained) = mpsc::channel::<()>();
        for (stream, source) in ends.outputs {
            let (sender, window) = (Arc::clone(sender), Arc::clone(&window));
            let pump = Pump {
                id,
                stream,
                source: source.into(),
                is_terminal: ends.terminal.is_some(),
                gone: Arc::clone(&gone),
                sender,
                window,
            };
            let drained = drained.clone();
            thread::spawn(move || pump.run(drained));
        }
        drop(drained);
        let (input, pieces) = mpsc::channel();
        let feed = Feed {
            id,
            stdin: ends.input.into(),
            is_terminal: ends.terminal.is_some(),
            gone,
            sender: Arc::clone(sender),
        };
        thread::spawn(move || feed.run(&pieces));
        thread::spawn(move || {
            let end = exit.recv().unwrap_or(End::Code(u8::MAX));
            drop(gone_writer);
            // An error is the good news here: all pumps have dropped their end.
            let _ = all_drained.recv();
            ended(end);
        });
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { group, input, window, terminal: ends.terminal })
    }

    /// Bytes for its standard input; none: end of input. Never blocks: the lab keeps to its window.
    pub(crate) fn input(&self, bytes: Vec<u8>) {
        // A command that has ended needs none.
        let _ = self.input.send(bytes);
    }

    /// The lab took so many bytes of output.
    pub(crate) fn took(&self, bytes: u32) {
        self.window.give(bytes);
    }

    /// Sends a signal to all of its process group. One that is gone already is no error.
    pub(crate) fn signal(&self, signal: u8) {
        if let (Some(group), Some(signal)) = (self.group, Signal::from_named_raw(i32::from(signal)))
        {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Tells the terminal its new size, and by that the programs on it (`SIGWINCH`).
    pub(crate) fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetwinsize(terminal, winsize(size));
        }
    }
}

/// Both ends of what connects a command with the agent.
struct Ends {
    /// Standard input, output and error of the command.
    inner: [OwnedFd; 3],
    input: OwnedFd,
    outputs: Vec<(Stream, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn open(terminal: Option<WindowSize>) -> io::Result<Self> {
        match terminal {
            None => Self::pipes(),
            Some(size) => Self::terminal(size),
        }
    }

    fn pipes() -> io::Result<Self> {
        let (stdin, input) = io::pipe()?;
        let (out, stdout) = io::pipe()?;
        let (err, stderr) = io::pipe()?;
        Ok(Self {
            inner: [stdin.into(), stdout.into(), stderr.into()],
            input: input.into(),
            outputs: vec![(Stream::Out, out.into()), (Stream::Err, err.into())],
            terminal: None,
        })
    }

    fn terminal(size: WindowSize) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outer = openpt(flags)?;
        unlockpt(&outer)?;
        tcsetwinsize(&outer, winsize(size))?;
        let inner = ioctl_tiocgptpeer(&outer, flags)?;
        Ok(Self {
            inner: [inner.try_clone()?, inner.try_clone()?, inner],
            input: outer.try_clone()?,
            outputs: vec![(Stream::Out, outer.try_clone()?)],
            terminal: Some(outer),
        })
    }
}

fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn to_start(
    command: &Command,
    environment: Environment,
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> io::Result<process::Command> {
    let session = command.terminal.map_or(&[][..], |_| &SESSION);
    let mut words = session.iter().copied().chain(command.argv.iter().map(Vec::as_slice));
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut start = process::Command::new(OsStr::from_bytes(program));
    start.args(words.map(OsStr::from_bytes));
    if environment == Environment::Guest {
        start.env_clear().envs(ENVIRONMENT);
    }
    start.envs(
        command.env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))),
    );
    start.current_dir(if command.cwd.is_empty() {
        OsStr::new("/")
    } else {
        OsStr::from_bytes(&command.cwd)
    });
    start.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    if command.terminal.is_none() {
        // On a terminal, setsid makes the group, which a group leader is not allowed to do.
        start.process_group(0);
    }
    Ok(start)
}

/// Carries one stream of a command to the lab.
struct Pump {
    id: Id,
    stream: Stream,
    source: File,
    is_terminal: bool,
    /// Hangs up when the command has ended.
    gone: Arc<PipeReader>,
    sender: Arc<Sender<File>>,
    window: Arc<Window>,
}

impl Pump {
    fn run(mut self, drained: mpsc::Sender<()>) {
        // Failures mean that the lab or the other end of the pipe is gone: then too this stream
        // has nothing more to send.
        let _ = self.carry();
        drop(drained);
        let _ = io::copy(&mut self.source, &mut io::sink());
    }

    fn carry(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        while !self.wait()? {
            if self.carry_piece(&mut buffer)? == 0 {
                return Ok(());
            }
        }
        // The command has ended. What it wrote lies in the pipe now; what comes later is not its.
        if self.is_terminal {
            return self.carry_rest_of_terminal(&mut buffer);
        }
        let mut left = rustix::io::ioctl_fionread(&self.source)?;
        while left > 0 {
            let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = self.carry_piece(&mut buffer[..limit])?;
            if count == 0 {
                break;
            }
            left -= count as u64;
        }
        Ok(())
    }

    /// `FIONREAD` of a terminal leaves out what has not reached its line discipline; poll(2) waits
    /// until that has (`n_tty_poll`).
    fn carry_rest_of_terminal(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut left = TERMINAL_BYTES;
        while left > 0 && self.has_more()? {
            let limit = buffer.len().min(left);
            left -= self.carry_piece(&mut buffer[..limit])?;
        }
        Ok(())
    }

    fn has_more(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.source, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default()))?;
        Ok(polled[0].revents().contains(PollFlags::IN))
    }

    /// Waits for something to read; true once the command has ended.
    fn wait(&self) -> io::Result<bool> {
        let mut polled =
            [PollFd::new(&self.source, PollFlags::IN), PollFd::new(&self.gone, PollFlags::IN)];
        poll(&mut polled, None)?;
        Ok(!polled[1].revents().is_empty())
    }

    /// Reads once and sends it all; zero at the end of the stream.
    fn carry_piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let taken = self.window.take(rest.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            let (piece, later) = rest.split_at(taken);
            let message =
                Message::Output { id: self.id, stream: self.stream, bytes: piece.to_vec() };
            self.sender.send(&message)?;
            rest = later;
        }
        Ok(count)
    }
}
