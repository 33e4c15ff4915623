//! Shows files by mounts: a helper process with a mount namespace, which the program joins.
//!
//! The helper mounts a tmpfs (the *stage*), binds folders of it over those of sysfs, and then binds
//! single files over those of `/proc` as it is told to: by us for the machine's files, and for each
//! process that is met. The stage itself lies under one of the folders, where nobody sees it; we
//! reach it through the helper's descriptor. We stay outside and see this computer's files. A mount
//! over a file of a process goes away with the process.
//!
//! Without privileges all this happens in a user namespace in which the user is itself: other users
//! appear as nobody, and setuid programs have no power.
//!
//! Source: user_namespaces(7), mount_namespaces(7); kernel, fs/namespace.c.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::process::{Pid, Signal, WaitOptions, fchdir, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::tree::{Tree, below};
use crate::sys::mount::{Entered, enter};
use crate::sys::{close, fork};

/// Folders that are covered, each whole. The stage lies under the first.
pub(crate) const FOLDERS: [&str; 8] = [
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/bus/cpu/devices",
    "/sys/bus/node/devices",
    "/sys/kernel/mm/numa",
    "/sys/kernel/mm/mempolicy/weighted_interleave",
    "/sys/devices/virtual/memory_tiering",
    "/sys/bus/memory_tiering/devices",
];

const DONE: u8 = 1;
const FAILED: u8 = 0;

/// The helper, as the supervisor has it.
#[derive(Debug)]
pub(crate) struct Mounts {
    process: Process,
    pidfd: OwnedFd,
    entered: Entered,
    /// Keeps the stage reachable.
    stage: File,
    /// The folder in which we are, in the helper's namespace.
    folder: OwnedFd,
}

/// The helper's process, which ends when this is dropped. The mounts live as long as the program does.
#[derive(Debug)]
struct Process {
    pid: u32,
    socket: UnixStream,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before Linux 5.9 the helper has a copy of our end too, so that closing it would not do.
        let _ = self.socket.shutdown(Shutdown::Both);
        let pid = Pid::from_raw(self.pid.cast_signed());
        let _ = retry_on_intr(|| waitpid(pid, WaitOptions::empty()));
    }
}

impl Mounts {
    /// Starts the helper and covers the folders with those of `tree`.
    ///
    /// # Errors
    ///
    /// Namespaces or mounts are forbidden, most likely.
    pub(crate) fn start(tree: &Tree) -> io::Result<Self> {
        let (socket, helpers) = UnixStream::pair()?;
        let pid = fork::fork(|| {
            // Neither the terminal's signals nor those to the process group are for the helper.
            let _ = rustix::process::setsid();
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            // With a copy of our end it would never see that we have closed ours.
            let _ = close::all_but(helpers.as_fd(), helpers.as_fd());
            let _ = help(tree, helpers);
            end()
        })?;
        let mut process = Process { pid, socket };
        let mut report = [0; 6];
        // The report of a helper that failed never comes: its end of the socket is closed.
        process.socket.read_exact(&mut report)?;
        let [status, entered, fd @ ..] = report;
        if status != DONE {
            return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(fd)));
        }
        let stage = File::open(format!("/proc/{pid}/fd/{}", i32::from_ne_bytes(fd)))?;
        let pidfd = linux::sys::open_pidfd(pid)?;
        let entered = if entered == 0 { Entered::Mounts } else { Entered::UserAndMounts };
        let folder = open_folder(&format!("/proc/{pid}/cwd"))?;
        Ok(Self { process, pidfd, entered, stage, folder })
    }

    /// The folder in which the files are, at their paths.
    pub(crate) fn stage(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.stage.as_raw_fd()))
    }

    /// Binds files of the stage over those that have their paths. One message for all of them: on
    /// a busy computer the helper's turn to run is what takes long.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is none. `EPERM`: it may not be covered. `EPIPE`: the helper has ended.
    pub(crate) fn cover(&mut self, paths: &[&Path]) -> io::Result<()> {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let socket = &mut self.process.socket;
        socket.write_all(format!("{}\n", paths.join("\t")).as_bytes())?;
        let mut answer = [FAILED; 5];
        let ended = |_| io::Error::from_raw_os_error(libc::EPIPE);
        socket.read_exact(&mut answer).map_err(ended)?;
        let [status, errno @ ..] = answer;
        match status {
            DONE => Ok(()),
            _ => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        }
    }

    /// In the child that becomes the program: joins the helper's namespaces. It is in `/` then.
    ///
    /// # Errors
    ///
    /// `EPERM`, most likely.
    pub(crate) fn join(&self) -> io::Result<()> {
        let spaces = match self.entered {
            Entered::Mounts => ThreadNameSpaceType::MOUNT,
            Entered::UserAndMounts => ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::USER,
        };
        Ok(move_into_thread_name_spaces(self.pidfd.as_fd(), spaces)?)
    }

    /// After [`Self::join`]: goes back into the folder in which it was, of which `path` was the path.
    /// Only a path leads to a folder that is shown instead of it; but it may lead through folders that
    /// are closed to this user, and a folder that was removed has none.
    ///
    /// # Errors
    ///
    /// `EACCES`: the folder itself is closed.
    pub(crate) fn go_back(&self, path: io::Result<PathBuf>) -> io::Result<()> {
        match path.and_then(std::env::set_current_dir) {
            Ok(()) => Ok(()),
            Err(_) => Ok(fchdir(&self.folder)?),
        }
    }
}

