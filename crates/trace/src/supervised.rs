//! A trace under `pagetide run`: what the model migrates, as its supervisor tells it.
//!
//! It gives what a [`Session`](crate::session::Session) gives. No migration has a duration: the model
//! copies no page, and how long it thinks says nothing of a machine. The pids are those of the
//! supervisor.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::iter;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use linux::{Errno, Root};
use machine::Bytes;
use rustix::time::ClockId;

use crate::counted;
use crate::event::{Counts, Event, Gap, Migration, Occasion};
use crate::reader::{now_ns, wait_for};
use crate::session::{Ending, Options};
use crate::stream::{Asked, Told};
use crate::tasks::{Task, Tasks};
use crate::wanted::{self, Target, UnknownReason};

/// What waits for us in the supervisor, if nothing else is asked for.
const BUFFER: Bytes = Bytes::new(16 << 20);
/// So much is read at once.
const HANDFUL: usize = 64 * 1024;
/// The supervisor answers, or ends: it is waited for round by round.
const ROUND: Duration = Duration::from_secs(1);

/// Why a trace under `pagetide run` cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedError {
    /// Nobody listens, or not to us.
    #[error(
        "cannot trace under `pagetide run`: its supervisor does not answer at @{name}: {errno}; has \
         the run ended, or is this process not of it?"
    )]
    NoAnswer {
        /// The name of the socket.
        name: String,
        /// `ECONNREFUSED`, most likely.
        errno: Errno,
    },
    /// It stopped telling.
    #[error("the supervisor of `pagetide run` has stopped telling events: {errno}")]
    Gone {
        /// What reading gave; `ECONNRESET`: the end.
        errno: Errno,
    },
    /// The run is of another pagetide.
    #[error("the supervisor of `pagetide run` told `{line}`: it is of another version of pagetide")]
    Nonsense {
        /// What it said.
        line: String,
    },
    /// A reason that the model does not have.
    #[error(transparent)]
    Reason(#[from] UnknownReason),
}

/// A trace under way.
#[derive(Debug)]
pub struct Supervised {
    stream: UnixStream,
    received: Vec<u8>,
    /// So much of it has been taken.
    taken: usize,
    target: Option<Target>,
    /// Empty: all.
    reasons: BTreeSet<String>,
    with_stacks: bool,
    tasks: Tasks,
    began_ns: u64,
    cpu_began_ns: u64,
    counted_before: Counts,
    counted_after: Option<Counts>,
    read_events: u64,
    lost_events: u64,
}

impl Supervised {
    /// Asks the supervisor that listens at `name` for its events.
    ///
    /// # Errors
    ///
    /// [`SupervisedError`].
    pub fn start(root: &Root, name: &OsStr, options: &Options) -> Result<Self, SupervisedError> {
        let no_answer = |error: &io::Error| SupervisedError::NoAnswer {
            name: name.to_string_lossy().into_owned(),
            errno: Errno::from(error),
        };
        let stream = connect(name, options).map_err(|error| no_answer(&error))?;
        let target = options.wanted.target.clone();
        let wants_cgroups = matches!(target, Some(Target::Cgroup(_)));
        let mut begun = Self {
            stream,
            received: Vec::new(),
            taken: 0,
            target,
            reasons: BTreeSet::new(),
            with_stacks: options.stacks,
            tasks: Tasks::new(root.clone(), None, wants_cgroups),
            began_ns: now_ns(ClockId::Monotonic),
            cpu_began_ns: now_ns(ClockId::ProcessCPUTime),
            counted_before: Counts::default(),
            counted_after: None,
            read_events: 0,
            lost_events: 0,
        };
        let line = loop {
            match begun.take_line() {
                Some(line) => break line,
                None => begun.receive(ROUND).map_err(|error| no_answer(&error))?,
            }
        };
        let Told::Begun { reasons, counted } = told(&line)? else {
            return Err(SupervisedError::Nonsense { line });
        };
        begun.counted_before = counted;
        begun.reasons = wanted::words(&options.wanted.reasons, reasons)?;
        Ok(begun)
    }

