//! Serves the lab: takes its messages one after the other and hands each to whom it concerns.
//!
//! Nothing here may wait for a command, or one that does not read would stop all others; a file is
//! written on the spot, since it lies in memory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::job::{Environment, Job};
use crate::port::{Receiver, Sender, lock};
use crate::protocol::{Command, End, Id, Message, VERSION};
use crate::reaper::Reaper;
use crate::reset::Baseline;

type Jobs = Arc<Mutex<BTreeMap<Id, Job>>>;

/// The agent at work.
struct Agent {
    sender: Arc<Sender<File>>,
    reaper: Arc<Reaper>,
    baseline: Arc<Baseline>,
    environment: Environment,
    jobs: Jobs,
    files: BTreeMap<Id, (File, PathBuf)>,
}

/// Serves until the lab says [`Message::PowerOff`] or is gone.
///
/// # Errors
///
/// What reading or writing the port gave. A message that arrived damaged is one too: the run that
/// it was for would never end, and the lab wait until its time limit.
pub(crate) fn serve(port: File, environment: Environment) -> io::Result<()> {
    let mut agent = Agent {
        sender: Arc::new(Sender::new(port.try_clone()?)),
        reaper: Arc::default(),
        baseline: Arc::new(Baseline::take()),
        environment,
        jobs: Jobs::default(),
        files: BTreeMap::new(),
    };
    thread::spawn({
        let reaper = Arc::clone(&agent.reaper);
        move || reaper.run()
    });
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    agent.sender.send(&Message::Ready { version: VERSION, kernel })?;
    let mut receiver = Receiver::new(port);
    loop {
        match receiver.receive().map_err(io::Error::other)? {
            None | Some(Message::PowerOff) => return Ok(()),
            Some(message) => agent.handle(message)?,
        }
    }
}

impl Agent {
    fn handle(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Put { id, path, mode } => {
                self.put(id, Path::new(OsStr::from_bytes(&path)), mode)
            }
            Message::Run { id, command } => self.run(id, &command),
            Message::Input { id, bytes } => self.input(id, bytes),
            Message::Took { id, bytes } => self.with_job(id, |job| job.took(bytes)),
            Message::Resize { id, size } => self.with_job(id, |job| job.resize(size)),
            Message::Signal { id, signal } => self.with_job(id, |job| job.signal(signal)),
            Message::Reset { id } => {
                self.reset(id);
                Ok(())
            }
            // These are the guest's to say; the serving loop has the end of all.
            Message::PowerOff
            | Message::Ready { .. }
            | Message::Output { .. }
            | Message::Ended { .. }
            | Message::Failed { .. } => Ok(()),
        }
    }

    /// A job that has ended is no error: the lab's message and our `Ended` have crossed.
    fn with_job(&self, id: Id, act: impl FnOnce(&Job)) -> io::Result<()> {
        if let Some(job) = lock(&self.jobs).get(&id) {
            act(job);
        }
        Ok(())
    }

    fn run(&self, id: Id, command: &Command) -> io::Result<()> {
        let (jobs, sender) = (Arc::clone(&self.jobs), Arc::clone(&self.sender));
        let ended = move |end| {
            drop(lock(&jobs).remove(&id));
            // The lab is gone: the serving loop sees it too, and ends.
            let _ = sender.send(&Message::Ended { id, end });
        };
        // Held while it starts, so that a command that ends at once is found by `ended`.
        let mut jobs = lock(&self.jobs);
        match Job::start(id, command, self.environment, &self.reaper, &self.sender, ended) {
            Ok(job) => {
                jobs.insert(id, job);
                Ok(())
            }
            Err(error) => {
                let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                let text = format!("cannot start {}: {error}", described(command));
                self.sender.send(&Message::Failed { id, code, text })
            }
        }
    }

    /// On a thread of its own: those that it kills are collected meanwhile.
    fn reset(&self, id: Id) {
        let (sender, baseline) = (Arc::clone(&self.sender), Arc::clone(&self.baseline));
        thread::spawn(move || {
            let message = match baseline.restore() {
                Ok(()) => Message::Ended { id, end: End::Code(0) },
                Err(text) => Message::Failed { id, code: 1, text },
            };
            // The lab is gone: the serving loop sees it too, and ends.
            let _ = sender.send(&message);
        });
    }

    fn put(&mut self, id: Id, path: &Path, mode: u32) -> io::Result<()> {
        match create(path, mode) {
            Ok(file) => {
                self.files.insert(id, (file, path.to_owned()));
                Ok(())
            }
            Err(error) => self.put_failed(id, path, &error),
        }
    }

    fn input(&mut self, id: Id, bytes: Vec<u8>) -> io::Result<()> {
        let Some((file, path)) = self.files.get_mut(&id) else {
            return self.with_job(id, |job| job.input(bytes));
        };
        if bytes.is_empty() {
            self.files.remove(&id);
            return self.sender.send(&Message::Ended { id, end: End::Code(0) });
        }
        if let Err(error) = file.write_all(&bytes) {
            let path = path.clone();
            self.files.remove(&id);
            return self.put_failed(id, &path, &error);
        }
        let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.sender.send(&Message::Took { id, bytes })
    }

    fn put_failed(&self, id: Id, path: &Path, error: &io::Error) -> io::Result<()> {
        let text = format!("cannot write {}: {error}", path.display());
        self.sender.send(&Message::Failed { id, code: 1, text })
    }
}

/// The program of a command, and its folder: either may be what is not there.
fn described(command: &Command) -> String {
    let program = command.argv.first().map(|name| String::from_utf8_lossy(name));
    let program = program.unwrap_or("a command without words".into());
    match command.cwd.as_slice() {
        [] => program.into_owned(),
        cwd => format!("{program} in {}", String::from_utf8_lossy(cwd)),
    }
}

/// A new file in the place of any old one: an old one may be a program that runs (`ETXTBSY`).
fn create(path: &Path, mode: u32) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
        fs::remove_file(path)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
