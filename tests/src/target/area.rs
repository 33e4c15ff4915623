//! One area of memory: made to its spec, filled, checked, pinned, let go.
//!
//! Mempolicies of the thread last only while pages are touched: what stays on a mapping is what
//! `bind=` asked for, and nothing else.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter};
use std::sync::Arc;

use crate::error::{Error, Result, Tried};
use crate::pattern::Pattern;
use crate::spec::{AreaSpec, Kind, PAGE_BYTES, Pinned, Placing};
use crate::sys::{self, Backing, Mapping};
use crate::touch::Toucher;

/// Pages that one pipe holds. An unprivileged pipe may have 1 MiB (/proc/sys/fs/pipe-max-size).
const PIPE_PAGES: usize = 256;

/// Memory with known contents.
pub(crate) struct Area {
    // Before `mapping`, so that the thread has ended when the memory goes.
    toucher: Option<Toucher>,
    pub(crate) spec: AreaSpec,
    pub(crate) mapping: Arc<Mapping>,
    pattern: Pattern,
    pipes: Vec<(PipeReader, PipeWriter)>,
}

impl Area {
    /// Maps, places, fills, locks and pins; starts no thread.
    pub(crate) fn make(spec: AreaSpec) -> Result<Self> {
        let pattern = match spec.kind {
            Kind::Zero => Pattern::Zero,
            _ => Pattern::of_area(&spec.name, spec.is_touched),
        };
        let mapping = map(&spec, pattern)?;
        let mut area =
            Self { toucher: None, mapping: Arc::new(mapping), pattern, pipes: Vec::new(), spec };
        if area.spec.kind.is_written() {
            fill(&area.spec, &area.mapping, pattern)?;
        }
        // Reading is what brings the pages of the zero page and of read-only files in.
        if let Some(page) = area.first_bad_page() {
            return Err(Error::Unmet(format!("area {}: page {page} did not hold", area.spec.name)));
        }
        if matches!(area.spec.kind, Kind::Thp) {
            area.refuse_small_pages()?;
        }
        if area.spec.is_locked {
            let result = area.mapping.lock(0, area.spec.bytes);
            result.tried(|| format!("cannot lock area {} in memory", area.spec.name))?;
        }
        area.pin()?;
        Ok(area)
    }

    /// Starts the touch thread, if the area is to have one. After the last fork.
    pub(crate) fn start_touching(&mut self) -> Result<()> {
        if self.spec.is_touched {
            let toucher = Toucher::start(&self.spec.name, Arc::clone(&self.mapping));
            let name = &self.spec.name;
            self.toucher = Some(toucher.tried(|| format!("no thread to touch area {name}"))?);
        }
        Ok(())
    }

    /// The first base page that differs from what was put there; also where the touch thread lost
    /// a write.
    pub(crate) fn first_bad_page(&self) -> Option<usize> {
        let lost = self.toucher.as_ref().and_then(Toucher::lost_page);
        let is_bad = |page: &usize| !self.pattern.holds(*page, self.mapping.page(*page));
        lost.or_else(|| (0..self.mapping.pages()).find(is_bad))
    }

    /// The longest gap between two touches since the last call.
    pub(crate) fn take_stall_ns(&self) -> Option<u64> {
        self.toucher.as_ref().map(Toucher::take_stall_ns)
    }

    /// Drops the extra references.
    pub(crate) fn unpin(&mut self) {
        self.pipes.clear();
    }

    /// Unmaps the last `bytes`: also in the middle of a huge page, of which the rest stays.
    pub(crate) fn cut(&mut self, bytes: usize) -> Result<()> {
        let name = &self.spec.name;
        let is_own = !matches!(self.spec.kind, Kind::Heap | Kind::Stack);
        let fits = bytes > 0 && bytes < self.spec.bytes && bytes.is_multiple_of(PAGE_BYTES);
        let mapping = Arc::get_mut(&mut self.mapping).filter(|_| is_own && fits);
        let mapping = mapping.ok_or_else(|| {
            Error::Usage(format!(
                "cannot cut {bytes} bytes off area {name}: whole pages, less than \
                 it has, of memory that is no heap or stack and is not touched"
            ))
        })?;
        mapping.cut(bytes).tried(|| format!("cannot unmap the end of area {name}"))?;
        self.spec.bytes -= bytes;
        Ok(())
    }