    /// Waits for at most this long, and gives what has happened.
    ///
    /// # Errors
    ///
    /// When the supervisor has gone.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, SupervisedError> {
        self.receive(timeout).map_err(gone)?;
        let mut events = Vec::new();
        while let Some(line) = self.take_line() {
            match told(&line)? {
                Told::Migration { times, migration } => {
                    self.read_events += times as u64;
                    let event = self.migration(migration);
                    events.extend(event.into_iter().flat_map(|event| iter::repeat_n(event, times)));
                }
                Told::Lost { events: lost } => {
                    self.lost_events += lost as u64;
                    events.push(Event::Lost(Gap { cpu: None, events: Some(lost as u64) }));
                }
                Told::Ended { counted } => self.counted_after = Some(counted),
                Told::Begun { .. } => return Err(SupervisedError::Nonsense { line }),
            }
        }
        Ok(events)
    }

    /// Ends the trace, and gives what was still under way.
    ///
    /// # Errors
    ///
    /// When the supervisor has gone.
    pub fn finish(mut self) -> Result<(Vec<Event>, Ending), SupervisedError> {
        let elapsed_ns = now_ns(ClockId::Monotonic).saturating_sub(self.began_ns);
        self.stream.shutdown(Shutdown::Write).map_err(gone)?;
        let mut events = Vec::new();
        let counted = loop {
            events.extend(self.next(ROUND)?);
            if let Some(counted) = self.counted_after {
                break counted;
            }
        };
        let is_filtered = self.target.is_some() || !self.reasons.is_empty();
        let ending = Ending {
            elapsed_ns,
            own_cpu_ns: now_ns(ClockId::ProcessCPUTime).saturating_sub(self.cpu_began_ns),
            read_events: self.read_events,
            lost_events: self.lost_events,
            bad_pages: 0,
            vmstat: (!is_filtered).then(|| counted::since(&self.counted_before, &counted)),
        };
        Ok((events, ending))
    }

    /// Takes in what has come, or comes in time.
    fn receive(&mut self, timeout: Duration) -> io::Result<()> {
        if !wait_for([&self.stream], timeout)? {
            return Ok(());
        }
        let before = self.received.len();
        self.received.resize(before + HANDFUL, 0);
        let read = self.stream.read(&mut self.received[before..]);
        self.received.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(rustix::io::Errno::CONNRESET.into()),
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The next whole line, without its end.
    fn take_line(&mut self) -> Option<String> {
        let rest = &self.received[self.taken..];
        if let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            self.taken += end + 1;
            return Some(line);
        }
        self.received.drain(..self.taken);
        self.taken = 0;
        None
    }

    fn migration(&mut self, mut migration: Migration) -> Option<Event> {
        if !self.with_stacks {
            migration.stack = Arc::default();
        }
        let is_for_reason = self.reasons.is_empty() || self.reasons.contains(&migration.reason);
        (is_for_reason && self.concerns_target(&migration)).then_some(Event::Migration(migration))
    }

    /// By what was told, which is of the moment of the call; else by what is known of the threads.
    fn concerns_target(&mut self, migration: &Migration) -> bool {
        let Some(target) = &self.target else { return true };
        let Occasion { time_ns, tid, pid, process, .. } = &migration.occasion;
        let owner = migration.pages_of.as_ref();
        let told = [Some((*pid, process)), owner.map(|owner| (Some(owner.pid), &owner.name))];
        let is_told = told
            .into_iter()
            .flatten()
            .any(|(pid, name)| target.is(&Task { pid, name: name.clone(), ..Task::default() }));
        let known = [Some(*tid), *pid, owner.map(|owner| owner.pid)];
        is_told || known.into_iter().flatten().any(|tid| target.is(self.tasks.get(tid, *time_ns)))
    }
}

fn connect(name: &OsStr, options: &Options) -> io::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(name.as_bytes())?;
    let mut stream = UnixStream::connect_addr(&address)?;
    let asked = Asked { buffer_bytes: options.buffer.unwrap_or(BUFFER).get() };
    let mut line = serde_json::to_vec(&asked)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}

