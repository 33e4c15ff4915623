//! Reads `/proc/PID/status`: what a process, or a thread, is and where it may run.
//!
//! - The name is escaped (`\n`, `\\`) and may hold a colon, at which procfs 0.18 cuts it.
//! - Kernel threads have no `Vm` fields. They have allowed CPUs and nodes.
//! - `VmPin` counts pages that io_uring and RDMA declare; other pins are in no file.
//!
//! Source: proc_pid_status(5); kernel, fs/proc/array.c, `proc_pid_status`.

use std::collections::BTreeMap;
use std::str::FromStr;

use machine::{Bytes, CpuSet, NodeSet};

use crate::{Malformed, ReadError, Root};

/// What status says, as far as pagetide asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// At most 15 bytes of the program's name.
    pub name: String,
    /// `R` running, `S` sleeping, `Z` zombie and so on.
    pub state: char,
    /// The process.
    pub tgid: u32,
    /// The thread; the process's own id for its first.
    pub pid: u32,
    /// The parent.
    pub parent: u32,
    /// Real, effective, saved and file system user.
    pub uids: [u32; 4],
    /// Real, effective, saved and file system group.
    pub gids: [u32; 4],
    /// Its ids in the pid namespaces from ours to its own.
    pub namespace_pids: Vec<u32>,
    /// Threads of the process.
    pub threads: u32,
    /// Resident memory; none for a kernel thread, or a zombie.
    pub resident: Option<Bytes>,
    /// Memory locked by mlock(2), which migrates all the same.
    pub locked: Option<Bytes>,
    /// Memory pinned for devices, which does not migrate.
    pub pinned: Option<Bytes>,
    /// Memory in hugetlb pages, which `resident` leaves out.
    pub hugetlb: Option<Bytes>,
    /// CPUs where it may run.
    pub cpus_allowed: CpuSet,
    /// Nodes that its cpuset allows.
    pub mems_allowed: NodeSet,
    /// Effective capabilities, as a mask.
    pub capabilities: u64,
    /// Signals that it ignores, as a mask.
    pub ignored_signals: u64,
}

impl Status {
    /// `CAP_DAC_READ_SEARCH`, a bit number of [`Status::capabilities`].
    pub const CAP_DAC_READ_SEARCH: u32 = 2;
    /// `CAP_SYS_PTRACE`.
    pub const CAP_SYS_PTRACE: u32 = 19;
    /// `CAP_SYS_ADMIN`.
    pub const CAP_SYS_ADMIN: u32 = 21;
    /// `CAP_SYS_NICE`.
    pub const CAP_SYS_NICE: u32 = 23;

    /// Whether it has memory: no kernel thread, and no zombie.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.resident.is_some()
    }

    /// Whether the capability with this bit number is in effect.
    #[must_use]
    pub fn is_capable(&self, capability: u32) -> bool {
        self.capabilities.checked_shr(capability).is_some_and(|bits| bits & 1 == 1)
    }

    /// Whether the signal with this number is ignored.
    #[must_use]
    pub fn ignores(&self, signal: u32) -> bool {
        let bit = signal.checked_sub(1);
        let bits = bit.and_then(|bit| self.ignored_signals.checked_shr(bit));
        bits.is_some_and(|bits| bits & 1 == 1)
    }
}

/// Reads the text of status.
///
/// # Errors
///
/// A field that is missing or not what it should be.
pub fn parse(text: &str) -> Result<Status, Malformed> {
    let fields = Fields::new(text);
    Ok(Status {
        name: unescape(fields.text("Name")?),
        state: fields.text("State")?.chars().next().unwrap_or('?'),
        tgid: fields.number("Tgid")?,
        pid: fields.number("Pid")?,
        parent: fields.number("PPid")?,
        uids: fields.four("Uid")?,
        gids: fields.four("Gid")?,
        namespace_pids: fields.list("NSpid").unwrap_or_default(),
        threads: fields.number("Threads")?,
        resident: fields.size("VmRSS")?,
        locked: fields.size("VmLck")?,
        pinned: fields.size("VmPin")?,
        hugetlb: fields.size("HugetlbPages")?,
        cpus_allowed: fields.number("Cpus_allowed_list")?,
        mems_allowed: fields.number("Mems_allowed_list")?,
        capabilities: fields.mask("CapEff")?,
        ignored_signals: fields.mask("SigIgn")?,
    })
}

/// Undoes the kernel's escapes of newline and backslash.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\\\").map(|part| part.replace("\\n", "\n"));
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |whole, part| whole + "\\" + &part)
}

