//! Shows files without namespaces: calls that name one of ours are answered from a folder of ours.
//!
//! An open is given a descriptor: of the file in that folder, or of a memfd with fresh text. What
//! is opened from there on, listed, or asked of a descriptor is the kernel's own doing, since the
//! descriptor of a folder is a real one. Calls that name any other path are made by the kernel; they
//! cost a notification each, but for those that [`TRAPS`] lets through. A program that finds its way by
//! chdir(2) into one of these folders, or by realpath(3), sees this computer's.
//!
//! Paths are resolved by their words: a link of this computer into one of our folders is not seen.
//!
//! Source: seccomp_unotify(2).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use model::Machine;
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, accessat, memfd_create};
use tempfile::TempDir;

use super::live::Live;
use super::mounts::FOLDERS;
use super::tree::{Entry, Tree, below};
use super::{PROC, cpusets};
use crate::call::{Answer, Call, int};
use crate::filter::{Rule, When};
use crate::sys::notify::Listener;
use crate::sys::{memory, stat};
use crate::world::World;

/// The rules of calls that name a file. Two kinds are made by the kernel at once, for a program that is
/// busy with files makes most of its calls in these ways: what asks of a descriptor, which is a real
/// one; and the readlink by which realpath(3) of glibc looks at each part of a path.
///
/// `faccessat2` and `openat2` are not in libc 0.2 for all targets.
pub(crate) const TRAPS: [Rule; 14] = [
    (libc::SYS_open, When::Always),
    (libc::SYS_openat, When::Always),
    (libc::SYS_openat2, When::Always),
    (libc::SYS_stat, When::Always),
    (libc::SYS_lstat, When::Always),
    (libc::SYS_newfstatat, When::NoBit(3, EMPTY_PATH)),
    (libc::SYS_statx, When::NoBit(2, EMPTY_PATH)),
    (libc::SYS_access, When::Always),
    (libc::SYS_faccessat, When::Always),
    (libc::SYS_faccessat2, When::Always),
    (libc::SYS_readlink, When::Not(2, REALPATH_ROOM)),
    (libc::SYS_readlinkat, When::Always),
    (libc::SYS_creat, When::Always),
    (libc::SYS_truncate, When::Always),
];

/// `AT_EMPTY_PATH`.
const EMPTY_PATH: u32 = 0x1000;
/// The room for a link's target that realpath(3) asks with first (seen with glibc 2.36).
const REALPATH_ROOM: u32 = 1023;

/// `PATH_MAX`
const PATH_MAX: usize = 4096;
/// Where all folders and files of ours are.
const OURS: [&[u8]; 2] = [b"/proc", b"/sys"];

/// The folder, and what is in it.
#[derive(Debug)]
pub(crate) struct Injected {
    folder: TempDir,
    tree: Tree,
    /// Files outside of the folders.
    cpusets: Vec<PathBuf>,
}

/// A call, taken apart: whose folder, which path, and whether a last link is followed.
struct Named {
    folder: i32,
    path: u64,
    follow: bool,
}

/// What a path is.
enum Found {
    /// In the folder.
    Here(PathBuf),
    Live(Live),
}

impl Injected {
    /// Writes the files.
    ///
    /// # Errors
    ///
    /// No folder can be made.
    pub(crate) fn new(machine: &Machine) -> io::Result<Self> {
        let mut tree = super::tree(machine);
        let cpusets = cpusets::add(&mut tree, machine);
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("pagetide-run-").tempdir_in(base)?;
        tree.write(folder.path())?;
        for (path, _) in tree.live() {
            let file = File::create_new(below(folder.path(), path))?;
            file.set_permissions(Permissions::from_mode(0o444))?;
        }
        Ok(Self { folder, tree, cpusets })
    }

    /// Where all of it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Answers a call that names one of our files; `None` for all others.
    pub(crate) fn answer(
        &self,
        world: &mut World,
        listener: &Listener,
        call: &Call,
    ) -> Option<Answer> {
        let named = named(call)?;
        let path = resolve(self.folder.path(), call.tid, &named)?;
        let found = self.find(world, call.tid, &path)?;
        let answer = match call.number {
            libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 => {
                self.open(world, listener, call, found)
            }
            libc::SYS_creat | libc::SYS_truncate => Ok(Answer::Error(libc::EACCES)),
            _ => match found {
                Found::Live(_) => return None,
                Found::Here(here) => ask(call, &here, named.follow),
            },
        };
        Some(
            answer.unwrap_or_else(|error| Answer::Error(error.raw_os_error().unwrap_or(libc::EIO))),
        )
    }