fn told(line: &str) -> Result<Told, SupervisedError> {
    serde_json::from_str(line).map_err(|_| SupervisedError::Nonsense { line: line.to_owned() })
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn gone(error: io::Error) -> SupervisedError {
    SupervisedError::Gone { errno: Errno::from(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Owner;
    use crate::wanted::Wanted;
    use std::ffi::OsString;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    fn migration(times: usize, reason: &str, pages: u64, owner: &str) -> Told {
        let occasion =
            Occasion { time_ns: 1, cpu: 3, tid: 8, pid: Some(7), process: "mover".to_owned() };
        let migration = Migration {
            occasion,
            reason: reason.to_owned(),
            mode: "MIGRATE_SYNC".to_owned(),
            counts: Counts { succeeded_pages: pages, ..Counts::default() },
            duration_ns: None,
            pages_of: Some(Owner { pid: u32::MAX, name: owner.to_owned() }),
            stack: ["migrate_pages".to_owned(), "do_mbind".to_owned()].into(),
        };
        Told::Migration { times, migration }
    }

    /// A supervisor that counted 100 before and 130 after; gives the socket, and what it was asked.
    fn supervisor(name: &str) -> (OsString, JoinHandle<Asked>) {
        let name = format!("pagetide-test-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let counted = |pages| Counts { succeeded_pages: pages, ..Counts::default() };
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream);
            let mut asked = String::new();
            lines.read_line(&mut asked).unwrap();
            let say = |told: &Told| writeln!(&stream, "{}", serde_json::to_string(told).unwrap());
            let reasons = vec!["syscall_or_cpuset".to_owned(), "mempolicy_mbind".to_owned()];
            say(&Told::Begun { reasons, counted: counted(100) }).unwrap();
            say(&migration(2, "mempolicy_mbind", 9, "database")).unwrap();
            say(&Told::Lost { events: 4 }).unwrap();
            say(&migration(1, "syscall_or_cpuset", 17, "shell")).unwrap();
            assert_eq!(lines.read_line(&mut String::new()).unwrap(), 0);
            say(&Told::Ended { counted: counted(130) }).unwrap();
            serde_json::from_str(&asked).unwrap()
        };
        (name.into(), thread::spawn(serve))
    }

    /// The pages of each event (0: some were lost), and the ending.
    fn trace(test: &str, options: &Options) -> (Vec<u64>, Ending, Asked) {
        let (name, supervisor) = supervisor(test);
        let supervised = Supervised::start(&Root::default(), &name, options).unwrap();
        let (events, ending) = supervised.finish().unwrap();
        let pages = events.iter().map(|event| match event {
            Event::Migration(migration) => migration.counts.succeeded_pages,
            _ => 0,
        });
        (pages.collect(), ending, supervisor.join().unwrap())
    }

    #[test]
    fn all_is_given_in_order_and_the_sums_are_of_the_time_in_between() {
        let options = Options { buffer: Some(Bytes::new(8192)), ..Options::default() };
        let (pages, ending, asked) = trace("all", &options);
        assert_eq!((pages, asked.buffer_bytes), (vec![9, 9, 0, 17], 8192));
        assert_eq!((ending.read_events, ending.lost_events), (3, 4));
        assert_eq!(ending.vmstat.unwrap().succeeded_pages, 30);
    }

    #[test]
    fn a_reason_and_a_name_choose_migrations_but_never_hide_what_was_lost() {
        for (test, reasons, name) in
            [("reason", vec!["mbind"], None), ("name", vec![], Some("database"))]
        {
            let wanted = Wanted {
                reasons: reasons.into_iter().map(str::to_owned).collect(),
                target: name.map(|name| Target::Name(name.to_owned())),
            };
            let (pages, ending, _) = trace(test, &Options { wanted, ..Options::default() });
            assert_eq!((pages, ending.vmstat), (vec![9, 9, 0], None));
        }
    }

    #[test]
    fn a_name_that_nobody_listens_at_is_said_with_what_to_look_for() {
        let nobody = OsStr::new("pagetide-test-nobody");
        let error = Supervised::start(&Root::default(), nobody, &Options::default()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("@pagetide-test-nobody: ECONNREFUSED") && !said.contains('\n'),
            "{said}"
        );
    }
}
