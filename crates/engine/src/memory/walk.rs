//! The walk over one range: by single page table entries where pages are small, by huge entries
//! where they are not.
//!
//! Reading a word of pagemap for each page costs 26 ns a base page and 3.4 ns for one within a THP;
//! PAGEMAP_SCAN costs 11 ns and 0.13 ns, but knows neither node nor frame. So a walk scans where it
//! meets huge pages or holes, and reads words where it meets small pages, looking up from time to
//! time whether that has changed. What a page's node is, is the business of the [`Reader`].

use std::path::PathBuf;

use linux::proc::pagemap::{Pagemap, ScanFlags};
use linux::sys::{PageRegion, ScanRequest};
use linux::{Errno, ReadError};
use machine::{AddrRange, BASE_PAGE_BYTES};

use super::run_joiner::RunJoiner;
use crate::placement::PageSize;

/// Words of pagemap read at once: 128 KiB of words for 64 MiB of memory.
pub(super) const WORDS: usize = 16384;
/// Base pages of the first scan, and of one after small pages were met: one THP.
const FIRST_SCAN: u64 = 512;
/// Base pages of the largest scan: 1 GiB.
const LARGEST_SCAN: u64 = 1 << 18;
/// Base pages read word by word before the first look for huge pages.
const FIRST_STRETCH: u64 = 8192;

