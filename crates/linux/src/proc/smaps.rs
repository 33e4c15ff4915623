//! Reads `/proc/PID/smaps`: the size, residence and flags of each mapping.
//!
//! A line of maps, then one field a line, then the flags:
//!
//! ```text
//! 7f5c8c000000-7f5c8c200000 rw-p 00000000 00:00 0
//! Rss:                2048 kB
//! THPeligible:           1
//! VmFlags: rd wr mr mw me ac sd
//! ```
//!
//! Dear: the kernel walks the page table of every mapping and looks at every page. Read it when a
//! flag or a huge page count is wanted that numa_maps has not.
//!
//! Source: proc_pid_smaps(5); kernel, fs/proc/task_mmu.c, `show_smap`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};

use machine::Bytes;

use super::maps::{self, Mapping};
use crate::{Malformed, ReadError, Root};

/// What smaps says about one mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSizes {
    /// The mapping.
    pub mapping: Mapping,
    /// Fields in bytes, by the kernel's name (`Rss`, `AnonHugePages`).
    pub sizes: BTreeMap<String, Bytes>,
    /// Flags, two letters each (`lo` locked, `ht` hugetlb, `io` device memory).
    pub flags: Vec<String>,
}

impl MappingSizes {
    /// A size by the kernel's name; zero when this kernel has no such field.
    #[must_use]
    pub fn size(&self, name: &str) -> Bytes {
        self.sizes.get(name).copied().unwrap_or_default()
    }

    /// Resident memory, without hugetlb pages.
    #[must_use]
    pub fn resident(&self) -> Bytes {
        self.size("Rss")
    }

    /// Anonymous memory in THPs that are mapped whole.
    #[must_use]
    pub fn anon_huge(&self) -> Bytes {
        self.size("AnonHugePages")
    }

    /// Memory locked by mlock(2). It migrates all the same.
    #[must_use]
    pub fn locked(&self) -> Bytes {
        self.size("Locked")
    }

    /// Size of the pages that the kernel maps here.
    #[must_use]
    pub fn page_size(&self) -> Bytes {
        self.size("KernelPageSize")
    }

    /// Whether a page of it is in memory or in swap. The zero page does not count.
    #[must_use]
    pub fn has_pages(&self) -> bool {
        ["Rss", "Swap", "Shared_Hugetlb", "Private_Hugetlb"]
            .iter()
            .any(|name| self.size(name) > Bytes::ZERO)
    }

    /// Whether a flag of two letters is set.
    #[must_use]
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|set| set == flag)
    }
}

/// Reads the text of smaps.
///
/// # Errors
///
/// The first line that is neither a mapping nor a field.
pub fn parse(text: &str) -> Result<Vec<MappingSizes>, Malformed> {
    let mut all: Vec<MappingSizes> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let malformed = |what| Malformed::new(index + 1, what);
        // Names of fields begin with a capital letter, addresses never do.
        if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let mapping = maps::parse_line(line).map_err(malformed)?;
            all.push(MappingSizes { mapping, sizes: BTreeMap::new(), flags: Vec::new() });
            continue;
        }
        let last = all.last_mut().ok_or_else(|| malformed("a field before the first mapping"))?;
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("no field"))?;
        if name == "VmFlags" {
            last.flags = value.split_ascii_whitespace().map(str::to_owned).collect();
        } else if let Some(kib) = value.strip_suffix("kB") {
            let kib: u64 = kib.trim().parse().map_err(|_| malformed("the size is no number"))?;
            last.sizes.insert(name.to_owned(), Bytes::new(kib.saturating_mul(1024)));
        }
    }
    Ok(all)
}

/// Sizes and flags of the mappings of a process.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root, pid: u32) -> Result<Vec<MappingSizes>, ReadError> {
    root.parse(super::path(pid, "smaps"), parse)
}

