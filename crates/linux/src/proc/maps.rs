//! Reads `/proc/PID/maps`: the mappings of a process, in address order.
//!
//! ```text
//! 7f5c8c000000-7f5c8c200000 rw-s 00001000 fe:00 247282      /usr/lib/a name (deleted)
//! ```
//!
//! - The name begins at column 73, or one blank after a long inode number; it may hold blanks. A
//!   newline in it is written `\012`; nothing else is escaped, so that a file called
//!   `x\012` looks the same.
//! - ` (deleted)` at its end is the kernel's, or part of the name. It is kept.
//! - Kernel threads and zombies have an empty file.
//!
//! Own parser: procfs 0.18 gives up on all mappings when a single name is no UTF-8, and panics on
//! a file called `/SYSV`. This one is one pass over the line.
//!
//! Source: proc_pid_maps(5); kernel, fs/proc/task_mmu.c, `show_map_vma`.

use std::fmt;

use machine::AddrRange;

use crate::error::parse_lines;
use crate::{Malformed, ReadError, Root, sys};

/// One line of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: AddrRange,
    /// What the process may do with it.
    pub permissions: Permissions,
    /// Byte in the file at which it begins; 0 without a file.
    pub offset: u64,
    /// Device of the file.
    pub device: Device,
    /// Inode of the file; 0 without one.
    pub inode: u64,
    /// As the kernel writes it: a path, `[heap]`, `[anon:x]`, or nothing.
    pub name: String,
}

/// The letters `rwxs` of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// `r`.
    pub read: bool,
    /// `w`.
    pub write: bool,
    /// `x`.
    pub execute: bool,
    /// `s`, as opposed to `p`: writes are seen by all who map it.
    pub shared: bool,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Mapping {
    /// Private memory without a file.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0 && !self.permissions.shared
    }

    /// The heap of brk(2).
    #[must_use]
    pub fn is_heap(&self) -> bool {
        self.name == "[heap]"
    }

    /// The stack of the main thread. Those of other threads are ordinary anonymous memory.
    #[must_use]
    pub fn is_stack(&self) -> bool {
        self.name == "[stack]"
    }

    /// Shared memory by its name alone: memfd, SysV segment, or shared anonymous memory. A file on
    /// a mounted tmpfs is known by its [`Device`] only ([`super::mountinfo`]).
    #[must_use]
    pub fn is_nameless_shmem(&self) -> bool {
        ["/memfd:", "/SYSV", "/dev/zero (deleted)", "[anon_shmem:"]
            .iter()
            .any(|name| self.name.starts_with(name))
            && self.device.major == 0
    }

    /// Pages of the kernel, which never migrate (`[vvar]`, `[vdso]`, `[vsyscall]`, `[uprobes]`).
    #[must_use]
    pub fn is_kernels_own(&self) -> bool {
        ["[vvar", "[vdso]", "[vsyscall]", "[uprobes]"]
            .iter()
            .any(|name| self.name.starts_with(name))
    }
}

/// Reads the text of maps.
///
/// # Errors
///
/// The first line that is no mapping.
pub fn parse(text: &str) -> Result<Vec<Mapping>, Malformed> {
    parse_lines(text, parse_line)
}

/// Reads one line, without its newline.
pub(super) fn parse_line(line: &str) -> Result<Mapping, &'static str> {
    let mut rest = line;
    let mut field = || {
        let (field, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail;
        field
    };
    let (start, end) = field().split_once('-').ok_or("no address range")?;
    let range = AddrRange::new(hex(start)?, hex(end)?).ok_or("the range ends before it starts")?;
    let permissions = permissions(field())?;
    let offset = hex(field())?;
    let (major, minor) = field().split_once(':').ok_or("no device")?;
    let device = Device { major: small_hex(major)?, minor: small_hex(minor)? };
    let inode = field().parse().map_err(|_| "the inode is no number")?;
    let name = rest.trim_start_matches(' ').to_owned();
    Ok(Mapping { range, permissions, offset, device, inode, name })
}

fn permissions(letters: &str) -> Result<Permissions, &'static str> {
    let &[r, w, x, s] = letters.as_bytes() else { return Err("permissions are not four letters") };
    Ok(Permissions { read: r == b'r', write: w == b'w', execute: x == b'x', shared: s == b's' })
}

fn hex(digits: &str) -> Result<u64, &'static str> {
    u64::from_str_radix(digits, 16).map_err(|_| "not a hexadecimal number")
}

fn small_hex(digits: &str) -> Result<u32, &'static str> {
    u32::from_str_radix(digits, 16).map_err(|_| "not a device number")
}

/// The mappings of a process.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root, pid: u32) -> Result<Vec<Mapping>, ReadError> {
    root.parse(super::path(pid, "maps"), parse)
}

/// Whether a process has memory that it may write and others may see. A kernel that can finds it without
/// text (6.11); else the text is looked through as bytes.
///
/// # Errors
///
/// [`ReadError`].
pub fn shares_memory(root: &Root, pid: u32) -> Result<bool, ReadError> {
    let relative = super::path(pid, "maps");
    let file = root.open(&relative)?;
    match sys::procmap_query(&file, 0, sys::MappingFlags::WRITABLE_SHARED) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(_) => Ok(has_writable_shared_line(&root.bytes_of(file, relative)?)),
    }
}

