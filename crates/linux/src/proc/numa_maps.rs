//! Reads `/proc/PID/numa_maps`: how many pages of each mapping lie on each node.
//!
//! One line for each mapping:
//!
//! ```text
//! 7f5c8c000000 default anon=512 dirty=512 N0=256 N1=256 kernelpagesize_kB=4
//! ```
//!
//! - `N0=256` counts pages of `kernelpagesize_kB`: base pages for a THP, huge pages for hugetlb.
//! - A mapping without resident pages has no `N` field and no page size. That is not an error.
//! - A policy of two words (`prefer (many)`, `weighted interleave`) has a blank in it.
//! - Blanks in a file's name are written `\040`, and tab, newline and `=` likewise; a backslash
//!   is not.
//! - The zero page is not counted, and neither are pages of the kernel and of devices.
//! - `active` is left out when all pages are; `mapped` when all are anonymous or all dirty.
//!
//! The kernel walks the whole page table for it; for a few pages [`crate::calls::query_pages`] is
//! cheaper.
//!
//! Source: numa(7); kernel, fs/proc/task_mmu.c, `show_numa_map`.

use std::collections::BTreeMap;

use machine::{Bytes, NodeId};

use super::task;
use crate::error::parse_lines;
use crate::{Malformed, MemPolicy, ReadError, Root};

/// One line of numa_maps. Counts are of pages of [`page_size`](Self::page_size).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaMapping {
    /// The first address, which names the mapping.
    pub start: u64,
    /// The policy in force: the mapping's own, else that of the process's first thread.
    pub policy: MemPolicy,
    /// Name of the mapped file, if there is one.
    pub file: Option<String>,
    /// The heap of brk(2).
    pub is_heap: bool,
    /// The stack of the main thread.
    pub is_stack: bool,
    /// Pages of a hugetlb pool.
    pub is_hugetlb: bool,
    /// Pages on each node.
    pub pages: BTreeMap<NodeId, u64>,
    /// Size of the pages that are counted; none when no page is resident.
    pub page_size: Option<Bytes>,
    /// Anonymous pages.
    pub anon: u64,
    /// Dirty pages.
    pub dirty: u64,
    /// Mapped pages, where the kernel says how many.
    pub mapped: Option<u64>,
    /// The most mappings that one page has; none when none has more than one.
    pub mapmax: Option<u64>,
    /// Pages in the swap cache.
    pub swapcache: u64,
    /// Pages on the active list; none when all are.
    pub active: Option<u64>,
    /// Pages being written.
    pub writeback: u64,
    /// Fields that we have no name for, as they are.
    pub other: Vec<String>,
}

impl NumaMapping {
    /// Bytes on each node.
    pub fn bytes(&self) -> impl Iterator<Item = (NodeId, Bytes)> {
        let size = self.page_size.unwrap_or_default().get();
        self.pages.iter().map(move |(&node, pages)| (node, Bytes::new(pages.saturating_mul(size))))
    }
}

/// Reads the text of numa_maps.
///
/// # Errors
///
/// The first line that has no address, or a count that is no number.
pub fn parse(text: &str) -> Result<Vec<NumaMapping>, Malformed> {
    parse_lines(text, parse_line)
}

fn parse_line(line: &str) -> Result<NumaMapping, String> {
    let (start, rest) = line.split_once(' ').ok_or("no policy")?;
    let start = u64::from_str_radix(start, 16).map_err(|_| format!("no address: `{start}`"))?;
    let (policy, rest) = split_policy(rest);
    let policy = MemPolicy::from_text(policy);
    let mut mapping = NumaMapping { start, policy, ..NumaMapping::default() };
    for field in rest.split_ascii_whitespace() {
        take_field(&mut mapping, field)?;
    }
    Ok(mapping)
}

/// Splits off the policy, which may be of two words.
fn split_policy(text: &str) -> (&str, &str) {
    let words = ["prefer (many)", "weighted interleave"];
    let first = words.iter().find(|word| text.starts_with(**word)).map_or(0, |word| word.len());
    let end = text[first..].find(' ').map_or(text.len(), |blank| first + blank);
    (&text[..end], &text[end..])
}