/// Sizes and flags of the one mapping that starts at `start`: the kernel walks what lies before it, and
/// not what lies behind. `None` when no mapping starts there.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_one(root: &Root, pid: u32, start: u64) -> Result<Option<MappingSizes>, ReadError> {
    let path = super::path(pid, "smaps");
    let full = root.path(&path);
    let head = format!("{start:x}-");
    let mut text = String::new();
    for line in BufReader::new(root.open(&path)?).split(b'\n') {
        let line = line.map_err(|error| root.error(&full, &error))?;
        let line = String::from_utf8_lossy(&line);
        let is_head = !line.starts_with(|first: char| first.is_ascii_uppercase());
        if is_head && !text.is_empty() {
            break;
        }
        if !text.is_empty() || (is_head && line.trim_start_matches('0').starts_with(&head)) {
            text += &line;
            text.push('\n');
        }
    }
    let parsed =
        parse(&text).map_err(|malformed| ReadError::Malformed { path: full, malformed })?;
    Ok(parsed.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    const TEXT: &str = "\
7f5c8c000000-7f5c8c200000 rw-p 00000000 00:00 0 
Size:               2048 kB
KernelPageSize:        4 kB
Rss:                2048 kB
AnonHugePages:      2048 kB
Locked:                0 kB
Cooled:                8 kB
THPeligible:           1
VmFlags: rd wr mr mw me lo 
";

    #[test]
    fn one_mapping_is_read_alone_and_is_the_one_that_a_whole_read_finds() {
        // Other tests map and unmap in this process; a `cat` that waits for more does not.
        let (input, output) = (Stdio::piped(), Stdio::piped());
        let mut cat = Command::new("cat").stdin(input).stdout(output).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let (root, pid) = (Root::default(), cat.id());
        for mapping in read(&root, pid).unwrap() {
            let start = mapping.mapping.range.start();
            let one = read_one(&root, pid, start).unwrap();
            assert_eq!(one.map(|one| one.mapping.range.start()), Some(start));
        }
        assert_eq!(read_one(&root, pid, 1).unwrap(), None);
        drop(cat.stdin.take());
        assert!(cat.wait().unwrap().success());
    }

    #[test]
    fn fields_and_flags_belong_to_the_mapping_before_them() {
        let [sizes] = &parse(TEXT).unwrap()[..] else { panic!("one mapping") };
        assert_eq!(sizes.resident(), Bytes::new(2 << 20));
        assert_eq!(sizes.anon_huge(), Bytes::new(2 << 20));
        assert_eq!(sizes.page_size(), Bytes::new(4096));
        assert!(sizes.has_flag("lo") && !sizes.has_flag("ht"));
    }

    #[test]
    fn a_size_of_a_newer_kernel_survives() {
        assert_eq!(parse(TEXT).unwrap()[0].size("Cooled"), Bytes::new(8192));
    }

    #[test]
    fn a_field_without_a_mapping_is_refused() {
        let error = parse("Rss: 1 kB").unwrap_err().to_string();
        assert_eq!(error, "line 1: a field before the first mapping");
    }

    #[test]
    fn our_own_stack_is_resident_and_procfs_agrees_on_the_mappings() {
        let ours = read(&Root::default(), std::process::id()).unwrap();
        let stack = ours.iter().find(|sizes| sizes.mapping.is_stack()).unwrap();
        assert!(stack.resident() > Bytes::ZERO && stack.has_flag("gd"));
        let theirs = procfs::process::Process::myself().unwrap().smaps().unwrap();
        let theirs =
            theirs.iter().find(|map| map.pathname == procfs::process::MMapPath::Stack).unwrap();
        assert_eq!(stack.mapping.range.end(), theirs.address.1);
        assert_eq!(stack.page_size().get(), theirs.extension.map["KernelPageSize"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([ -~]{0,40}\n|[A-Z][a-z]{1,5}: {0,3}[0-9]{0,30} kB\n){0,8}"
        ) {
            let _ = parse(&text);
            let _ = parse(&format!("{TEXT}{text}"));
        }
    }
}
