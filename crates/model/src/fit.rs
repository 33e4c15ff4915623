//! Which machines the model has room for. It takes a machine at its word when it boots it, so that
//! who has one from a user asks here first.

use machine::{Bytes, Topology};

use crate::Machine;
use crate::convert::index;
use crate::memory::frames::Frames;
use crate::memory::node::{MAX_NODES, usable_pages};

/// The least memory with which the kernel has room for itself.
const LEAST_MEMORY: Bytes = Bytes::new(64 << 20);
/// A frame number has 32 bits.
const MOST_MEMORY: Bytes = Bytes::new(16 << 40);

/// Why the model cannot boot a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// More nodes than [`MAX_NODES`].
    #[error("the machine {machine} has {nodes} nodes, and the model has room for {MAX_NODES}")]
    Nodes {
        /// Its name.
        machine: String,
        /// How many it has.
        nodes: usize,
    },
    /// Too little memory, or too much.
    #[error(
        "the machine {machine} has {memory} in whole pages of 2 MiB, and the model takes \
         {LEAST_MEMORY} up to {MOST_MEMORY}"
    )]
    Memory {
        /// Its name.
        machine: String,
        /// Memory of all nodes.
        memory: Bytes,
    },
    /// This computer does not give the addresses for what the model keeps of each page.
    #[error(
        "the machine {machine} has {memory}: this computer has no room for a model of so many pages"
    )]
    Computer {
        /// Its name.
        machine: String,
        /// Memory of all nodes.
        memory: Bytes,
    },
}

impl Machine {
    /// Whether a machine can be booted.
    ///
    /// # Errors
    ///
    /// [`Misfit`].
    pub fn fits(topology: &Topology) -> Result<(), Misfit> {
        let machine = || topology.name.clone();
        let nodes = topology.nodes().len();
        if nodes > MAX_NODES {
            return Err(Misfit::Nodes { machine: machine(), nodes });
        }
        let memory = Bytes::from_pages(topology.nodes().iter().map(usable_pages).sum());
        if !(LEAST_MEMORY..MOST_MEMORY).contains(&memory) {
            return Err(Misfit::Memory { machine: machine(), memory });
        }
        if !Frames::has_room(index(memory.pages())) {
            return Err(Misfit::Computer { machine: machine(), memory });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use machine::{Node, NodeId};

    use super::*;
    use crate::{KernelVersion, Options};

    fn machine_of(memory: &[Bytes]) -> Topology {
        let node = |(id, &memory): (u16, &Bytes)| Node {
            id: NodeId::new(id).unwrap(),
            cpus: if id == 0 { "0".parse().unwrap() } else { "".parse().unwrap() },
            memory,
            free: None,
            tier: None,
            latency_ns: None,
            bandwidth_per_s: None,
        };
        Topology::new("odd", (0..).zip(memory).map(node).collect(), None).unwrap()
    }

    fn said(memory: &[Bytes]) -> String {
        Machine::fits(&machine_of(memory)).unwrap_err().to_string()
    }

    #[test]
    fn what_the_model_has_no_room_for_is_said() {
        let nodes = vec![Bytes::new(1 << 30); 33];
        assert_eq!(said(&nodes), "the machine odd has 33 nodes, and the model has room for 32");
        let takes = "in whole pages of 2 MiB, and the model takes 64.0 MiB up to 16.0 TiB";
        for (memory, shown) in [(4 << 10, "0 B"), (62 << 20, "62.0 MiB"), (16 << 40, "16.0 TiB")] {
            let expected = format!("the machine odd has {shown} {takes}");
            assert_eq!(said(&[Bytes::new(memory)]), expected);
        }
        let parts = vec![Bytes::new(3 << 20); 31];
        assert_eq!(said(&parts), format!("the machine odd has 62.0 MiB {takes}"));
    }

    #[test]
    fn the_least_machines_that_fit_can_be_booted() {
        for memory in [vec![Bytes::new(64 << 20)], vec![Bytes::new(2 << 20); 32]] {
            let machine = machine_of(&memory);
            Machine::fits(&machine).unwrap();
            for version in KernelVersion::ALL {
                Machine::boot(machine.clone(), version, Options::default());
            }
        }
    }
}
