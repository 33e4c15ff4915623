//! The migration and policy calls with arguments as they stand, good or bad: a scenario wants to
//! see what the kernel makes of a null pointer, a node that is absent, a flag that is none.

use linux::Errno;

use super::number_or_errno;

/// A system call whose arguments a scenario chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// `migrate_pages(pid, maxnode, old, new)`.
    MigratePages,
    /// `move_pages(pid, count, pages, nodes, status, flags)`.
    MovePages,
    /// `mbind(start, length, mode, mask, maxnode, flags)`.
    Mbind,
    /// `set_mempolicy(mode, mask, maxnode)`.
    SetMempolicy,
    /// `get_mempolicy(mode, mask, maxnode, address, flags)`.
    GetMempolicy,
    /// `set_mempolicy_home_node(start, length, node, flags)`.
    HomeNode,
}

impl Call {
    const fn number(self) -> libc::c_long {
        match self {
            Self::MigratePages => libc::SYS_migrate_pages,
            Self::MovePages => libc::SYS_move_pages,
            Self::Mbind => libc::SYS_mbind,
            Self::SetMempolicy => libc::SYS_set_mempolicy,
            Self::GetMempolicy => libc::SYS_get_mempolicy,
            Self::HomeNode => libc::SYS_set_mempolicy_home_node,
        }
    }
}

/// Makes a call; the kernel ignores arguments that the call does not have.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn call(call: Call, arguments: [u64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: of these calls move_pages writes its status array, and get_mempolicy a mode word and
    // a mask, of the caller's memory: a scenario points them at its desk, or at an address that
    // nobody can write. The others change where pages lie, never what they hold.
    number_or_errno(unsafe { libc::syscall(call.number(), a, b, c, d, e, f) })
}
