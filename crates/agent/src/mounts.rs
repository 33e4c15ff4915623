//! What a program expects to find mounted, in the order in which it can be mounted.
//!
//! A kernel that lacks one of them (`ENODEV`) still makes a useful guest: what failed is said on
//! the console, and the boot goes on.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::mount::{MountFlags, mount};

struct Mount {
    kind: &'static str,
    target: &'static str,
    options: &'static CStr,
}

const MOUNTS: [Mount; 9] = [
    Mount { kind: "devtmpfs", target: "/dev", options: c"mode=0755" },
    Mount { kind: "proc", target: "/proc", options: c"" },
    Mount { kind: "sysfs", target: "/sys", options: c"" },
    Mount { kind: "devpts", target: "/dev/pts", options: c"mode=0620,ptmxmode=0666" },
    Mount { kind: "tmpfs", target: "/dev/shm", options: c"mode=1777" },
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", options: c"" },
    Mount { kind: "tracefs", target: "/sys/kernel/tracing", options: c"" },
    Mount { kind: "debugfs", target: "/sys/kernel/debug", options: c"" },
    Mount { kind: "hugetlbfs", target: "/dev/hugepages", options: c"" },
];

/// Not mounted on: they lie in memory like all of the guest, and the lab may have packed files there.
const FOLDERS: [(&str, u32); 3] = [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755)];

/// Where `/proc` has them; devtmpfs does not make these.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Controllers that child cgroups may use.
const CONTROLLERS: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];

/// Mounts everything, and lets child cgroups have the controllers.
pub(crate) fn mount_all() {
    for Mount { kind, target, options } in MOUNTS {
        // A folder that is there already is what we want; for any other failure the mount tells.
        let _ = fs::create_dir_all(target);
        report(
            &format!("mount {kind} on {target}"),
            mount(kind, target, kind, MountFlags::empty(), options),
        );
    }
    for (folder, mode) in FOLDERS {
        let made = fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(mode)));
        report(&format!("make {folder}"), made);
    }
    for (original, link) in LINKS {
        report(&format!("link {link} to {original}"), symlink(original, link));
    }
    for controller in CONTROLLERS {
        let enabled = fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
        report(&format!("enable the cgroup controller {controller}"), enabled);
    }
}

/// Says on the console what could not be done. Nothing can be done about a console that fails.
pub(crate) fn report<E: Into<io::Error>>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        let error: io::Error = error.into();
        let _ = writeln!(io::stderr(), "pagetide init: cannot {what}: {error}");
    }
}