#[expect(clippy::exit, reason = "a forked helper ends here, and must not run our code")]
fn end() -> ! {
    std::process::exit(0)
}

/// The helper's life: until our end of the socket is closed.
fn help(tree: &Tree, mut socket: UnixStream) -> io::Result<()> {
    let (stage, source, entered) = match set_up(tree) {
        Ok(done) => done,
        Err(error) => return socket.write_all(&report(FAILED, 0, error_number(&error))),
    };
    let is_user = u8::from(entered == Entered::UserAndMounts);
    socket.write_all(&report(DONE, is_user, stage.as_raw_fd()))?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let mut lines = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let mut paths = line.trim_end_matches('\n').split('\t').map(Path::new);
        let answer = match paths.try_for_each(|path| cover(&root, path)) {
            Ok(()) => report(DONE, 0, 0),
            Err(error) => report(FAILED, 0, error_number(&error)),
        };
        let [status, _, errno @ ..] = answer;
        let [a, b, c, d] = errno;
        socket.write_all(&[status, a, b, c, d])?;
        line.clear();
    }
    Ok(())
}

fn error_number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn report(status: u8, entered: u8, number: i32) -> [u8; 6] {
    let [a, b, c, d] = number.to_ne_bytes();
    [status, entered, a, b, c, d]
}

/// The stage as we write it, the same as it is shown (read-only, which binds inherit), and what was
/// entered.
fn set_up(tree: &Tree) -> io::Result<(OwnedFd, OwnedFd, Entered)> {
    let entered = enter()?;
    let under = FOLDERS[0];
    mount("pagetide", under, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    fs::set_permissions(under, Permissions::from_mode(0o755))?;
    let stage =
        rustix::fs::open(under, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    tree.write(Path::new(under))?;
    let hosts: Vec<&Path> = FOLDERS.iter().map(Path::new).filter(|it| it.is_dir()).collect();
    mount_bind(under, under)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(under, flags, "")?;
    let source = open_folder(under)?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    for folder in hosts.into_iter().filter(|folder| tree.get(folder).is_some()) {
        cover(&root, folder)?;
    }
    Ok((stage, source, entered))
}

fn open_folder(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Binds what the stage has at `path` over what is there.
fn cover(stage: &Path, path: &Path) -> io::Result<()> {
    Ok(mount_bind(below(stage, path), path)?)
}
