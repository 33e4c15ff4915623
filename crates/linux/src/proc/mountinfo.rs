//! Reads `/proc/self/mountinfo`: where cgroup v2 is mounted, and which devices are tmpfs.
//!
//! Blanks in names are written as octal escapes, which procfs leaves as they are.
//!
//! Source: proc_pid_mountinfo(5).

use std::path::PathBuf;

use procfs::FromBufRead;
use procfs::process::{MountInfo, MountInfos};

use super::maps::Device;
use crate::{Malformed, ReadError, Root};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its device, as [`Mapping::device`](super::maps::Mapping::device) has it.
    pub device: Device,
    /// The folder of the file system that is mounted; `/` mostly.
    pub subtree: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// `tmpfs`, `cgroup2`, `hugetlbfs` and so on.
    pub file_system: String,
}

/// Reads the text of mountinfo.
///
/// # Errors
///
/// When a line lacks a field.
pub fn parse(text: &str) -> Result<Vec<Mount>, Malformed> {
    let MountInfos(mounts) = MountInfos::from_buf_read(text.as_bytes())
        .map_err(|_| Malformed::new(1, "not the fields of a mount on each line"))?;
    mounts
        .into_iter()
        .map(|mount| {
            let number = &mount.majmin;
            let device = device(number)
                .ok_or_else(|| Malformed::new(1, format!("`{number}` is no device number")))?;
            let MountInfo { root, mount_point, fs_type, .. } = mount;
            let mount_point = unescape(&mount_point.to_string_lossy()).into();
            Ok(Mount { device, subtree: unescape(&root), mount_point, file_system: fs_type })
        })
        .collect()
}

fn device(number: &str) -> Option<Device> {
    let (major, minor) = number.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Undoes the kernel's octal escapes of blank, tab, newline and backslash.
fn unescape(name: &str) -> String {
    name.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The mounts that the caller sees.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<Vec<Mount>, ReadError> {
    root.parse("proc/self/mountinfo", parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mount_is_read_with_its_blanks_restored() {
        let line = "41 31 0:38 /a\\040b /mnt/c\\040d rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        let [mount] = &parse(line).unwrap()[..] else { panic!("one mount") };
        assert_eq!(mount.device, Device { major: 0, minor: 38 });
        assert_eq!(mount.subtree, "/a b");
        assert_eq!(mount.mount_point, PathBuf::from("/mnt/c d"));
        assert_eq!(mount.file_system, "cgroup2");
    }

    #[test]
    fn proc_is_mounted_here() {
        let mounts = read(&Root::default()).unwrap();
        assert!(mounts.iter().any(|mount| mount.file_system == "proc"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([0-9]{1,2} [0-9] [0-9:]{1,4} / [ -~]{0,30} - [ -~]{0,10}\n){0,3}|\
                [ -~\n]{0,100}"
        ) {
            let _ = parse(&text);
        }
    }
}