fn take_field(mapping: &mut NumaMapping, field: &str) -> Result<(), String> {
    let (key, value) = field.split_once('=').unwrap_or((field, ""));
    let count = || value.parse().map_err(|_| format!("`{field}` has no count"));
    match key {
        "file" => mapping.file = Some(unescape(value)),
        "heap" => mapping.is_heap = true,
        "stack" => mapping.is_stack = true,
        "huge" => mapping.is_hugetlb = true,
        "anon" => mapping.anon = count()?,
        "dirty" => mapping.dirty = count()?,
        "mapped" => mapping.mapped = Some(count()?),
        "mapmax" => mapping.mapmax = Some(count()?),
        "swapcache" => mapping.swapcache = count()?,
        "active" => mapping.active = Some(count()?),
        "writeback" => mapping.writeback = count()?,
        "kernelpagesize_kB" => {
            mapping.page_size = Some(Bytes::new(count()?.saturating_mul(1024)));
        }
        _ => match node(key) {
            Some(node) => drop(mapping.pages.insert(node, count()?)),
            None => mapping.other.push(field.to_owned()),
        },
    }
    Ok(())
}

/// The node of a field called `N0`.
fn node(key: &str) -> Option<NodeId> {
    key.strip_prefix('N')?.parse().ok().and_then(NodeId::new)
}

/// Undoes the kernel's octal escapes of blank, tab, newline and `=`.
fn unescape(name: &str) -> String {
    if !name.contains('\\') {
        return name.to_owned();
    }
    name.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\075", "=")
}

/// What lies where in a process. Where its first thread has exited, its file shows nothing (or, under
/// `pagetide run`, all): that of a thread that still runs is read then.
///
/// # Errors
///
/// [`ReadError`]. `NotFound` from a kernel without NUMA.
pub fn read(root: &Root, pid: u32) -> Result<Vec<NumaMapping>, ReadError> {
    let read = |tid| root.parse(super::path(tid, "numa_maps"), parse);
    let lines = read(pid);
    let shows_nothing = match &lines {
        Ok(lines) => lines.is_empty(),
        Err(error) => matches!(error, ReadError::NoProcess { .. }),
    };
    if !shows_nothing {
        return lines;
    }
    match task::with_memory(root, pid) {
        Ok(Some(tid)) if tid != pid => read(tid),
        _ => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(line: &str) -> NumaMapping {
        parse(line).unwrap().remove(0)
    }

    #[test]
    fn pages_are_counted_by_node_in_units_of_the_page_size() {
        let line = "7f0000000000 bind:0-1 anon=3 dirty=3 N0=1 N3=2 kernelpagesize_kB=4";
        let node = |raw| NodeId::new(raw).unwrap();
        let mapping = only(line);
        assert_eq!(mapping.start, 0x7f00_0000_0000);
        assert_eq!(mapping.policy.to_string(), "bind:0-1");
        let bytes: Vec<_> = mapping.bytes().collect();
        assert_eq!(bytes, [(node(0), Bytes::new(4096)), (node(3), Bytes::new(8192))]);
        let line = "7f0000000000 default file=/anon_hugepage\\040(deleted) huge \
                    anon=2 dirty=2 N1=2 kernelpagesize_kB=2048";
        let mapping = only(line);
        assert!(mapping.is_hugetlb);
        assert_eq!(mapping.file.as_deref(), Some("/anon_hugepage (deleted)"));
        assert_eq!(mapping.bytes().collect::<Vec<_>>(), [(node(1), Bytes::new(4 << 20))]);
    }

    #[test]
    fn a_policy_of_two_words_does_not_swallow_the_fields_behind_it() {
        let mapping = only("7f00 prefer (many)=static:0-1 heap anon=1 N0=1 kernelpagesize_kB=4");
        assert_eq!(mapping.policy.to_string(), "prefer (many)=static:0-1");
        assert!(mapping.is_heap);
        let mapping = only("7f00 weighted interleave:0,2 stack");
        assert_eq!(mapping.policy.to_string(), "weighted interleave:0,2");
        assert!(mapping.is_stack);
    }

    #[test]
    fn a_mapping_without_pages_has_no_page_size() {
        let mapping = only("7f00 default file=/usr/lib/a");
        assert_eq!((mapping.page_size, mapping.bytes().count()), (None, 0));
    }

    #[test]
    fn fields_and_policies_of_a_newer_kernel_survive() {
        let mapping =
            only("7f00 nearest:1 anon=1 cooled=7 frozen N0=1 N9999=1 kernelpagesize_kB=4");
        assert_eq!(mapping.policy.to_string(), "nearest:1");
        assert_eq!(mapping.other, ["cooled=7", "frozen", "N9999=1"]);
    }

    #[test]
    fn a_count_that_is_no_number_is_named_with_its_line() {
        let error = parse("7f00 default\n7f01 default N0=x").unwrap_err();
        assert_eq!(error.to_string(), "line 2: `N0=x` has no count");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([0-9a-f]{1,9} (default|prefer \\(many\\):0|bind:[0-9-]{0,70})\
                ( [ -~]{0,9}=?[0-9]{0,30}){0,9}\n?){0,3}|[ -~\n]{0,200}"
        ) {
            let _ = parse(&text);
        }
    }
}
