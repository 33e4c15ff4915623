//! The emulated machine, and the processes that live on it.

use model::Machine;

/// What the supervisor knows.
#[derive(Debug)]
pub(crate) struct World {
    /// The machine of the model.
    pub(crate) machine: Machine,
}

impl World {
    /// A booted machine without processes.
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// Places the pages of a process that have appeared since the last look. Before anything is
    /// said about where its memory is.
    pub(crate) fn settle(&mut self, _pid: u32) {}
}
