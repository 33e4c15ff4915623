//! What an area is to be: `NAME=KIND:SIZE[,option...]` as data.
//!
//! Called by [`crate::args`]. Pure: what can be seen to be wrong without the kernel is refused here,
//! so that a test with a slip in it does not run half of its course.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Bytes of a base page.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Nodes and CPUs are numbered below this; both masks that we hand to the kernel are this long.
pub(crate) const ID_LIMIT: u32 = 1024;

/// A stack area stays well inside the 128 MiB that the kernel leaves between stack and mmap area.
pub(crate) const STACK_LIMIT_BYTES: usize = 64 << 20;

/// Names that stand before `=` in the `ready` line for something else than an area.
const TAKEN_NAMES: [&str; 2] = ["pid", "child"];

/// One area of memory, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AreaSpec {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// A multiple of the page size of `kind`.
    pub(crate) bytes: usize,
    pub(crate) placing: Placing,
    pub(crate) is_locked: bool,
    /// How many pages to pin, from the first on.
    pub(crate) pinned: Pinned,
    pub(crate) is_shared_with_child: bool,
    pub(crate) is_touched: bool,
}

/// What memory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Anon,
    Thp,
    /// Pages of a hugetlb pool, of this size.
    Hugetlb {
        page_bytes: usize,
    },
    Shm,
    Memfd,
    File {
        path: PathBuf,
        /// `MAP_PRIVATE`; what is written becomes anonymous memory.
        is_private: bool,
        /// The contents are written to the file and the mapping only reads them.
        is_read_only: bool,
    },
    Heap,
    Stack,
    /// Private anonymous memory that is only read: the zero page.
    Zero,
}

impl Kind {
    /// Bytes that one fault brings in, and that one entry of `nodes=` places.
    pub(crate) fn page_bytes(&self) -> usize {
        match self {
            Self::Thp => 2 << 20,
            Self::Hugetlb { page_bytes } => *page_bytes,
            _ => PAGE_BYTES,
        }
    }

    /// Whether the mapping itself is ever written.
    pub(crate) fn is_written(&self) -> bool {
        !matches!(self, Self::Zero | Self::File { is_read_only: true, .. })
    }
}

/// Where the pages are to be allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Where the kernel likes.
    Anywhere,
    /// On these nodes in turn, page by page; no mempolicy stays.
    Nodes(Vec<u32>),
    /// On this node, by a mempolicy of the VMA, which stays.
    Bind(u32),
}

/// How much of an area has an extra reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    Nothing,
    All,
    First(usize),
}

/// Reads `NAME=KIND:SIZE[,option...]`.
pub(crate) fn parse_area(text: &str) -> Result<AreaSpec> {
    parse(text).map_err(|why| Error::Usage(format!("area {text:?}: {why}")))
}

fn parse(text: &str) -> std::result::Result<AreaSpec, String> {
    let (name, rest) = text.split_once('=').ok_or("expected NAME=KIND:SIZE[,option...]")?;
    let mut parts = rest.split(',');
    let shape = parts.next().unwrap_or_default();
    let (kind, size) = shape.split_once(':').ok_or("expected KIND:SIZE after the name")?;
    let options = parts.map(|part| part.split_once('=').unwrap_or((part, "")));

    let mut spec = AreaSpec {
        name: parse_name(name)?,
        kind: parse_kind(kind)?,
        bytes: parse_size(size)?,
        placing: Placing::Anywhere,
        is_locked: false,
        pinned: Pinned::Nothing,
        is_shared_with_child: false,
        is_touched: false,
    };
    for (key, value) in options {
        spec.set(key, value)?;
    }
    spec.refuse_contradictions()?;
    Ok(spec)
}

impl AreaSpec {
    fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match (key, value, &mut self.kind) {
            // `nodes=0,1` has been split at its commas: the rest of the list comes as bare numbers.
            ("node" | "nodes", ..) => self.place(Placing::Nodes(vec![parse_id(value)?]))?,
            ("bind", ..) => self.place(Placing::Bind(parse_id(value)?))?,
            (digits, "", _) if digits.starts_with(|c: char| c.is_ascii_digit()) => {
                let Placing::Nodes(nodes) = &mut self.placing else {
                    return Err(format!("number {digits} without nodes= before it"));
                };
                nodes.push(parse_id(digits)?);
            }
            ("mlock", "", _) => self.is_locked = true,
            ("pin", "", _) => self.pinned = Pinned::All,
            ("pin", ..) => {
                let pages = value.parse().map_err(|_| format!("pin={value}: expected a number"))?;
                self.pinned = Pinned::First(pages);
            }
            ("shared-with-child", "", _) => self.is_shared_with_child = true,
            ("touch", "", _) => self.is_touched = true,
            ("path", _, Kind::File { path, .. }) => *path = PathBuf::from(value),
            ("private", "", Kind::File { is_private, .. }) => *is_private = true,
            ("read", "", Kind::File { is_read_only, .. }) => *is_read_only = true,
            _ => return Err(format!("option {key:?} is unknown, or not for this kind")),
        }
        Ok(())
    }

    fn place(&mut self, placing: Placing) -> std::result::Result<(), String> {
        if self.placing != Placing::Anywhere {
            return Err("node=, nodes= and bind= exclude each other".into());
        }
        self.placing = placing;
        Ok(())
    }

    fn refuse_contradictions(&self) -> std::result::Result<(), String> {
        let page_bytes = self.kind.page_bytes();
        if self.bytes == 0 || !self.bytes.is_multiple_of(page_bytes) {
            return Err(format!("the size must be a multiple of {page_bytes} bytes"));
        }
        if self.kind == Kind::Stack && self.bytes > STACK_LIMIT_BYTES {
            return Err(format!("a stack area has at most {STACK_LIMIT_BYTES} bytes"));
        }
        if matches!(&self.kind, Kind::File { path, .. } if path.as_os_str().is_empty()) {
            return Err("a file needs path=".into());
        }
        if self.is_touched && !self.kind.is_written() {
            return Err("touch writes, and this area is only read".into());
        }
        Ok(())
    }
}

