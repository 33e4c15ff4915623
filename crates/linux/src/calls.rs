//! The migration calls as pagetide uses them: own types in, errors that say what they mean out.
//!
//! The bare calls are in [`crate::sys`]. Here the status array is filled with
//! [`UNWRITTEN`](crate::UNWRITTEN) before the kernel sees it, and an errno becomes an error that
//! names the target and the way out. Nothing is retried: that is the engine's decision.

mod affinity;
mod capability;
mod moving;
mod policy;

pub use crate::sys::{BindFlags, MoveFlags, has_exited, open_pidfd};
pub use affinity::{set_thread_cpus, thread_cpus};
pub use capability::without_sys_nice;
pub use moving::{MoveError, Moved, migrate_pages, move_pages, query_pages};
pub use policy::{
    PolicyError, allowed_nodes, bind, range_policy, set_home_node, set_thread_policy, thread_policy,
};
