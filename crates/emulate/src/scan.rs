//! Which pages a process has in memory, and what they are: the kernel's word.
//!
//! `PAGEMAP_SCAN` (6.7) gives runs, and knows huge pages and the zero page. Before it there is one
//! word a page, which knows neither: smaps counts the huge pages of each mapping, and of a private page
//! that is not mapped exclusively, and of no file, move_pages(2) is asked: the zero page has no node, one
//! that is still shared with a relative has.

use linux::proc::pagemap::{Pagemap, PagemapEntry, ScanFlags};
use linux::proc::smaps;
use linux::sys::{PageRegion, ScanRequest};
use linux::{PageStatus, ReadError, Root, UNWRITTEN, calls};
use machine::Bytes;
use model::{Found, Machine, MapKind, Mirrored};

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
/// A mapping from this size on is looked into word by word only if smaps says that it has pages.
const LARGE: u64 = 16 << 30;

/// Pages that lie together and are alike; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: ScanFlags,
}

impl Run {
    /// Whether its pages are of the same kind, in whatever units they are mapped.
    pub(crate) const fn is_like(&self, other: &Self) -> bool {
        const KINDS: u64 = ScanFlags::FILE.0 | ScanFlags::PFN_ZERO.0;
        self.flags.0 & KINDS == other.flags.0 & KINDS
    }

    /// What its pages are in `mapping`.
    pub(crate) fn found(&self, mapping: &Mirrored, machine: &Machine) -> Found {
        let (vdso, vvar) = machine.vdso_files();
        let has = |flag| self.flags.contains(flag);
        let is_kernels = match mapping.kind {
            MapKind::Shared(file, _) => file == vvar,
            MapKind::Private(file, _) => file == vdso,
            MapKind::Anon => false,
        };
        match (has(ScanFlags::PFN_ZERO), has(ScanFlags::HUGE), has(ScanFlags::FILE)) {
            _ if is_kernels => Found::File,
            (true, true, _) => Found::HugeZero,
            (true, false, _) => Found::Zero,
            (false, _, true) => Found::File,
            (false, true, false) => Found::Huge,
            (false, false, false) => Found::Anon,
        }
    }
}

/// The pages of `mappings` that are in memory, in order.
///
/// # Errors
///
/// [`ReadError`]: the process has ended, most likely.
pub(crate) fn present(
    pagemap: &Pagemap,
    pid: u32,
    mappings: &[Mirrored],
) -> Result<Vec<Run>, ReadError> {
    let (Some(first), Some(last)) = (mappings.first(), mappings.last()) else {
        return Ok(Vec::new());
    };
    match by_scan(pagemap, first.start, last.end) {
        Err(ReadError::Unsupported { .. }) => by_words(pagemap, pid, mappings),
        result => result,
    }
}

/// All pages that are in memory, in order, whatever is mapped there.
///
/// # Errors
///
/// [`ReadError`]: the kernel cannot tell without the mappings (before 6.7), or the process has ended.
pub(crate) fn present_anywhere(pagemap: &Pagemap) -> Result<Vec<Run>, ReadError> {
    by_scan(pagemap, 0, model::USER_LIMIT)
}

fn by_scan(pagemap: &Pagemap, start: u64, end: u64) -> Result<Vec<Run>, ReadError> {
    const REGIONS: usize = 512;
    let mut regions = [PageRegion::default(); REGIONS];
    let mut runs = Vec::new();
    let mut at = start;
    while at < end {
        let request = ScanRequest {
            range: at..end,
            all_of: ScanFlags::PRESENT,
            any_of: ScanFlags::NONE,
            report: ScanFlags::FILE | ScanFlags::PFN_ZERO | ScanFlags::HUGE,
        };
        let (filled, next) = pagemap.scan(&request, &mut regions)?;
        runs.extend(regions[..filled].iter().map(|region| Run {
            start: region.start,
            end: region.end,
            flags: region.flags,
        }));
        if next <= at {
            break;
        }
        at = next;
    }
    Ok(runs)
}

fn by_words(pagemap: &Pagemap, pid: u32, mappings: &[Mirrored]) -> Result<Vec<Run>, ReadError> {
    let sizes = smaps::read(&Root::default(), pid)?;
    let mut runs: Vec<Run> = Vec::new();
    for mapping in mappings {
        let sizes = sizes.iter().find(|sizes| sizes.mapping.range.start() == mapping.start);
        // The reserve of a database takes terabytes, and has no page.
        let is_large = mapping.end - mapping.start >= LARGE;
        if is_large && sizes.is_some_and(|sizes| !sizes.has_pages()) {
            continue;
        }
        let huge_left = sizes.map_or(Bytes::ZERO, smaps::MappingSizes::anon_huge);
        let mut found = part_zero_pages(pid, words_of(pagemap, mapping)?);
        mark_huge(&mut found, huge_left.get() / HUGE);
        runs.extend(found);
    }
    Ok(runs)
}

