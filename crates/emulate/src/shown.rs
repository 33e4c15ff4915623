//! The files that describe NUMA, as the emulated machine would have them.
//!
//! Called by the launcher and the supervisor at the moments that the crate's page lists; renders
//! text from the world and never changes it, but for settling pages before they are counted.
//!
//! What there is to be shown is a [`mod@tree`]; `nodes`, `cpus` and `memory` fill it, and [`live`] knows
//! the text of what changes. It is shown by [`mounts`], whose changing files are kept fresh by
//! [`leases`]; or, where there are no namespaces, by [`inject`].

mod cpuinfo;
mod cpus;
mod cpusets;
#[cfg(test)]
mod golden;
mod host;
mod inject;
mod leases;
mod live;
mod mask;
mod meminfo;
mod memory;
mod mounts;
mod names;
mod nodes;
mod process;
mod tree;
mod vmstat;
mod zoneinfo;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use model::Machine;

use self::inject::Injected;
use self::leases::Leases;
use self::live::Live;
use self::mounts::Mounts;
use self::tree::{Entry, Tree, below};
use crate::call::{Answer, Call};
use crate::filter::{Rule, When};
use crate::sys::notify::Listener;
use crate::world::{Notice, World};

/// How files are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Files {
    /// By mounts where namespaces may be had, else by injected descriptors.
    #[default]
    Auto,
    /// By mounts.
    Mounts,
    /// Calls that name them are answered, and opens are given descriptors of ours.
    Injected,
    /// Not at all: the program reads this computer's.
    None,
}

/// Files of `/proc` that are of the whole machine.
const PROC: [(&str, Live); 5] = [
    ("/proc/cpuinfo", Live::Cpuinfo),
    ("/proc/meminfo", Live::Meminfo),
    ("/proc/stat", Live::Stat),
    ("/proc/vmstat", Live::Vmstat),
    ("/proc/zoneinfo", Live::Zoneinfo),
];

/// Calls by which a program may get a `/proc` of its own.
const MOUNTING: [Rule; 2] = [(libc::SYS_mount, When::Always), (libc::SYS_fsopen, When::Always)];

// Bytes of `enter`: what was not done.
const OUTSIDE: u8 = 1;
const IN_ROOT: u8 = 2;

/// What is shown, and how.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    by_mounts: Option<ByMounts>,
    injected: Option<Injected>,
}

#[derive(Debug)]
struct ByMounts {
    mounts: Mounts,
    leases: Leases,
    /// Processes whose files are covered.
    covered: BTreeSet<u32>,
}

impl Shown {
    /// In the supervisor, before the fork.
    ///
    /// # Errors
    ///
    /// What the kernel said, if the way of showing files was chosen and cannot be had.
    pub(crate) fn prepare(world: &World, files: Files) -> io::Result<Self> {
        let by_mounts = match files {
            Files::None | Files::Injected => None,
            Files::Mounts => Some(ByMounts::new(&world.machine)?),
            Files::Auto => ByMounts::new(&world.machine).ok(),
        };
        let injects = match files {
            Files::Injected => true,
            Files::Auto => by_mounts.is_none(),
            Files::Mounts | Files::None => false,
        };
        let injected = if injects { Some(Injected::new(&world.machine)?) } else { None };
        Ok(Self { by_mounts, injected })
    }

    /// In the child, before the filter: namespaces and mounts. What came of it, as a byte.
    pub(crate) fn enter(&mut self) -> u8 {
        let Some(shown) = &self.by_mounts else { return 0 };
        shown.leases.unblock();
        let folder = std::env::current_dir();
        match shown.mounts.join().map(|()| shown.mounts.go_back(folder)) {
            Ok(Ok(())) => 0,
            Ok(Err(_)) => IN_ROOT,
            Err(_) => OUTSIDE,
        }
    }

