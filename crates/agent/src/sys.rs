//! The system calls of the actor that take raw addresses, and every line of unsafe code of this
//! crate.
//!
//! What is safe about them is said once, here. A scenario may name any address: that is what it is
//! for. So the calls run in a process that was forked for one scenario, which touches nothing but
//! its own memory; the areas of a scenario are mapped where nothing else is
//! (`MAP_FIXED_NOREPLACE`), apart from our code, heap and stack. A scenario that names an address
//! of ours all the same can break its own process, which the director sees dead and ends; it can
//! break no other.
#![allow(unsafe_code, reason = "the one place where this crate speaks to the kernel directly")]

mod desk;
mod memory;
mod process;
mod raw;
mod shared;

pub(crate) use desk::{Desk, Drawer};
pub(crate) use memory::{
    Backing, Rights, advise, check, lock, lock_on_fault, map, pin, populate_for_writing, protect,
    read, secret_file, store, touch, unmap,
};
pub(crate) use process::{enter_new_user_namespace, exit_now, fork, heap_end, keep_heap};
pub(crate) use raw::{Call, call};
pub(crate) use shared::shared;

use linux::Errno;

/// The result of a call that answers with a number, or -1 and `errno`.
fn number_or_errno(result: libc::c_long) -> Result<i64, Errno> {
    match result {
        -1 => Err(last_errno()),
        number => Ok(number),
    }
}

fn last_errno() -> Errno {
    Errno::from(&std::io::Error::last_os_error())
}
