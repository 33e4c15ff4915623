//! A guest that runs: boot it once, then put files, run commands, and power it off.
//!
//! Used by `pagetide lab` and by the end-to-end tests. A `Guest` may be shared between threads,
//! and its commands may overlap. Dropping it kills QEMU.
//!
//! The agent's port is one end of a socket pair; the initramfs and the log (console, and QEMU's
//! complaints) are files without a name. QEMU has them as its standard streams. So nothing lies in
//! the file system that another user could open, or that a killed lab would leave behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use agent::port::{self, Sender, lock};
use agent::protocol::{Command, Message, VERSION};
use machine::Topology;
use rustix::fs::{OFlags, fcntl_setfl};

use crate::console::Console;
use crate::image::Image;
use crate::kernels::{Kernel, Port};
use crate::programs;
use crate::qemu::{self, Accel, MachineError};
use crate::routes::{Reading, Routes};
use crate::run::{Output, Running};
use crate::vm::{Vm, VmEnd, dies_with_its_starter};

/// How long a guest may take to switch itself off before it is killed.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(20);

/// What to boot.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The machine.
    pub topology: Topology,
    /// The kernel.
    pub kernel: Kernel,
    /// The files.
    pub image: Image,
    /// What the CPUs are made of.
    pub accel: Accel,
    /// The guest is killed after this time, whatever it does.
    pub time_limit: Duration,
    /// More words for the kernel's command line.
    pub extra_cmdline: String,
}

/// Why a guest cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// QEMU cannot be such a machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// QEMU is not installed.
    #[error("no {program} on this computer: apt install {package}")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Something on this computer went wrong.
    #[error("cannot {what}: {reason}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel of this computer said.
        reason: io::Error,
    },
    /// The guest is gone, or was from the start.
    #[error("{0}")]
    Gone(Box<Death>),
    /// The agent speaks another version of the protocol.
    #[error(
        "the agent in the guest speaks version {theirs} of the protocol, this lab version {VERSION}: pack the binary of this lab"
    )]
    Version {
        /// The agent's version.
        theirs: u32,
    },
    /// The guest is no longer what it was after its boot.
    #[error("in the guest: {text}: boot another one")]
    Reset {
        /// What was tried, and what the guest's kernel said.
        text: String,
    },
    /// A file could not be written or read in the guest.
    #[error("in the guest: {text}")]
    File {
        /// What was tried, and what the guest's kernel said.
        text: String,
    },
}

/// How a guest died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Name of its machine.
    pub machine: String,
    /// How, in words.
    pub cause: String,
    /// Its console.
    pub console: Console,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { machine, cause, console } = self;
        write!(f, "the guest {machine} is gone: {cause}")?;
        if let Some(verdict) = &console.verdict {
            write!(f, "; its console says: {verdict}")?;
        }
        if console.blames_emulator() {
            write!(f, ": QEMU before 8.1 does this to guests whose CPUs run in parallel")?;
        }
        if !console.tail.is_empty() {
            write!(f, "\nits last lines:\n{}", console.tail)?;
        }
        Ok(())
    }
}

/// A guest that has booted and takes commands.
#[derive(Debug)]
pub struct Guest {
    machine: String,
    kernel: String,
    port: Port,
    time_limit: Duration,
    sender: Arc<Sender<UnixStream>>,
    routes: Arc<Routes>,
    next_id: AtomicU32,
    /// Hears when the port is closed; QEMU is gone then, or as good as.
    closed: Mutex<mpsc::Receiver<()>>,
    vm: Mutex<Vm>,
    log: File,
}

