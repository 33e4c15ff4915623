//! A command that runs in a guest while the test does other things.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use lab::{Command, Control, Input};

use crate::host::Host;

pub(crate) const SIGINT: u8 = 2;
pub(crate) const SIGKILL: u8 = 9;
pub(crate) const SIGCONT: u8 = 18;
pub(crate) const SIGSTOP: u8 = 19;

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs; it is killed at the end of the test.
pub(crate) struct Program {
    name: String,
    control: Control,
    input: Option<Input>,
    lines: mpsc::Receiver<String>,
    end: Option<JoinHandle<(u8, String)>>,
}

impl Program {
    pub(crate) fn start(host: &Host, words: &[&str]) -> Self {
        Self::start_command(host, Command::new(words))
    }

    pub(crate) fn start_command(host: &Host, command: Command) -> Self {
        let name = command
            .argv
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect::<Vec<_>>()
            .join(" ");
        let mut running = host.guest.start(command).unwrap();
        let (send, lines) = mpsc::channel();
        let (input, control) = (running.take_input(), running.control());
        let end = thread::spawn(move || {
            let mut stderr = Vec::new();
            let code = running.wait(&mut Lines { send, begun: Vec::new() }, &mut stderr);
            (code.unwrap(), String::from_utf8_lossy(&stderr).into_owned())
        });
        Self { name, control, input, lines, end: Some(end) }
    }

    /// The next line that it prints. It must print one.
    pub(crate) fn line(&mut self) -> String {
        if let Ok(line) = self.lines.recv() {
            return line;
        }
        let (code, stderr) = self.join();
        panic!("{}: ended with {code}: {stderr}", self.name)
    }

    /// Gives it a line on stdin.
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is closed by nothing but its end");
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Sends a signal to it, and to what it started.
    pub(crate) fn signal(&self, signal: u8) {
        self.control.signal(signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let (code, stderr) = self.join();
        let stdout = self.lines.try_iter().map(|line| line + "\n").collect();
        Ended { code, stdout, stderr }
    }

    /// Ends it, and waits until it is gone.
    pub(crate) fn kill(self) {
        self.signal(SIGKILL);
        self.wait();
    }

    fn join(&mut self) -> (u8, String) {
        drop(self.input.take());
        let end = self.end.take().expect("it is joined once");
        end.join().unwrap_or_else(|_| panic!("{}: its guest is gone", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Some(end) = self.end.take() {
            // The guest may be gone; then so is the command.
            drop(self.control.signal(SIGKILL));
            drop(end.join());
        }
    }
}

/// Cuts what is written into lines.
struct Lines {
    send: mpsc::Sender<String>,
    begun: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.begun).into_owned();
                self.begun.clear();
                // Nobody listens once the test is over.
                drop(self.send.send(line));
            } else {
                self.begun.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