/// The lines of status by name, with their numbers for messages.
struct Fields<'a>(BTreeMap<&'a str, (usize, &'a str)>);

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Self {
        let fields = text.lines().enumerate().filter_map(|(index, line)| {
            let (name, value) = line.split_once(':')?;
            Some((name, (index + 1, value.strip_prefix('\t').unwrap_or(value))))
        });
        Self(fields.collect())
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Result<T, Malformed> {
        let &(line, value) =
            self.0.get(name).ok_or_else(|| Malformed::new(1, format!("no field {name}")))?;
        read(value).ok_or_else(|| Malformed::new(line, format!("{name} is `{value}`")))
    }

    fn text(&self, name: &str) -> Result<&'a str, Malformed> {
        self.with(name, Some)
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T, Malformed> {
        self.with(name, |value| value.trim().parse().ok())
    }

    fn mask(&self, name: &str) -> Result<u64, Malformed> {
        self.with(name, |text| u64::from_str_radix(text, 16).ok())
    }

    fn list(&self, name: &str) -> Result<Vec<u32>, Malformed> {
        self.with(name, |value| value.split_ascii_whitespace().map(|id| id.parse().ok()).collect())
    }

    fn four(&self, name: &str) -> Result<[u32; 4], Malformed> {
        let list = self.list(name)?;
        self.with(name, |_| list.try_into().ok())
    }

    /// A field that may be missing.
    fn size(&self, name: &str) -> Result<Option<Bytes>, Malformed> {
        if !self.0.contains_key(name) {
            return Ok(None);
        }
        self.with(name, |value| {
            let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024).map(Bytes::new)
        })
        .map(Some)
    }
}

/// What a process is and where it may run.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root, pid: u32) -> Result<Status, ReadError> {
    root.parse(super::path(pid, "status"), parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNEL_THREAD: &str = "\
Name:\tkswapd0: a\\n
State:\tS (sleeping)
Tgid:\t37
Pid:\t37
PPid:\t2
Uid:\t0\t0\t0\t0
Gid:\t0\t0\t0\t0
NSpid:\t37
Threads:\t1
SigIgn:\t0000000000000003
CapEff:\t000001ffffffffff
Cpus_allowed_list:\t0-1
Mems_allowed_list:\t0,2
";

    #[test]
    fn a_kernel_thread_has_no_memory_and_a_name_may_hold_a_colon() {
        let status = parse(KERNEL_THREAD).unwrap();
        assert_eq!(status.name, "kswapd0: a\n");
        assert!(!status.has_memory());
        assert_eq!(status.mems_allowed.to_string(), "0,2");
    }

    #[test]
    fn escapes_in_a_name_are_undone_from_left_to_right() {
        assert_eq!(unescape("a\\\\nb\\nc"), "a\\nb\nc");
        assert_eq!(unescape(" a "), " a ");
    }

    #[test]
    fn a_field_that_is_missing_or_odd_is_named() {
        let without = KERNEL_THREAD.replace("Threads", "Fibres");
        assert_eq!(parse(&without).unwrap_err().to_string(), "line 1: no field Threads");
        let odd = KERNEL_THREAD.replace("PPid:\t2", "PPid:\tx");
        assert_eq!(parse(&odd).unwrap_err().to_string(), "line 5: PPid is `x`");
    }

    #[test]
    fn our_own_status_is_what_procfs_reads() {
        let ours = read(&Root::default(), std::process::id()).unwrap();
        let theirs = procfs::process::Process::myself().unwrap().status().unwrap();
        assert_eq!(ours.name, theirs.name);
        assert_eq!(ours.uids, [theirs.ruid, theirs.euid, theirs.suid, theirs.fuid]);
        assert_eq!(ours.capabilities, theirs.capeff);
        let (first, last) = theirs.cpus_allowed_list.unwrap()[0];
        assert!(ours.cpus_allowed.contains(machine::CpuId::new(first).unwrap()));
        assert!(ours.cpus_allowed.contains(machine::CpuId::new(last).unwrap()));
        assert!(ours.has_memory() && !ours.mems_allowed.is_empty());
    }

    #[test]
    fn capabilities_are_read_by_bit() {
        let status = parse(&KERNEL_THREAD.replace("1ffffffffff", "0000800000")).unwrap();
        assert!(status.is_capable(Status::CAP_SYS_NICE));
        assert!(!status.is_capable(Status::CAP_SYS_ADMIN) && !status.is_capable(99));
    }

    #[test]
    fn ignored_signals_are_read_by_their_numbers() {
        let status = parse(KERNEL_THREAD).unwrap();
        let ignored: Vec<u32> = (0..70).filter(|&signal| status.ignores(signal)).collect();
        assert_eq!(ignored, [1, 2]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([A-Za-z_]{1,9}:\t[ -~]{0,20}\n){0,9}|[ -~\n]{0,200}"
        ) {
            let _ = parse(&text);
            let _ = parse(&format!("{KERNEL_THREAD}{text}"));
        }
    }
}
