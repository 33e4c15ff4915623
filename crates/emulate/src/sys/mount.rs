//! Namespaces of our own, in which files may be covered.

use std::{fs, io};

use rustix::mount::{MountPropagationFlags, mount_change};

/// What this process could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// A mount namespace: it is privileged.
    Mounts,
    /// A user namespace in which it is the same user as outside, and a mount namespace.
    UserAndMounts,
}

/// Leaves the mount namespace for a copy of it; through a user namespace where that takes
/// privileges that this process lacks. Mounts of the old one still arrive; none goes back.
///
/// # Errors
///
/// `EPERM`, `ENOSPC`: user namespaces are forbidden. `EINVAL`: there is more than one thread.
///
/// Source: user_namespaces(7), mount_namespaces(7).
pub(crate) fn enter() -> io::Result<Entered> {
    let entered = match unshare(libc::CLONE_NEWNS) {
        Ok(()) => Entered::Mounts,
        Err(_) => {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1", user = user.as_raw()))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1", group = group.as_raw()))?;
            Entered::UserAndMounts
        }
    };
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(entered)
}

fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: the call touches no memory; descriptors stay shared with nobody, since neither flag
    // is about them.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