impl Guest {
    /// Boots a guest, and returns when its agent serves.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    pub fn boot(config: &GuestConfig) -> Result<Self, GuestError> {
        qemu::check(&config.topology, config.image.bytes())?;
        let name = config.topology.name.clone();
        let (port, limit) = (config.kernel.port, config.time_limit);
        Self::connect(name, port, limit, |agent, log| start(config, agent, log))
    }

    /// Starts `command`, a process of this computer that serves on its standard input as an agent
    /// does ([`agent::serve_on`]), and returns when it serves.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    pub fn attach(
        name: &str,
        command: process::Command,
        time_limit: Duration,
    ) -> Result<Self, GuestError> {
        Self::connect(name.to_owned(), Port::Virtio, time_limit, |agent, log| {
            let mut command = command;
            let out = log.try_clone().map_err(host("use the log"))?;
            command.stdin(Stdio::from(OwnedFd::from(agent)));
            command.stdout(Stdio::from(out)).stderr(Stdio::from(log)).process_group(0);
            Vm::start(command, time_limit).map_err(host("start the agent"))
        })
    }

    fn connect(
        machine: String,
        port: Port,
        time_limit: Duration,
        start: impl FnOnce(UnixStream, File) -> Result<Vm, GuestError>,
    ) -> Result<Self, GuestError> {
        let (ours, theirs) = UnixStream::pair().map_err(host("make a pair of sockets"))?;
        let log = open_log().map_err(host("make a temporary file"))?;
        let vm = start(theirs, log.try_clone().map_err(host("use the guest's log"))?)?;

        let routes = Arc::new(Routes::default());
        let reader = ours.try_clone().map_err(host("use the agent's port"))?;
        let sender = Arc::new(Sender::new(ours));
        let (ready, booted) = mpsc::channel();
        let (close, closed) = mpsc::channel();
        thread::spawn({
            let reading = Reading::new(Arc::clone(&routes), ready);
            move || {
                reading.run(reader);
                drop(close);
            }
        });
        let mut guest = Self {
            machine,
            kernel: String::new(),
            port,
            time_limit,
            sender,
            routes,
            next_id: AtomicU32::new(0),
            closed: Mutex::new(closed),
            vm: Mutex::new(vm),
            log,
        };
        let (version, kernel) = booted.recv().map_err(|_| guest.gone())?;
        if version != VERSION {
            return Err(GuestError::Version { theirs: version });
        }
        guest.kernel = kernel;
        Ok(guest)
    }

    /// Release of its kernel, as `uname -r` prints it there.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Writes a file in the guest, in place of any that is there. Folders on the way are made.
    ///
    /// # Errors
    ///
    /// [`GuestError::File`]; [`GuestError::Gone`].
    pub fn put(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), GuestError> {
        let path = path.as_bytes().to_vec();
        let mut running = self.begin(|id| Message::Put { id, path, mode })?;
        // A failure here is told better by the agent, or by the death of the guest.
        let _ = running.take_input().map(|mut input| input.write_all(bytes));
        running.wait_for_put()
    }

    /// The content of a file of the guest.
    ///
    /// # Errors
    ///
    /// [`GuestError::File`] when it cannot be read; [`GuestError::Gone`].
    pub fn get(&self, path: &str) -> Result<Vec<u8>, GuestError> {
        let output = self.run(["cat", "--", path])?;
        match output.code {
            0 => Ok(output.stdout),
            _ => Err(GuestError::File { text: output.stderr_text().trim_end().to_owned() }),
        }
    }

    /// Runs a command without input, and returns all that it wrote.
    ///
    /// # Errors
    ///
    /// [`GuestError::Gone`]. A command that fails is no error: look at [`Output::code`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Output, GuestError> {
        let running = self.start(Command::new(argv))?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = running.wait(&mut stdout, &mut stderr)?;
        Ok(Output { code, stdout, stderr })
    }

    /// Starts a command; it runs while the returned value lives.
    ///
    /// # Errors
    ///
    /// [`GuestError::Gone`].
    pub fn start(&self, command: Command) -> Result<Running<'_>, GuestError> {
        self.begin(|id| Message::Run { id, command })
    }

    /// Ends all that runs in the guest, and puts it back to how it was after its boot: mounts,
    /// cgroups, hugetlb pools, settings of memory. Files stay.
    ///
    /// # Errors
    ///
    /// [`GuestError::Reset`] when something cannot be put back; [`GuestError::Gone`].
    pub fn reset(&self) -> Result<(), GuestError> {
        self.begin(|id| Message::Reset { id })?.wait_for_reset()
    }

    /// Switches the guest off, and waits for it.
    ///
    /// # Errors
    ///
    /// [`GuestError::Gone`] when it does not end by itself.
    pub fn power_off(self) -> Result<(), GuestError> {
        self.send(&Message::PowerOff)?;
        let closed = lock(&self.closed).recv_timeout(POWER_OFF_LIMIT);
        match closed {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Timeout) => Err(self.gone()),
        }
    }

    fn begin(&self, message: impl FnOnce(u32) -> Message) -> Result<Running<'_>, GuestError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let route = self.routes.open(id, self.port.input_window()).ok_or_else(|| self.gone())?;
        let running = Running::new(self, id, Arc::clone(&self.sender), route);
        self.send(&message(id))?;
        Ok(running)
    }

    fn send(&self, message: &Message) -> Result<(), GuestError> {
        match self.sender.send(message) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(GuestError::Host { what: "send this to the guest", reason: error })
            }
            result => result.map_err(|_| self.gone()),
        }
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// How the guest died; `None` while it serves.
    pub fn death(&self) -> Option<Death> {
        self.routes.are_closed().then(|| self.post_mortem())
    }

    /// The story of a guest that has stopped to answer; it is killed, if it still lives.
    pub(crate) fn gone(&self) -> GuestError {
        GuestError::Gone(Box::new(self.post_mortem()))
    }

    fn post_mortem(&self) -> Death {
        let end = lock(&self.vm).post_mortem();
        let limit = self.time_limit.as_secs();
        let cause = match (end, self.routes.complaint()) {
            (VmEnd::TimeLimit, _) => format!("its time limit of {limit} s was over"),
            (_, Some(complaint)) => complaint,
            (VmEnd::Exited(status), None) if status.success() => "it stopped".to_owned(),
            (VmEnd::Exited(status), None) => format!("QEMU ended ({status})"),
            (VmEnd::Killed, None) => "it stopped answering".to_owned(),
        };
        let console = Console::read(&self.log);
        Death { machine: self.machine.clone(), cause, console }
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> GuestError {
    move |reason| GuestError::Host { what, reason }
}

/// For two writers that do not know of each other: each must append.
fn open_log() -> io::Result<File> {
    let log = tempfile::tempfile()?;
    fcntl_setfl(&log, OFlags::APPEND)?;
    Ok(log)
}

/// The guest's files as an archive without a name, ready to be read.
fn initramfs(image: &Image) -> io::Result<File> {
    let mut file = BufWriter::with_capacity(port::CHUNK_BYTES, tempfile::tempfile()?);
    image.write(&mut file)?;
    let mut file = file.into_inner()?;
    file.rewind()?;
    Ok(file)
}

fn start(config: &GuestConfig, agent: UnixStream, log: File) -> Result<Vm, GuestError> {
    let installed = |program: &'static str, package| {
        let found = programs::find(OsStr::new(program));
        found.map_err(|_| GuestError::NotInstalled { program, package })
    };
    let program = installed(qemu::QEMU, "qemu-system-x86")?;
    installed("setpriv", "util-linux")?;
    let initramfs = initramfs(&config.image).map_err(host("write the guest's files"))?;
    let mut command = dies_with_its_starter(program);
    command.args(qemu::arguments(&qemu::Boot {
        topology: &config.topology,
        accel: config.accel,
        kernel: &config.kernel.image,
        port: config.kernel.port,
        extra_cmdline: &config.extra_cmdline,
    }));
    command.stdin(Stdio::from(OwnedFd::from(agent)));
    command.stdout(Stdio::from(initramfs)).stderr(Stdio::from(log));
    // Ctrl-C at a terminal is for us: QEMU ends when we do.
    command.process_group(0);
    Vm::start(command, config.time_limit).map_err(host("start QEMU"))
}