/// Puts pages on nodes, in one of the ways that the caller's rights allow.
pub(super) trait Reader {
    /// Small pages from number `first` on, by the `words` of pagemap.
    fn small(
        &mut self,
        first: u64,
        words: &[u64],
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError>;

    /// The huge page at page number `first`.
    fn huge(
        &mut self,
        first: u64,
        size: PageSize,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError>;

    /// The range is done, or cut: hand over what was held back.
    fn flush(&mut self, joiner: &mut RunJoiner<'_>) -> Result<(), ReadError>;
}

/// Reads words of pagemap; none when the target has gone.
pub(super) fn read_words(
    pagemap: &Pagemap,
    first: u64,
    words: &mut [u64],
) -> Result<usize, ReadError> {
    pagemap.read_entries(first, words).or_else(|error| match Errno::from(&error) {
        Errno::ESRCH => Ok(0),
        errno => Err(ReadError::Io { path: PathBuf::from("/proc/PID/pagemap"), errno }),
    })
}

/// Walks `range`; the joiner's reader may stop it early.
pub(super) struct Walk<'a, 'b> {
    pub(super) pagemap: &'a Pagemap,
    /// Whether the kernel has PAGEMAP_SCAN (6.7).
    pub(super) can_scan: bool,
    pub(super) reader: &'a mut dyn Reader,
    pub(super) joiner: &'a mut RunJoiner<'b>,
}

impl Walk<'_, '_> {
    pub(super) fn range(&mut self, range: AddrRange) -> Result<(), ReadError> {
        match self.joiner.huge_size() {
            size @ PageSize::Hugetlb(_) if !self.can_scan => self.hugetlb_pages(range, size)?,
            _ => self.pages(range)?,
        }
        self.reader.flush(self.joiner)?;
        self.joiner.flush();
        Ok(())
    }

    /// Pages of a pool, which has none of another size: the first word of each says it all.
    fn hugetlb_pages(&mut self, range: AddrRange, size: PageSize) -> Result<(), ReadError> {
        let (first, end) = (range.start() / BASE_PAGE_BYTES, range.end() / BASE_PAGE_BYTES);
        for page in (first..end).step_by(usize::try_from(size.base_pages()).unwrap_or(usize::MAX)) {
            if self.joiner.stopped {
                break;
            }
            self.reader.huge(page, size, self.joiner)?;
        }
        Ok(())
    }

    fn pages(&mut self, range: AddrRange) -> Result<(), ReadError> {
        let (mut page, end) =
            (range.start() / BASE_PAGE_BYTES, range.end().div_ceil(BASE_PAGE_BYTES));
        let mut words = vec![0; WORDS.min(usize::try_from(end - page).unwrap_or(WORDS))];
        let (mut scan_pages, mut stretch, mut small_left) = (FIRST_SCAN, FIRST_STRETCH, 0);
        while page < end && !self.joiner.stopped {
            if self.can_scan && small_left == 0 {
                // Scans end at huge page borders, so that none is cut in two.
                let upto = (page + scan_pages).next_multiple_of(FIRST_SCAN).min(end);
                let (next, saw_small) = self.scan(page, upto, &mut words)?;
                page = next;
                if saw_small {
                    small_left = stretch;
                    stretch = (stretch * 2).min(LARGEST_SCAN);
                    scan_pages = FIRST_SCAN;
                } else {
                    scan_pages = (scan_pages * 2).min(LARGEST_SCAN);
                    stretch = FIRST_STRETCH;
                }
                continue;
            }
            let limit = if self.can_scan { small_left } else { u64::MAX };
            let pages = limit.min(end - page).min(WORDS as u64);
            let (read, empty) = self.words(page, pages, &mut words)?;
            if read == 0 {
                break;
            }
            page += read;
            small_left = if empty { 0 } else { small_left.saturating_sub(read) };
        }
        Ok(())
    }

    /// Reads the words of `pages` pages. Returns how many came, and whether all were empty.
    fn words(
        &mut self,
        page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<(u64, bool), ReadError> {
        let asked = usize::try_from(pages).unwrap_or(usize::MAX).min(words.len());
        let words = &mut words[..asked];
        let read = read_words(self.pagemap, page, words)?;
        let words = &words[..read];
        let empty = words.iter().all(|&word| word == 0);
        if !empty {
            self.reader.small(page, words, self.joiner)?;
            self.joiner.flush();
        }
        Ok((read as u64, empty))
    }

    /// Scans pages `page..upto`. Returns where to go on, and whether small pages were met.
    fn scan(&mut self, page: u64, upto: u64, words: &mut [u64]) -> Result<(u64, bool), ReadError> {
        let request = ScanRequest {
            range: page * BASE_PAGE_BYTES..upto * BASE_PAGE_BYTES,
            all_of: ScanFlags::NONE,
            any_of: ScanFlags::PRESENT | ScanFlags::SWAPPED,
            report: ScanFlags::PRESENT | ScanFlags::SWAPPED | ScanFlags::HUGE,
        };
        let mut regions = [PageRegion::default(); 64];
        let (count, resume) = self.pagemap.scan(&request, &mut regions)?;
        let mut saw_small = false;
        for region in &regions[..count] {
            if self.joiner.stopped {
                break;
            }
            if region.flags.contains(ScanFlags::HUGE | ScanFlags::PRESENT) {
                self.huge_pages(region)?;
            } else {
                saw_small = true;
                self.small_pages(region, words)?;
            }
        }
        let resume = (resume / BASE_PAGE_BYTES).clamp(page, upto);
        Ok((if count < regions.len() { upto } else { resume }, saw_small))
    }

    fn small_pages(&mut self, region: &PageRegion, words: &mut [u64]) -> Result<(), ReadError> {
        let (mut page, end) = (region.start / BASE_PAGE_BYTES, region.end / BASE_PAGE_BYTES);
        while page < end {
            let (read, _) = self.words(page, end - page, words)?;
            if read == 0 {
                break;
            }
            page += read;
        }
        Ok(())
    }

    /// One look for each huge page of the region, also for one that the range cuts.
    fn huge_pages(&mut self, region: &PageRegion) -> Result<(), ReadError> {
        let size = self.joiner.huge_size();
        let pages = size.base_pages();
        let first = region.start / BASE_PAGE_BYTES / pages * pages;
        let end = region.end.div_ceil(BASE_PAGE_BYTES);
        for page in (first..end).step_by(usize::try_from(pages).unwrap_or(usize::MAX)) {
            self.reader.huge(page, size, self.joiner)?;
        }
        Ok(())
    }
}
