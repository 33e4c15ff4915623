//! An actor in a guest: scenarios go in, records come out, in the same order.
//!
//! The actor is `pagetide actor` in its streaming form. It is started once and plays one scenario
//! after the other; one that kills its processes ends alone. Scenarios may be sent ahead of the
//! records of those before them.

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use agent::protocol::Command;
use scenario::{Record, RecordLine, Scenario};

use crate::guest::{Guest, GuestError};
use crate::run::Input;

/// A record that takes longer than this never comes: the actor itself gives a step one minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// The line to an actor.
#[derive(Debug)]
pub struct ActorLine {
    input: Input,
    records: mpsc::Receiver<Record>,
}

/// The actor, or its guest, is gone before it has told of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the actor gives no more records")]
pub struct ActorGone;

/// Runs `work` with an actor that has just been started in a guest.
///
/// # Errors
///
/// [`GuestError`]: the guest was gone before the actor was started.
///
/// # Panics
///
/// When `work` does.
pub fn with_actor<T>(
    guest: &Guest,
    work: impl FnOnce(&mut ActorLine) -> T,
) -> Result<T, GuestError> {
    let mut running = guest.start(Command::new(["pagetide", "actor"]))?;
    let input = running.take_input().expect("the input of a fresh command is there");
    let control = running.control();
    let (sender, records) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = Reader { sender, line: Vec::new(), record: Record::default() };
            // Who works sees the end of the records; what the actor complained of is in them.
            let _ = running.wait(&mut reader, &mut io::sink());
        });
        let mut line = ActorLine { input, records };
        let result = work(&mut line);
        drop(line);
        // It has nothing left to play. One that hangs must not hold us up.
        let _ = control.signal(9);
        Ok(result)
    })
}

impl ActorLine {
    /// Sends a scenario; its record comes in its turn.
    ///
    /// # Errors
    ///
    /// The actor takes no more.
    pub fn send(&mut self, scenario: &Scenario) -> Result<(), ActorGone> {
        self.input.write_all(format!("S {scenario}\n").as_bytes()).map_err(|_| ActorGone)
    }

    /// The record of the oldest scenario that has none yet.
    ///
    /// # Errors
    ///
    /// There will be none.
    pub fn receive(&mut self) -> Result<Record, ActorGone> {
        self.records.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => ActorGone,
        })
    }

    /// Plays one scenario, when no other is on its way.
    ///
    /// # Errors
    ///
    /// The actor is gone.
    pub fn play(&mut self, scenario: &Scenario) -> Result<Record, ActorGone> {
        self.send(scenario)?;
        self.receive()
    }
}

/// Makes records of what an actor writes.
struct Reader {
    sender: mpsc::Sender<Record>,
    line: Vec<u8>,
    record: Record,
}

impl Reader {
    fn take_line(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        match line.parse().map_err(io::Error::other)? {
            RecordLine::Case(_) => self.record = Record::default(),
            RecordLine::Result(step, text) => self.record.results.push((step, text)),
            RecordLine::End(end) => {
                self.record.end = end;
                let record = std::mem::take(&mut self.record);
                self.sender.send(record).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            match byte {
                b'\n' => self.take_line()?,
                byte => self.line.push(byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenario::End;

    #[test]
    fn records_are_put_together_whatever_the_pieces_in_which_they_come() {
        let text = "case S\n2 0\n3 a:11\nend\ncase S\ndead 11\n";
        for size in [1, 7, 1000] {
            let (sender, records) = mpsc::channel();
            let mut reader = Reader { sender, line: Vec::new(), record: Record::default() };
            text.as_bytes().chunks(size).for_each(|piece| reader.write_all(piece).unwrap());
            let results = vec![(2, "0".to_owned()), (3, "a:11".to_owned())];
            assert_eq!(records.recv(), Ok(Record { results, end: End::Done }));
            assert_eq!(records.recv(), Ok(Record { results: Vec::new(), end: End::Dead(11) }));
        }
    }

    #[test]
    fn a_line_that_is_no_record_ends_the_reading() {
        let (sender, _records) = mpsc::channel();
        let mut reader = Reader { sender, line: Vec::new(), record: Record::default() };
        assert!(reader.write_all(b"Segmentation fault\n").is_err());
    }
}
