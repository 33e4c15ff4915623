//! What can be seen from outside: counters, numa_maps, pagemap, tracepoints, call paths.

pub(crate) mod call_path;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod numa_maps;
pub(crate) mod pagemap;
pub(crate) mod usage;
pub(crate) mod vmstat;