    fn find(&self, world: &mut World, tid: u32, path: &Path) -> Option<Found> {
        if let Ok(rest) = path.strip_prefix("/proc") {
            return live_of_proc(world, tid, path, rest).map(Found::Live);
        }
        let is_ours = FOLDERS.iter().any(|folder| path.starts_with(folder));
        if !is_ours && !self.cpusets.iter().any(|file| file == path) {
            return None;
        }
        Some(Found::Here(below(self.folder.path(), path)))
    }

    fn open(
        &self,
        world: &mut World,
        listener: &Listener,
        call: &Call,
        found: Found,
    ) -> io::Result<Answer> {
        let flags = match call.number {
            libc::SYS_open => int(call.args[1]),
            libc::SYS_openat => int(call.args[2]),
            _ => how(call)?,
        };
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Ok(Answer::Error(libc::EACCES));
        }
        let live = match &found {
            Found::Live(live) => Some(*live),
            Found::Here(here) => self.live(here),
        };
        let file = match (live, &found) {
            (Some(live), _) => fresh(&live.render(world))?,
            (None, Found::Here(here)) => {
                let kept = libc::O_DIRECTORY | libc::O_PATH | libc::O_NOFOLLOW;
                OpenOptions::new().read(true).custom_flags(flags & kept).open(here)?
            }
            (None, Found::Live(_)) => return Ok(Answer::Continue),
        };
        let closes = flags & libc::O_CLOEXEC != 0;
        listener.send_descriptor(call.id, file.as_fd(), closes)?;
        Ok(Answer::Sent)
    }

    /// What changes there, if links lead to something that does.
    fn live(&self, here: &Path) -> Option<Live> {
        let real = fs::canonicalize(here).ok()?;
        let path = real.strip_prefix(fs::canonicalize(self.folder.path()).ok()?).ok()?;
        match self.tree.get(&Path::new("/").join(path)) {
            Some(Entry::Live(live)) => Some(*live),
            _ => None,
        }
    }
}

/// A file that only its reader has.
fn fresh(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("pagetide", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// stat, access and readlink of a file in the folder.
fn ask(call: &Call, here: &Path, follow: bool) -> io::Result<Answer> {
    let [_, b, c, d, e, _] = call.args;
    let (address, bytes) = match call.number {
        libc::SYS_stat | libc::SYS_lstat => (b, stat::stat(here, follow)?),
        libc::SYS_newfstatat => (c, stat::stat(here, follow)?),
        libc::SYS_statx => (e, stat::statx(here, follow, int(d).cast_unsigned())?),
        libc::SYS_access | libc::SYS_faccessat | libc::SYS_faccessat2 => {
            let mode = if call.number == libc::SYS_access { b } else { c };
            let mode = Access::from_bits_truncate(int(mode).cast_unsigned());
            return Ok(match accessat(CWD, here, mode, AtFlags::empty()) {
                Ok(()) => Answer::Value(0),
                Err(errno) => Answer::Error(errno.raw_os_error()),
            });
        }
        _ => {
            let target = fs::read_link(here)?.into_os_string().into_encoded_bytes();
            let is_at = call.number == libc::SYS_readlinkat;
            let (address, room) = if is_at { (c, d) } else { (b, c) };
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let target = &target[..target.len().min(room)];
            memory::write(call.tid, address, target)?;
            return Ok(Answer::Value(i64::try_from(target.len()).unwrap_or(i64::MAX)));
        }
    };
    memory::write(call.tid, address, &bytes)?;
    Ok(Answer::Value(0))
}

fn named(call: &Call) -> Option<Named> {
    const NOFOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;
    let [a, b, c, d, ..] = call.args;
    let at = |flags: u64| Named { folder: int(a), path: b, follow: int(flags) & NOFOLLOW == 0 };
    let plain = |follow| Named { folder: libc::AT_FDCWD, path: a, follow };
    Some(match call.number {
        libc::SYS_open | libc::SYS_stat | libc::SYS_access => plain(true),
        libc::SYS_creat | libc::SYS_truncate => plain(true),
        libc::SYS_lstat | libc::SYS_readlink => plain(false),
        libc::SYS_openat | libc::SYS_openat2 | libc::SYS_faccessat | libc::SYS_readlinkat => at(0),
        libc::SYS_newfstatat | libc::SYS_faccessat2 => at(d),
        libc::SYS_statx => at(c),
        _ => return None,
    })
}

/// Flags of openat2(2): the first word of its `struct open_how`.
fn how(call: &Call) -> io::Result<i32> {
    let mut word = [0; 8];
    memory::read(call.tid, call.args[2], &mut word)?;
    Ok(int(u64::from_ne_bytes(word)))
}

/// The absolute path that a call names; `None` where it cannot be read, or cannot be one of ours.
fn resolve(folder: &Path, tid: u32, named: &Named) -> Option<PathBuf> {
    let path = read_text(tid, named.path)?;
    // An empty path asks of a descriptor itself, which is a real one.
    if path.is_empty() || is_elsewhere(&path) {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(&path));
    if path.is_absolute() {
        return Some(flatten(path));
    }
    let base = match named.folder {
        libc::AT_FDCWD => fs::read_link(format!("/proc/{tid}/cwd")).ok()?,
        number => fs::read_link(format!("/proc/{tid}/fd/{number}")).ok()?,
    };
    let base = base.strip_prefix(folder).map(|rest| Path::new("/").join(rest)).unwrap_or(base);
    Some(flatten(&base.join(path)))
}

/// Whether an absolute path leads to no folder in which we have files: almost all do, and this is
/// asked of every one.
fn is_elsewhere(path: &[u8]) -> bool {
    let starts = |folder: &[u8]| path.starts_with(folder);
    // Other ways to write a path of ours begin by a second slash or a dot, or go up.
    let is_plain = !starts(b"//") && !starts(b"/.") && !path.windows(3).any(|part| part == b"/..");
    starts(b"/") && is_plain && !OURS.iter().any(|folder| starts(folder))
}

/// The text at an address of a thread, up to its zero.
pub(super) fn read_text(tid: u32, address: u64) -> Option<Vec<u8>> {
    // Most are short. A part lies in one page, which is there as a whole or not at all.
    const PART: u16 = 256;
    let mut path = Vec::new();
    let mut at = address;
    while path.len() < PATH_MAX {
        let mut part = [0; PART as usize];
        let many = u64::from(PART) - at % u64::from(PART);
        let part = &mut part[..usize::try_from(many).ok()?];
        memory::read(tid, at, part).ok()?;
        match part.iter().position(|&byte| byte == 0) {
            Some(end) => {
                path.extend(&part[..end]);
                return Some(path);
            }
            None => path.extend(&*part),
        }
        at = at.checked_add(part.len() as u64)?;
    }
    None
}

/// Without `.` and `..`.
fn flatten(path: &Path) -> PathBuf {
    let mut flat = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => flat.push(name),
            Component::ParentDir => {
                flat.pop();
            }
            _ => {}
        }
    }
    flat
}

