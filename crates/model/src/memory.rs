//! Physical memory: frames, zones, nodes, and how a free frame is found.

pub(crate) mod alloc;
pub(crate) mod frames;
pub(crate) mod hugetlb;
pub(crate) mod lru;
pub(crate) mod node;
pub(crate) mod owner;
pub(crate) mod zone;
