//! Memory policies and cpusets: which nodes a page may, should and must be on.

pub(crate) mod cpuset;
pub(crate) mod mempolicy;
pub(crate) mod placement;
