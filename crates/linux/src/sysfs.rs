//! Readers of `/sys`: nodes, tiers, huge pages, and which node a page frame belongs to.

pub mod frame_map;
pub mod node;
pub mod thp;
pub mod tier;
pub mod topology;