fn has_writable_shared_line(maps: &[u8]) -> bool {
    maps.split(|&byte| byte == b'\n').any(|line| {
        let permissions = line.split(|&byte| byte == b' ').nth(1);
        permissions.is_some_and(|it| it.get(1) == Some(&b'w') && it.ends_with(b"s"))
    })
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |set, letter| if set { letter } else { '-' };
        write!(
            f,
            "{}{}{}{}",
            letter(self.read, 'r'),
            letter(self.write, 'w'),
            letter(self.execute, 'x'),
            if self.shared { 's' } else { 'p' }
        )
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.major, self.minor)
    }
}

impl fmt::Display for Mapping {
    /// As the kernel writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, permissions, offset, device, inode, name } = self;
        let (start, end) = (range.start(), range.end());
        let fields = format!("{start:08x}-{end:08x} {permissions} {offset:08x} {device} {inode} ");
        if name.is_empty() { f.write_str(&fields) } else { write!(f, "{fields:<73}{name}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DELETED: &str = "7f5c8c000000-7f5c8c200000 rw-s 00001000 00:01 2053    \
                           \x20  /memfd:a b (deleted)";

    #[test]
    fn a_name_with_blanks_and_a_deleted_mark_is_kept() {
        let mapping = parse_line(DELETED).unwrap();
        assert_eq!(mapping.name, "/memfd:a b (deleted)");
        assert_eq!(mapping.range.bytes().get(), 2 << 20);
        assert_eq!(mapping.offset, 0x1000);
        assert_eq!(mapping.device, Device { major: 0, minor: 1 });
        assert_eq!(mapping.inode, 2053);
        assert!(mapping.permissions.shared && !mapping.permissions.execute);
        assert!(mapping.is_nameless_shmem() && !mapping.is_anonymous());
    }

    #[test]
    fn a_mapping_without_a_name_is_anonymous() {
        let mapping = parse_line("7ffd0000-7ffd1000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(mapping.name, "");
        assert!(mapping.is_anonymous() && !mapping.is_heap() && !mapping.is_stack());
    }

    #[test]
    fn shared_memory_that_prctl_has_named_is_shared_memory() {
        let line = "7f5c8c000000-7f5c8c200000 rw-s 00000000 00:01 2053  [anon_shmem:pool]";
        let mapping = parse_line(line).unwrap();
        assert!(mapping.is_nameless_shmem() && !mapping.is_anonymous());
    }

    #[test]
    fn what_we_read_of_ourselves_is_what_procfs_reads() {
        let ours = read(&Root::default(), std::process::id()).unwrap();
        let theirs = procfs::process::Process::myself().unwrap().maps().unwrap();
        assert!(ours.iter().any(Mapping::is_stack));
        // Heap and tests on other threads change between the two reads; code does not.
        let code = |range, execute: bool| execute.then_some(range);
        let ours = ours
            .iter()
            .filter_map(|m| code((m.range.start(), m.range.end()), m.permissions.execute));
        let theirs = theirs.iter().filter_map(|m| {
            code(m.address, m.perms.contains(procfs::process::MMPermissions::EXECUTE))
        });
        assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
    }

    #[test]
    fn memory_that_others_see_is_found_in_text() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("proc/7")).unwrap();
        let shares = |maps: &str| {
            std::fs::write(folder.path().join("proc/7/maps"), maps).unwrap();
            shares_memory(&Root::new(folder.path()), 7).unwrap()
        };
        let private = DELETED.replace("rw-s", "rw-p");
        assert!(!shares("") && !shares(&private) && !shares(&DELETED.replace("rw-s", "r--s")));
        assert!(shares(&format!("{private}\n{DELETED}\n")));
        assert!(shares(&DELETED.replace("rw-s", "-w-s")));
    }

    #[test]
    fn a_broken_line_is_named() {
        let text = format!("{DELETED}\n7f00-7e00 rw-p 0 0:0 0");
        assert_eq!(
            parse(&text).unwrap_err().to_string(),
            "line 2: the range ends before it starts"
        );
    }

    fn any_mapping() -> impl Strategy<Value = Mapping> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        let device = (0_u32..4096, 0_u32..1 << 20);
        (
            numbers,
            any::<[bool; 4]>(),
            device,
            "([/\\[][^\\n\\r\\x0b\\x0c\\x1c-\\x1e\u{85}\u{2028}\u{2029}]*)?",
        )
            .prop_map(
                |((a, b, offset, inode), [read, write, execute, shared], (major, minor), name)| {
                    Mapping {
                        range: AddrRange::new(a.min(b), a.max(b)).unwrap(),
                        permissions: Permissions { read, write, execute, shared },
                        offset,
                        device: Device { major, minor },
                        inode,
                        name,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_a_mapping_prints_it_reads_back(mapping in any_mapping()) {
            prop_assert_eq!(parse(&mapping.to_string()), Ok(vec![mapping]));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