fn words_of(pagemap: &Pagemap, mapping: &Mirrored) -> Result<Vec<Run>, ReadError> {
    let mut words = vec![0; 8192];
    let mut runs: Vec<Run> = Vec::new();
    let mut at = mapping.start;
    while at < mapping.end {
        let many =
            usize::try_from((mapping.end - at) / PAGE).unwrap_or(usize::MAX).min(words.len());
        let Ok(read @ 1..) = pagemap.read_entries(at / PAGE, &mut words[..many]) else { break };
        for &word in &words[..read] {
            let entry = PagemapEntry(word);
            if entry.is_present() {
                let flags = if entry.is_file_or_shared() {
                    ScanFlags::FILE
                } else if entry.is_exclusive() {
                    ScanFlags::NONE
                } else {
                    ScanFlags::PFN_ZERO
                };
                add_page(&mut runs, at, flags);
            }
            at += PAGE;
        }
    }
    Ok(runs)
}

fn add_page(runs: &mut Vec<Run>, start: u64, flags: ScanFlags) {
    match runs.last_mut() {
        Some(run) if run.end == start && run.flags == flags => run.end += PAGE,
        _ => runs.push(Run { start, end: start + PAGE, flags }),
    }
}

/// Among pages that may be the zero page by their words, finds those that are not.
fn part_zero_pages(pid: u32, runs: Vec<Run>) -> Vec<Run> {
    let mut parted = Vec::new();
    for run in runs {
        if run.flags != ScanFlags::PFN_ZERO {
            parted.push(run);
            continue;
        }
        let pages: Vec<u64> =
            (0..(run.end - run.start) / PAGE).map(|at| run.start + at * PAGE).collect();
        let mut status = vec![UNWRITTEN; pages.len()];
        // Who may not be asked about, and who has ended, has the zero page: no more is known.
        let _ = calls::query_pages(pid, &pages, &mut status);
        for (page, word) in pages.into_iter().zip(status) {
            let is_zero = PageStatus::from_word(word).node().is_none();
            let flags = if is_zero { ScanFlags::PFN_ZERO } else { ScanFlags::NONE };
            add_page(&mut parted, page, flags);
        }
    }
    parted
}

/// Calls the first whole 2 MiB units huge, as many as there are.
fn mark_huge(runs: &mut Vec<Run>, mut units: u64) {
    let mut marked = Vec::new();
    for run in runs.drain(..) {
        let first = run.start.next_multiple_of(HUGE);
        let fit = run.end.saturating_sub(first) / HUGE;
        let taken = if run.flags == ScanFlags::NONE { fit.min(units) } else { 0 };
        units -= taken;
        let end = first + taken * HUGE;
        if taken == 0 {
            marked.push(run);
            continue;
        }
        let pieces = [
            Run { end: first, ..run },
            Run { start: first, end, flags: ScanFlags::HUGE },
            Run { start: end, ..run },
        ];
        marked.extend(pieces.into_iter().filter(|piece| piece.start < piece.end));
    }
    *runs = marked;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_units_are_huge_as_smaps_counts() {
        let mut runs = vec![Run { start: PAGE, end: 3 * HUGE + PAGE, flags: ScanFlags::NONE }];
        mark_huge(&mut runs, 1);
        let huge: Vec<_> = runs.iter().map(|run| (run.start, run.flags)).collect();
        let none = ScanFlags::NONE;
        assert_eq!(huge, [(PAGE, none), (HUGE, ScanFlags::HUGE), (2 * HUGE, none)]);
    }

    #[test]
    fn our_own_memory_is_found_alike_by_both_ways() {
        let memory = vec![1u8; 64 * 4096];
        let start = (memory.as_ptr().addr() as u64).next_multiple_of(PAGE);
        let end = start + 32 * PAGE;
        let protection = model::Protection::READ_WRITE;
        let mapping = Mirrored { start, end, kind: MapKind::Anon, protection };
        let pagemap = Pagemap::open(&Root::default(), std::process::id()).unwrap();
        let words = words_of(&pagemap, &mapping).unwrap();
        assert_eq!(words, [Run { start, end, flags: ScanFlags::NONE }]);
        if let Ok(runs) = by_scan(&pagemap, start, end) {
            assert_eq!(runs.first().map(|run| run.start), Some(start));
            assert_eq!(runs.last().map(|run| run.end), Some(end));
        }
    }
}