fn parse_name(text: &str) -> std::result::Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || !text.chars().all(is_word) {
        return Err("a name has letters, digits, - and _".into());
    }
    if TAKEN_NAMES.contains(&text) {
        return Err(format!("the name {text} means something else in the ready line"));
    }
    Ok(text.to_owned())
}

fn parse_kind(text: &str) -> std::result::Result<Kind, String> {
    Ok(match text {
        "anon" => Kind::Anon,
        "thp" => Kind::Thp,
        "hugetlb" => Kind::Hugetlb { page_bytes: 2 << 20 },
        "hugetlb-1g" => Kind::Hugetlb { page_bytes: 1 << 30 },
        "shm" => Kind::Shm,
        "memfd" => Kind::Memfd,
        "file" => Kind::File { path: PathBuf::new(), is_private: false, is_read_only: false },
        "heap" => Kind::Heap,
        "stack" => Kind::Stack,
        "zero" => Kind::Zero,
        _ => return Err(format!("unknown kind {text:?}")),
    })
}

/// Reads `4096`, `64K`, `64KiB`, `16M`, `1GiB`: always powers of 1024.
pub(crate) fn parse_size(text: &str) -> std::result::Result<usize, String> {
    let wrong = || format!("size {text:?}: expected a number with K, M, G (or KiB, MiB, GiB)");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let number: usize = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Reads the number of a node or a CPU.
pub(crate) fn parse_id(text: &str) -> std::result::Result<u32, String> {
    let id = text.parse().ok().filter(|id| *id < ID_LIMIT);
    id.ok_or_else(|| format!("{text:?}: expected a node or CPU below {ID_LIMIT}"))
}

/// Reads `0,2-3` as the kernel writes lists.
pub(crate) fn parse_ids(text: &str) -> std::result::Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        ids.extend(parse_id(first)?..=parse_id(last)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        parse_area(text).unwrap_err().to_string()
    }

    #[test]
    fn an_area_without_options_is_anywhere_and_at_rest() {
        let spec = parse_area("a=anon:64M").unwrap();
        assert_eq!((spec.name.as_str(), spec.kind, spec.bytes), ("a", Kind::Anon, 64 << 20));
        assert_eq!((spec.placing, spec.pinned), (Placing::Anywhere, Pinned::Nothing));
        assert!(!spec.is_locked && !spec.is_touched && !spec.is_shared_with_child);
    }

    #[test]
    fn every_option_reaches_its_field() {
        let spec = parse_area("f=file:8K,path=/data/x,private,node=1,mlock,pin=2,touch").unwrap();
        let kind = Kind::File { path: "/data/x".into(), is_private: true, is_read_only: false };
        assert_eq!(spec.kind, kind);
        assert_eq!(spec.placing, Placing::Nodes(vec![1]));
        assert_eq!(spec.pinned, Pinned::First(2));
        assert!(spec.is_locked && spec.is_touched && !spec.is_shared_with_child);
        let spec = parse_area("c=anon:4K,bind=3,pin,shared-with-child").unwrap();
        assert_eq!((spec.placing, spec.pinned), (Placing::Bind(3), Pinned::All));
        assert!(spec.is_shared_with_child);
    }

    #[test]
    fn nodes_are_a_list_in_the_midst_of_options() {
        let spec = parse_area("a=shm:8K,nodes=0,2,1,mlock").unwrap();
        assert_eq!(spec.placing, Placing::Nodes(vec![0, 2, 1]));
        assert!(spec.is_locked);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_area_in_the_message() {
        assert!(reason("a=anon:4K,node=0,bind=1").contains("exclude each other"));
        assert!(reason("a=thp:64K").contains("multiple of 2097152"));
        assert!(reason("a=file:4K").contains("needs path="));
        assert!(reason("a=zero:4K,touch").contains("only read"));
        assert!(reason("a=anon:4K,path=/x").contains("\"path\""));
        assert!(reason("a=anon:4K,7").contains("without nodes="));
        assert!(reason("a=stack:65M").contains("at most 67108864"));
        assert!(reason("a=anon:0").contains("multiple of 4096"));
        assert!(reason("pid=anon:4K").starts_with("area \"pid=anon:4K\": "));
    }

    #[test]
    fn sizes_are_powers_of_1024_and_never_wrap() {
        assert_eq!(parse_size("12"), Ok(12));
        assert_eq!(parse_size("3KiB"), Ok(3072));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        for wrong in
            ["", "K", "4k", "4KB", "-1", "1.5M", "99999999999999999999", "18446744073709551615G"]
        {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_read_as_the_kernel_writes_them() {
        assert_eq!(parse_ids("0,2-4"), Ok(vec![0, 2, 3, 4]));
        assert!(parse_ids("").is_err());
        assert!(parse_ids("1024").is_err());
        assert!(parse_ids("0-").is_err());
    }
}
