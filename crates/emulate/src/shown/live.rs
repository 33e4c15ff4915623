//! The files that change, and the one way to their text.

use machine::NodeId;

use super::host::host;
use super::{cpuinfo, meminfo, process, vmstat, zoneinfo};
use crate::world::World;

/// A file whose text is made when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Live {
    /// `/sys/devices/system/node/nodeN/meminfo`
    NodeMeminfo(NodeId),
    /// `/sys/devices/system/node/nodeN/numastat`
    NodeNumastat(NodeId),
    /// `/sys/devices/system/node/nodeN/vmstat`
    NodeVmstat(NodeId),
    /// `/proc/meminfo`
    Meminfo,
    /// `/proc/vmstat`
    Vmstat,
    /// `/proc/zoneinfo`
    Zoneinfo,
    /// `/proc/stat`
    Stat,
    /// `/proc/cpuinfo`
    Cpuinfo,
    /// `/proc/PID/numa_maps`
    NumaMaps(u32),
    /// `/proc/PID/status`
    Status(u32),
}

impl Live {
    /// The text as it is now. Pages that appeared since the last look are placed first, where they
    /// are counted.
    pub(crate) fn render(self, world: &mut World) -> String {
        match self {
            Self::NumaMaps(pid) => process::numa_maps(world, pid),
            Self::Status(pid) => process::status(world, pid),
            Self::Stat => cpuinfo::stat(&host("/proc/stat"), &world.cpus()),
            Self::Cpuinfo => cpuinfo::cpuinfo(&host("/proc/cpuinfo"), world.machine.topology()),
            _ => {
                world.settle_all();
                self.count(world)
            }
        }
    }

    fn count(self, world: &World) -> String {
        let machine = &world.machine;
        match self {
            Self::NodeMeminfo(node) => meminfo::of_node(machine, node),
            Self::NodeNumastat(node) => vmstat::numastat(machine, node),
            Self::NodeVmstat(node) => vmstat::of_node(machine, node),
            Self::Meminfo => meminfo::of_machine(machine, &host("/proc/meminfo")),
            Self::Vmstat => vmstat::of_machine(machine, &host("/proc/vmstat")),
            Self::Zoneinfo => zoneinfo::text(machine),
            Self::Stat | Self::Cpuinfo | Self::NumaMaps(_) | Self::Status(_) => String::new(),
        }
    }
}
