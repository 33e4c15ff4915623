//! The system calls, argument for argument: raw words in, value or errno out.
//!
//! Checks come in the kernel's order, because a program that gets several arguments wrong sees
//! which one is looked at first. Memory of the caller is read and written through `UserMemory`.

pub(crate) mod get_mempolicy;
pub(crate) mod home_node;
pub(crate) mod mbind;
pub(crate) mod migrate_pages;
pub(crate) mod move_pages;
pub(crate) mod set_mempolicy;
pub(crate) mod user;
pub(crate) mod weights;
