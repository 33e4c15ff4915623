//! Files whose text is written when somebody opens them.
//!
//! Each has a write lease of ours: an open of it waits until we have written the text and released
//! the lease. Nothing but opens of these very files costs anything.
//!
//! - In a folder of ours a fresh file takes the place of the one that was opened, so that each open
//!   has its own text, and the next finds a lease again.
//! - A file that is bound over another cannot be replaced. Its lease is taken again when all who
//!   have it open have closed it, and we have been told; who opens it meanwhile sees the same text,
//!   and a text that is older than [`STALE_AFTER`] is overwritten in place. No change that the model
//!   makes for a call is missed: what was closed before the call is seen before it is answered.
//!
//! A break is answered without waiting for anybody, so it cannot be part of a deadlock: a program
//! that is in open(2) holds no lock that we would need.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

use super::live::Live;
use crate::sys::lease::{self, Break, Breaks};
use crate::world::World;

/// Who opens a text of this age while others still have it open is given a fresh one.
const STALE_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Leased {
    file: File,
    live: Live,
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A fresh file may be put in its place.
    Replaceable,
    /// It is bound somewhere.
    Bound {
        watch: i32,
        /// When its text was written, if there is no lease on it now.
        loose_since: Option<Instant>,
    },
}

/// All leased files.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Dropped first: when the signals are let through again, no lease is left to be told of.
    files: BTreeMap<RawFd, Leased>,
    breaks: Breaks,
    closes: OwnedFd,
    poll: OwnedFd,
    by_watch: BTreeMap<i32, RawFd>,
    /// Bound files that have no lease just now.
    loose: BTreeSet<RawFd>,
}

impl Leases {
    /// No file yet.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub(crate) fn new() -> io::Result<Self> {
        let breaks = Breaks::new()?;
        let closes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for descriptor in [breaks.as_fd(), closes.as_fd()] {
            epoll::add(&poll, descriptor, EventData::new_u64(0), EventFlags::IN)?;
        }
        let (files, by_watch, loose) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Ok(Self { breaks, closes, poll, files, by_watch, loose })
    }

    pub(crate) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// In a child, before exec.
    pub(crate) fn unblock(&self) {
        self.breaks.unblock();
    }

    /// Makes a file at `path` that may be replaced. `text` is what stat sees of it for now.
    ///
    /// # Errors
    ///
    /// What the file system says: `EINVAL` if it has no leases.
    pub(crate) fn add(&mut self, path: &Path, live: Live, text: &str) -> io::Result<()> {
        let file = create(path, text)?;
        self.keep(Leased { file, live, path: path.to_path_buf(), kind: Kind::Replaceable })
    }

    /// Makes a file at `path` that is to be bound over another.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub(crate) fn add_bound(&mut self, path: &Path, live: Live) -> io::Result<()> {
        let file = create(path, "")?;
        let wanted = WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE | WatchFlags::CLOSE_WRITE;
        let watch = inotify::add_watch(&self.closes, path, wanted)?;
        self.by_watch.insert(watch, file.as_raw_fd());
        let kind = Kind::Bound { watch, loose_since: None };
        self.keep(Leased { file, live, path: path.to_path_buf(), kind })
    }

    fn keep(&mut self, leased: Leased) -> io::Result<()> {
        lease::take(&leased.file)?;
        self.files.insert(leased.file.as_raw_fd(), leased);
        Ok(())
    }

    /// Forgets the files below a folder. Who opens one later reads its last text.
    pub(crate) fn drop_below(&mut self, folder: &Path, last: impl Fn(Live) -> String) {
        let is_below = |(_, leased): &(&RawFd, &Leased)| leased.path.starts_with(folder);
        let gone: Vec<RawFd> = self.files.iter().filter(is_below).map(|(&file, _)| file).collect();
        for leased in gone.into_iter().filter_map(|file| self.files.remove(&file)) {
            // When memory has run out, it is the text before.
            let _ = overwrite(&leased.file, &last(leased.live));
            if let Kind::Bound { watch, .. } = leased.kind {
                self.by_watch.remove(&watch);
                // The watch of a file that is gone is gone too.
                let _ = inotify::remove_watch(&self.closes, watch);
            }
        }
    }

    /// Serves all who wait.
    pub(crate) fn serve(&mut self, world: &mut World) {
        while let Some(told) = self.breaks.next() {
            match told {
                Break::Of(file) => self.refresh(world, file),
                Break::Some => {
                    let all: Vec<RawFd> = self.files.keys().copied().collect();
                    all.into_iter().for_each(|file| self.refresh(world, file));
                }
            }
        }
        for (file, closed) in self.events() {
            if !closed {
                self.refresh_if_stale(world, file);
            }
        }
        self.take_again();
    }

    /// Writes the text and lets everybody in who waits.
    fn refresh(&mut self, world: &mut World, file: RawFd) {
        let Some(leased) = self.files.get_mut(&file) else { return };
        let text = leased.live.render(world);
        // When memory has run out, the reader sees what was there before.
        let _ = overwrite(&leased.file, &text);
        if let Kind::Bound { loose_since, .. } = &mut leased.kind {
            *loose_since = Some(Instant::now());
            let _ = lease::release(&leased.file);
            self.loose.insert(file);
            return;
        }
        let (path, live) = (leased.path.clone(), leased.live);
        let old = self.files.remove(&file);
        if let Err(error) = self.replace(&path, live, &text) {
            crate::say(&format!("{} is not kept up to date any more: {error}", path.display()));
        }
        // Closing the old file releases its lease; the new one is in place by now.
        drop(old);
    }

    fn replace(&mut self, path: &Path, live: Live, text: &str) -> io::Result<()> {
        let mut fresh = path.as_os_str().to_os_string();
        fresh.push(OsStr::new("~"));
        let file = create(Path::new(&fresh), text)?;
        lease::take(&file)?;
        fs::rename(&fresh, path)?;
        let leased = Leased { file, live, path: path.to_path_buf(), kind: Kind::Replaceable };
        self.files.insert(leased.file.as_raw_fd(), leased);
        Ok(())
    }

    fn refresh_if_stale(&mut self, world: &mut World, file: RawFd) {
        let Some(leased) = self.files.get_mut(&file) else { return };
        if let Kind::Bound { loose_since: Some(since), .. } = &mut leased.kind
            && since.elapsed() > STALE_AFTER
        {
            *since = Instant::now();
            let text = leased.live.render(world);
            let _ = overwrite(&leased.file, &text);
        }
    }

    /// Takes the leases again of bound files that everybody has closed. The kernel tells of a close
    /// a little before it lets us: so this is tried before each call is answered, too.
    pub(crate) fn take_again(&mut self) {
        let files = &mut self.files;
        self.loose.retain(|file| {
            let Some(leased) = files.get_mut(file) else { return false };
            let Kind::Bound { loose_since, .. } = &mut leased.kind else { return false };
            if lease::take(&leased.file).is_err() {
                return true;
            }
            *loose_since = None;
            false
        });
    }

    /// Which bound files were opened (`false`) or closed (`true`).
    fn events(&self) -> Vec<(RawFd, bool)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.closes, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            if let Some(&file) = self.by_watch.get(&event.wd()) {
                events.push((file, !event.events().contains(ReadFlags::OPEN)));
            }
        }
        events
    }
}

/// A file that only its owner can write, by the descriptor that made it.
fn create(path: &Path, text: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    overwrite(&file, text)?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    Ok(file)
}

fn overwrite(file: &File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}
