//! Weights of weighted interleave: `/sys/kernel/mm/mempolicy/weighted_interleave/nodeN`.

use machine::NodeId;

use crate::Machine;
use crate::errno::Errno;

impl Machine {
    /// The weight of a node.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the kernel has no such file.
    ///
    /// Source: behaviour spec 4.6.
    pub fn weight(&self, node: NodeId) -> Result<u8, Errno> {
        let slot = self.nodes.slot(node).filter(|_| self.behaviour.weighted_interleave);
        slot.map(|slot| self.nodes[slot].weight).ok_or(Errno::ENOENT)
    }

    /// Writes the weight of a node; 0 and nothing reset it to 1 on 6.12.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the kernel has no such file. `EINVAL`: not a number from 1 to 255.
    ///
    /// Source: behaviour spec 4.6.
    pub fn set_weight(&mut self, node: NodeId, text: &str) -> Result<(), Errno> {
        self.weight(node)?;
        let weight = match text.trim() {
            "" | "0" if self.behaviour.zero_weight_is_invalid => return Err(Errno::EINVAL),
            "" | "0" => 1,
            number => number.parse::<u8>().map_err(|_| Errno::EINVAL)?,
        };
        let slot = self.nodes.slot(node).ok_or(Errno::ENOENT)?;
        self.nodes[slot].weight = weight;
        Ok(())
    }
}
