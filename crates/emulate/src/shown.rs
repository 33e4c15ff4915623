//! The files that describe NUMA, as the emulated machine would have them.
//!
//! Called by the launcher and the supervisor at the moments that the crate's page lists; renders
//! text from the world and never changes it, but for settling pages before they are counted.

use std::io;
use std::os::fd::BorrowedFd;

use crate::call::{Answer, Call};
use crate::sys::notify::Listener;
use crate::world::World;

/// What is shown, and how.
#[derive(Debug, Default)]
pub(crate) struct Shown {}

impl Shown {
    /// In the supervisor, before the fork.
    pub(crate) fn prepare(_world: &World) -> io::Result<Self> {
        Ok(Self {})
    }

    /// In the child, before the filter: namespaces and mounts. What came of it, as a byte.
    pub(crate) fn enter(&mut self) -> u8 {
        0
    }

    /// In the child, after [`Self::enter`]: numbers of calls to be handed over in addition.
    pub(crate) fn traps(&self) -> Vec<i64> {
        Vec::new()
    }

    /// In the supervisor: the child `pid` is about to exec; `entered` is the byte of its `enter`.
    pub(crate) fn started(&mut self, _world: &mut World, _pid: u32, _entered: u8) {}

    /// A descriptor to poll.
    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// [`Self::poll_fd`] is readable.
    pub(crate) fn serve(&mut self, _world: &mut World) {}

    /// A process was seen for the first time, or has a new program.
    pub(crate) fn known(&mut self, _world: &mut World, _pid: u32) {}

    /// A process has ended.
    pub(crate) fn gone(&mut self, _pid: u32) {}

    /// A call of [`Self::traps`]; `None` leaves it to the others.
    pub(crate) fn answer(
        &mut self,
        _world: &mut World,
        _listener: &Listener,
        _call: &Call,
    ) -> Option<Answer> {
        None
    }
}