    /// The folder of ours that is removed at the end.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.injected.as_ref().map(Injected::folder)
    }

    /// In the child, after [`Self::enter`]: rules of calls to be handed over in addition.
    pub(crate) fn traps(&self) -> &'static [Rule] {
        match self {
            Self { injected: Some(_), .. } => &inject::TRAPS,
            Self { by_mounts: Some(_), .. } => &MOUNTING,
            _ => &[],
        }
    }

    /// In the supervisor: the child `pid` is about to exec; `entered` is the byte of its `enter`.
    pub(crate) fn started(&mut self, _world: &mut World, _pid: u32, entered: u8) {
        match entered {
            OUTSIDE => {
                crate::say("the program could not join the namespace in which files are shown");
            }
            IN_ROOT => crate::say(
                "the program starts in /, for the folder in which it was to start is closed to it \
                 (EACCES); start it in another, or with --files injected",
            ),
            _ => {}
        }
    }

    /// A descriptor to poll.
    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.by_mounts.as_ref().map(|shown| shown.leases.poll_fd())
    }

    /// [`Self::poll_fd`] is readable.
    pub(crate) fn serve(&mut self, world: &mut World) {
        if let Some(shown) = &mut self.by_mounts {
            shown.leases.serve(world);
        }
    }

    /// A process was seen for the first time, or has a new program.
    pub(crate) fn known(&mut self, world: &mut World, pid: u32) {
        if let Some(shown) = &mut self.by_mounts
            && shown.covered.insert(pid)
            && let Err(error) = shown.cover_process(pid)
            // A process that has ended meanwhile needs no files.
            && let Some(advice) = advice(&error)
        {
            let line = format!(
                "cannot show the status and numa_maps of process {pid}, and maybe of later ones, which \
                 are this computer's instead: {error}; {advice}"
            );
            world.tell_once(Notice::Uncovered, &line);
        }
    }

    /// A process has ended, and the world has it still.
    pub(crate) fn gone(&mut self, world: &World, pid: u32) {
        if let Some(shown) = &mut self.by_mounts
            && shown.covered.remove(&pid)
        {
            let folder = below(&shown.mounts.stage(), &process_folder(pid));
            // Its files can be opened until its parent has waited for it.
            shown.leases.drop_below(&folder, |live| match live {
                Live::Status(pid) => process::status(world, pid),
                _ => String::new(),
            });
            let _ = fs::remove_dir_all(folder);
        }
    }

    /// The last process has ended.
    pub(crate) fn close(&mut self) {
        self.by_mounts = None;
    }

    /// A call of [`Self::traps`]; `None` leaves it to the others.
    pub(crate) fn answer(
        &mut self,
        world: &mut World,
        listener: &Listener,
        call: &Call,
    ) -> Option<Answer> {
        if let Some(shown) = &mut self.by_mounts {
            shown.leases.take_again();
            tell_of_own_files(world, call);
        }
        self.injected.as_ref()?.answer(world, listener, call)
    }
}

/// A sandbox or a container that mounts a `/proc` or a `/sys` of its own: ours does not lie on it. In a user
/// namespace of its own the kernel refuses it, for something lies on the one that is there
/// (kernel, fs/namespace.c, `mount_too_revealing`).
fn tell_of_own_files(world: &mut World, call: &Call) {
    let name = match call.number {
        libc::SYS_mount => call.args[2],
        libc::SYS_fsopen => call.args[0],
        _ => return,
    };
    let name = inject::read_text(call.tid, name).unwrap_or_default();
    let folder = match name.as_slice() {
        b"proc" => "/proc",
        b"sysfs" => "/sys",
        _ => return,
    };
    let line = format!(
        "thread {} mounts a {folder} of its own: it shows this computer, or is refused with EPERM; with \
         --files injected it shows the machine",
        call.tid
    );
    world.tell_once(Notice::OwnFiles, &line);
}

impl ByMounts {
    fn new(machine: &Machine) -> io::Result<Self> {
        let mut tree = tree(machine);
        let cpusets = cpusets::add(&mut tree, machine);
        for (path, _) in PROC {
            tree.add(Path::new(path).parent().unwrap_or(Path::new("/")), Entry::Folder);
        }
        let mut shown = Self {
            mounts: Mounts::start(&tree)?,
            leases: Leases::new()?,
            covered: BTreeSet::new(),
        };
        let stage = shown.mounts.stage();
        for (path, live) in tree.live() {
            shown.leases.add(&below(&stage, path), live, "")?;
        }
        for path in cpusets {
            shown.mounts.cover(&[&path])?;
        }
        for (path, live) in PROC.into_iter().filter(|(path, _)| Path::new(path).exists()) {
            shown.leases.add_bound(&below(&stage, Path::new(path)), live)?;
            shown.mounts.cover(&[Path::new(path)])?;
        }
        Ok(shown)
    }

    fn cover_process(&mut self, pid: u32) -> io::Result<()> {
        let folder = process_folder(pid);
        let stage = self.mounts.stage();
        fs::create_dir(below(&stage, &folder))?;
        let (numa_maps, status) = (folder.join("numa_maps"), folder.join("status"));
        self.leases.add_bound(&below(&stage, &numa_maps), Live::NumaMaps(pid))?;
        self.leases.add_bound(&below(&stage, &status), Live::Status(pid))?;
        self.mounts.cover(&[&numa_maps, &status])
    }
}

/// What helps against an error of [`ByMounts::cover_process`]; `None`: the process has ended.
fn advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EPIPE => Some("somebody has ended the helper that shows them: run the program again"),
        libc::EMFILE | libc::ENFILE => Some("raise the limit of open files (ulimit -n)"),
        libc::ENOSPC => Some("raise fs.inotify.max_user_watches or fs.mount-max (sysctl)"),
        libc::ENOMEM => Some("memory has run out"),
        _ => None,
    }
}

fn process_folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Everything that is shown of sysfs.
fn tree(machine: &Machine) -> Tree {
    let mut tree = Tree::default();
    nodes::add(&mut tree, machine);
    cpus::add(&mut tree, machine.topology());
    memory::add(&mut tree, machine);
    tree
}