    /// One base page of each page is enough to pin all of it.
    fn pin(&mut self) -> Result<()> {
        let step = self.spec.kind.page_bytes() / PAGE_BYTES;
        let count = match self.spec.pinned {
            Pinned::Nothing => 0,
            Pinned::All => usize::MAX,
            Pinned::First(count) => count,
        };
        let pages: Vec<usize> = (0..self.mapping.pages()).step_by(step).take(count).collect();
        for chunk in pages.chunks(PIPE_PAGES) {
            let pin = || {
                let (reader, writer) = std::io::pipe()?;
                sys::set_pipe_bytes(&writer, PIPE_PAGES * PAGE_BYTES)?;
                let taken = self.mapping.splice_into(chunk, &writer)?;
                Ok((taken, (reader, writer)))
            };
            let (taken, pipe) = pin().tried(|| format!("cannot pin area {}", self.spec.name))?;
            if taken < chunk.len() {
                let name = &self.spec.name;
                return Err(Error::Unmet(format!("area {name}: a pipe pinned {taken} pages only")));
            }
            self.pipes.push(pipe);
        }
        Ok(())
    }

    /// A `thp` area that fell back to base pages would make a test of THPs prove nothing.
    fn refuse_small_pages(&self) -> Result<()> {
        let path = "/proc/self/smaps";
        let smaps = fs::read_to_string(path).tried(|| format!("cannot read {path}"))?;
        let huge_bytes = anon_huge_bytes(&smaps, self.mapping.start());
        if huge_bytes == self.spec.bytes {
            return Ok(());
        }
        let AreaSpec { name, bytes, .. } = &self.spec;
        Err(Error::Unmet(format!(
            "area {name}: {huge_bytes} of {bytes} bytes are THPs: free memory is in small pieces, or \
             /sys/kernel/mm/transparent_hugepage/enabled is never"
        )))
    }
}