fn live_of_proc(world: &mut World, tid: u32, path: &Path, rest: &Path) -> Option<Live> {
    if let Some((_, live)) = PROC.iter().find(|(name, _)| Path::new(name) == path) {
        return Some(*live);
    }
    let mut names = rest.iter();
    let (Some(process), Some(name), None) = (names.next(), names.next(), names.next()) else {
        return None;
    };
    let live = match name.to_str()? {
        "numa_maps" => Live::NumaMaps,
        "status" => Live::Status,
        _ => return None,
    };
    let pid = match process.to_str()? {
        "self" => world.process_of(tid),
        number => world.process_of(number.parse().ok()?),
    };
    pid.map(live)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    #[test]
    fn paths_are_taken_by_their_words() {
        assert_eq!(flatten(Path::new("/sys/a/../b/./c")), Path::new("/sys/b/c"));
        assert_eq!(flatten(Path::new("/../x")), Path::new("/x"));
    }

    #[test]
    fn a_path_is_read_out_of_memory() {
        let path = c"/sys/devices/system/node";
        let read = read_text(std::process::id(), path.as_ptr().addr() as u64);
        assert_eq!(read.as_deref(), Some(path.to_bytes()));
        let long = CString::new(vec![b'x'; 3000]).unwrap();
        let read = read_text(std::process::id(), long.as_ptr().addr() as u64);
        assert_eq!(read.as_deref(), Some(long.to_bytes()));
        let too_long = CString::new(vec![b'x'; 5000]).unwrap();
        assert_eq!(read_text(std::process::id(), too_long.as_ptr().addr() as u64), None);
    }

    #[test]
    fn no_way_to_write_a_path_of_ours_is_taken_for_one_elsewhere() {
        for ours in
            ["/sys/a", "/proc/self/status", "//sys/a", "/./sys", "/x/../sys/a", "/../sys", "a", "."]
        {
            assert!(!is_elsewhere(ours.as_bytes()), "{ours}");
        }
        for elsewhere in ["/", "/usr/lib/x.so", "/x/sys/devices", "/x/./y", "/home/a..b"] {
            assert!(is_elsewhere(elsewhere.as_bytes()), "{elsewhere}");
        }
        let files = PROC.iter().map(|(path, _)| path);
        let folders =
            FOLDERS.iter().chain(files).chain(cpusets::MOUNTS.iter().map(|(_, path)| path));
        assert!(folders.into_iter().all(|path| !is_elsewhere(path.as_bytes())));
    }

    #[test]
    fn a_fresh_file_is_read_from_its_start() {
        assert_eq!(io::read_to_string(fresh("text").unwrap()).unwrap(), "text");
    }
}
