//! Puts pages on nodes by asking the kernel for each folio (move_pages(2) without nodes).
//!
//! Six times dearer than frame numbers, but open to every owner of a process. Pages are collected,
//! so that one call asks for many.

use linux::calls::{self, MoveError};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::{Errno, PageStatus, ReadError};
use machine::BASE_PAGE_BYTES;

use super::run_joiner::{Look, RunJoiner};
use super::walk::{Reader, read_words};
use crate::placement::PageSize;

/// Pages asked for in one call. The kernel takes 16 at a time anyway.
const PAGES_A_CALL: usize = 4096;

/// A page that waits to be asked for.
struct Question {
    page: u64,
    size: PageSize,
    entry: PagemapEntry,
}

pub(super) struct ByQuery<'a> {
    pid: u32,
    /// `None` without the right to read it: then a page is known by the kernel's answer alone.
    pagemap: Option<&'a Pagemap>,
    questions: Vec<Question>,
}

impl<'a> ByQuery<'a> {
    pub(super) fn new(pid: u32, pagemap: Option<&'a Pagemap>) -> Self {
        Self { pid, pagemap, questions: Vec::new() }
    }

    /// Puts a question off until the next flush.
    pub(super) fn ask(
        &mut self,
        page: u64,
        size: PageSize,
        entry: PagemapEntry,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        self.questions.push(Question { page, size, entry });
        if self.questions.len() >= PAGES_A_CALL { self.flush(joiner) } else { Ok(()) }
    }

    /// Asks about every page of a range, present or not: for those who may not read pagemap.
    pub(super) fn every_page(
        &mut self,
        first: u64,
        pages: u64,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let size = match joiner.huge_size() {
            size @ PageSize::Hugetlb(_) => size,
            _ => PageSize::Base,
        };
        let step = usize::try_from(size.base_pages()).unwrap_or(usize::MAX);
        // Nobody says whether such a page is shared or the process's own copy: the mapping decides.
        let entry = PagemapEntry(1 << 63 | 1 << 61 | 1 << 56);
        for page in (first..first + pages).step_by(step) {
            if joiner.stopped {
                break;
            }
            self.ask(page, size, entry, joiner)?;
        }
        self.flush(joiner)
    }
}

impl Reader for ByQuery<'_> {
    fn small(
        &mut self,
        first: u64,
        words: &[u64],
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        for (page, &word) in (first..).zip(words) {
            let entry = PagemapEntry(word);
            if entry.is_present() {
                self.ask(page, PageSize::Base, entry, joiner)?;
            } else if entry.is_swapped() {
                joiner.unplaced.swapped_pages += 1;
            }
        }
        self.flush(joiner)
    }

    fn huge(
        &mut self,
        first: u64,
        size: PageSize,
        joiner: &mut RunJoiner<'_>,
    ) -> Result<(), ReadError> {
        let mut word = [0];
        if let Some(pagemap) = self.pagemap
            && read_words(pagemap, first, &mut word)? == 1
        {
            self.ask(first, size, PagemapEntry(word[0]), joiner)?;
        }
        Ok(())
    }

    fn flush(&mut self, joiner: &mut RunJoiner<'_>) -> Result<(), ReadError> {
        if self.questions.is_empty() {
            return Ok(());
        }
        let addresses: Vec<u64> =
            self.questions.iter().map(|question| question.page * BASE_PAGE_BYTES).collect();
        let mut status = vec![linux::UNWRITTEN; addresses.len()];
        match calls::query_pages(self.pid, &addresses, &mut status) {
            Ok(()) | Err(MoveError::TargetGone { .. } | MoveError::NoAddressSpace { .. }) => {}
            Err(error) => return Err(query_error(error)),
        }
        for (question, word) in self.questions.drain(..).zip(status) {
            let Question { page, size, entry } = question;
            match PageStatus::from_word(word) {
                PageStatus::On(node) => {
                    let file_or_shared = entry.is_file_or_shared();
                    let exclusive = entry.is_exclusive();
                    joiner.add(
                        page,
                        size.base_pages(),
                        Look { node, size, file_or_shared, exclusive },
                    );
                }
                // The zero page: present, and yet nothing that could be moved.
                PageStatus::NotMapped if self.pagemap.is_some() => {
                    joiner.unplaced.zero_pages += size.base_pages();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn query_error(error: MoveError) -> ReadError {
    let path = "the nodes of its pages (move_pages)".into();
    match error {
        MoveError::NotPermitted { .. } => ReadError::NotPermitted {
            path,
            errno: Errno::EPERM,
            needs: "the process's owner, or CAP_SYS_PTRACE",
        },
        MoveError::Call { errno, .. } => ReadError::Io { path, errno },
        _ => ReadError::Io { path, errno: Errno::EINVAL },
    }
}