/// `AnonHugePages` of the mapping that starts at `start`, in bytes.
fn anon_huge_bytes(smaps: &str, start: usize) -> usize {
    let head = format!("{start:x}-");
    let lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
    let value = lines.take(40).find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kilobytes = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn map(spec: &AreaSpec, pattern: Pattern) -> Result<Mapping> {
    let AreaSpec { name, kind, bytes, .. } = spec;
    let tried = || format!("cannot map area {name}");
    let mapping = match kind {
        Kind::Anon | Kind::Thp | Kind::Zero => {
            new_mapping(spec, &Backing::Anon { is_shared: false })?
        }
        Kind::Shm => new_mapping(spec, &Backing::Anon { is_shared: true })?,
        Kind::Hugetlb { page_bytes } => {
            new_mapping(spec, &Backing::Hugetlb { page_bytes: *page_bytes })?
        }
        Kind::Memfd => {
            let file = CString::new(name.as_str()).map_err(std::io::Error::from);
            let file = file.and_then(|name| sys::memfd(&name)).tried(tried)?;
            file.set_len(*bytes as u64).tried(tried)?;
            new_mapping(spec, &Backing::File { file: &file, is_shared: true, is_writable: true })?
        }
        Kind::File { path, is_private, is_read_only } => {
            let file = create(path, *bytes)?;
            if *is_read_only {
                let all = Backing::File { file: &file, is_shared: true, is_writable: true };
                fill(spec, &new_mapping(spec, &all)?, pattern)?;
            }
            let (is_shared, is_writable) = (!is_private, !is_read_only);
            new_mapping(spec, &Backing::File { file: &file, is_shared, is_writable })?
        }
        Kind::Heap => Mapping::on_heap(*bytes).tried(tried)?,
        Kind::Stack => Mapping::on_stack(*bytes).tried(tried)?,
    };
    match kind {
        Kind::Thp => mapping.advise(libc::MADV_HUGEPAGE).tried(tried)?,
        // Advice would split the VMA, and the lower part would lose the name [stack].
        Kind::Stack | Kind::Hugetlb { .. } => {}
        // Fails only where there are no THPs, and then there is nothing to forbid.
        _ => drop(mapping.advise(libc::MADV_NOHUGEPAGE)),
    }
    if let Placing::Bind(node) = spec.placing {
        mapping.bind(node).tried(|| format!("cannot bind area {name} to node {node}"))?;
    }
    Ok(mapping)
}

fn new_mapping(spec: &AreaSpec, backing: &Backing<'_>) -> Result<Mapping> {
    let tried = || format!("cannot map {} bytes for area {}", spec.bytes, spec.name);
    let mapping = Mapping::new(backing, spec.bytes, spec.kind.page_bytes()).tried(tried)?;
    if matches!(backing, Backing::File { .. }) {
        // Read-ahead would place neighbours of the page that is touched.
        mapping.advise(libc::MADV_RANDOM).tried(tried)?;
    }
    Ok(mapping)
}

fn create(path: &std::path::Path, bytes: usize) -> Result<File> {
    let mut options = File::options();
    // Truncated, so that no page of it is in the page cache already, on some other node.
    let file = options.read(true).write(true).create(true).truncate(true).open(path);
    let file = file.tried(|| format!("cannot create {}", path.display()))?;
    file.set_len(bytes as u64).tried(|| format!("cannot grow {}", path.display()))?;
    Ok(file)
}

/// Writes every page, on the node that the spec says.
fn fill(spec: &AreaSpec, mapping: &Mapping, pattern: Pattern) -> Result<()> {
    let Placing::Nodes(nodes) = &spec.placing else {
        return fill_every(1, 0, spec, mapping, pattern);
    };
    let policy = |node: Option<u32>| {
        sys::set_thread_policy(node).tried(|| match node {
            Some(node) => format!("cannot allocate area {} on node {node}", spec.name),
            None => "cannot give the thread its default mempolicy back".to_owned(),
        })
    };
    for (turn, node) in nodes.iter().enumerate() {
        policy(Some(*node))?;
        let filled = fill_every(nodes.len(), turn, spec, mapping, pattern);
        policy(None)?;
        filled?;
    }
    Ok(())
}

/// Writes every `stride`th page from page `first` on, in pages of the area's kind.
fn fill_every(
    stride: usize,
    first: usize,
    spec: &AreaSpec,
    mapping: &Mapping,
    pattern: Pattern,
) -> Result<()> {
    let page_bytes = spec.kind.page_bytes();
    for start in (first * page_bytes..spec.bytes).step_by(stride * page_bytes) {
        if matches!(spec.kind, Kind::Hugetlb { .. }) {
            mapping.populate(start, page_bytes).tried(|| {
                format!("area {}: no free hugetlb page for offset {start:#x}", spec.name)
            })?;
        }
        for page in start / PAGE_BYTES..(start + page_bytes) / PAGE_BYTES {
            pattern.fill(page, mapping.page(page));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_area;
    use std::sync::atomic::Ordering;

    #[test]
    fn an_area_holds_until_one_word_of_it_changes() {
        let area = Area::make(parse_area("a=anon:64K").unwrap()).unwrap();
        assert_eq!(area.first_bad_page(), None);
        area.mapping.page(9)[200].fetch_add(1, Ordering::Relaxed);
        assert_eq!(area.first_bad_page(), Some(9));
    }

    #[test]
    fn two_swapped_pages_are_noticed() {
        let area = Area::make(parse_area("a=shm:16K").unwrap()).unwrap();
        for (one, two) in area.mapping.page(1).iter().zip(area.mapping.page(3)) {
            let word = one.swap(two.load(Ordering::Relaxed), Ordering::Relaxed);
            two.store(word, Ordering::Relaxed);
        }
        assert_eq!(area.first_bad_page(), Some(1));
    }

    #[test]
    fn huge_bytes_are_those_of_the_mapping_that_starts_there() {
        let smaps = "7f00-7f10 rw-p 0 0:0 0\nAnonHugePages:   2048 kB\n\
                     8f00-8f10 rw-p 0 0:0 0\nRss: 4 kB\nAnonHugePages:   4096 kB\n";
        assert_eq!(anon_huge_bytes(smaps, 0x8f00), 4 << 20);
        assert_eq!(anon_huge_bytes(smaps, 0x9f00), 0);
    }
}
