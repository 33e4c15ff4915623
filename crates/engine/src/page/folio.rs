//! The frame of a page: its flags, its mapcount, and the folio that it belongs to.
//!
//! The folio is found by its head and tails in kpageflags. A frame may be freed and used again between
//! two reads: then what is read is true of the frame, and no longer of the page.

use std::ops::Range;

use linux::proc::kpagecount::KPageCount;
use linux::proc::kpageflags::{FrameFlags, KPageFlags};
use linux::proc::pagemap::PagemapEntry;
use linux::{ReadError, Root};
use serde::{Serialize, Serializer};

/// The largest folio of x86-64, a hugetlb page of 1 GiB, in base pages.
const LARGEST: u64 = 1 << 18;
/// Frames that are read at once; all folios but the largest fit.
const CHUNK: usize = 1024;

/// What the kernel keeps of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Its number.
    pub number: u64,
    /// Flags of the frame and of its folio's head.
    #[serde(serialize_with = "as_words")]
    pub flags: FrameFlags,
    /// How often it is mapped; since Linux 6.16 it may be the average over a large folio.
    pub mapcount: Option<u64>,
    /// Its folio.
    pub folio: Folio,
}

/// A folio: what the kernel migrates as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Folio {
    /// Base pages: 1 for a small one.
    pub pages: u64,
    /// Which of them the page is, from 0.
    pub index: u64,
}

fn as_words<S: Serializer>(flags: &FrameFlags, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(flags.words())
}

impl Frame {
    /// Reads what there is about the frame of a page; `None` when its number is hidden, or it has
    /// none.
    ///
    /// # Errors
    ///
    /// When kpageflags may not be read.
    pub(super) fn read(root: &Root, entry: PagemapEntry) -> Result<Option<Self>, ReadError> {
        let Some(number) = entry.frame() else { return Ok(None) };
        let file = KPageFlags::open(root)?;
        let flags_of = |frames: Range<u64>| read_flags(&file, frames);
        let Some(&own) = flags_of(number..number + 1).first() else { return Ok(None) };
        let folio = extent(number, &flags_of);
        let head = flags_of(number - folio.index..number - folio.index + 1);
        // Of a tail, what the folio is is written at its head.
        let of_head = head.first().copied().unwrap_or_default() & !FrameFlags::COMPOUND_HEAD.0;
        let flags = FrameFlags(own | of_head);
        let mut count = [0];
        let mapcount =
            KPageCount::open(root).ok().and_then(|file| file.read(number, &mut count).ok());
        let mapcount = mapcount.filter(|&read| read == 1).map(|_| count[0]);
        Ok(Some(Self { number, flags, mapcount, folio }))
    }
}

impl Frame {
    /// Forgets that KSM merged the page, where it cannot have: a large folio, or a mapping that nobody
    /// gave to KSM. Linux 6.12 sets the flag for every anonymous page.
    pub(super) fn distrust_ksm(&mut self, is_mergeable: bool) {
        if !is_mergeable || self.folio.pages > 1 {
            self.flags = FrameFlags(self.flags.0 & !FrameFlags::KSM.0);
        }
    }
}

fn read_flags(file: &KPageFlags, frames: Range<u64>) -> Vec<u64> {
    let length = usize::try_from(frames.end - frames.start).unwrap_or(0);
    let mut words = vec![0; length];
    let read = file.read(frames.start, &mut words).unwrap_or(0);
    words.truncate(read);
    words
}

/// The folio around a frame: back to its head, and on to its last tail.
fn extent(frame: u64, flags_of: &dyn Fn(Range<u64>) -> Vec<u64>) -> Folio {
    let is = |word: u64, flag: FrameFlags| FrameFlags(word).contains(flag);
    let first_word = |at: u64| flags_of(at..at + 1).first().copied().unwrap_or_default();
    let mut head = frame;
    while is(first_word(head), FrameFlags::COMPOUND_TAIL) && head > 0 && frame - head < LARGEST {
        let from = head.saturating_sub(CHUNK as u64);
        let words = flags_of(from..head);
        // Back over tails to what is none; that is the head, if the words came at all.
        match words.iter().rposition(|&word| !is(word, FrameFlags::COMPOUND_TAIL)) {
            Some(at) => head = from + at as u64,
            None if words.is_empty() => break,
            None => head = from,
        }
    }
    let mut pages = 1;
    if is(first_word(head), FrameFlags::COMPOUND_HEAD) {
        while pages < LARGEST {
            let words = flags_of(head + pages..head + pages + CHUNK as u64);
            let tails =
                words.iter().take_while(|&&word| is(word, FrameFlags::COMPOUND_TAIL)).count();
            pages += tails as u64;
            if tails < CHUNK {
                break;
            }
        }
    }
    Folio { pages: pages.max(frame - head + 1), index: frame - head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: u64 = 1 << 15;
    const TAIL: u64 = 1 << 16;

    /// Frames of folios of these sizes, one after the other.
    fn frames(folios: &[u64]) -> Vec<u64> {
        let folio = |&pages: &u64| {
            (0..pages).map(move |page| match page {
                _ if pages == 1 => 0,
                0 => HEAD,
                _ => TAIL,
            })
        };
        folios.iter().flat_map(folio).collect()
    }

    fn extent_in(words: &[u64], frame: u64) -> Folio {
        extent(frame, &|range| {
            let end = words.len().min(usize::try_from(range.end).unwrap());
            words.get(usize::try_from(range.start).unwrap()..end).unwrap_or(&[]).to_vec()
        })
    }

    #[test]
    fn a_folio_reaches_from_its_head_to_its_last_tail() {
        let words = frames(&[1, 4, 512, 1]);
        assert_eq!(extent_in(&words, 0), Folio { pages: 1, index: 0 });
        assert_eq!(extent_in(&words, 1), Folio { pages: 4, index: 0 });
        assert_eq!(extent_in(&words, 4), Folio { pages: 4, index: 3 });
        assert_eq!(extent_in(&words, 300), Folio { pages: 512, index: 295 });
        assert_eq!(extent_in(&words, 517), Folio { pages: 1, index: 0 });
    }

    #[test]
    fn a_folio_larger_than_a_read_is_found_whole() {
        let words = frames(&[3, 5000, 2]);
        assert_eq!(extent_in(&words, 4999), Folio { pages: 5000, index: 4996 });
    }

    #[test]
    fn the_ksm_flag_is_believed_only_where_ksm_may_merge() {
        let flags_of = |pages, is_mergeable| {
            let flags = FrameFlags(FrameFlags::KSM.0 | FrameFlags::ANON.0);
            let folio = Folio { pages, index: 0 };
            let mut frame = Frame { number: 7, flags, mapcount: None, folio };
            frame.distrust_ksm(is_mergeable);
            frame.flags.contains(FrameFlags::KSM)
        };
        assert_eq!(
            [flags_of(1, true), flags_of(1, false), flags_of(512, true)],
            [true, false, false]
        );
    }

    #[test]
    fn frames_that_cannot_be_read_are_a_folio_of_one() {
        assert_eq!(extent_in(&[], 7), Folio { pages: 1, index: 0 });
    }

    proptest! {
        #[test]
        fn every_frame_finds_its_folio(orders in prop::collection::vec(0_u32..12, 1..6), at: usize) {
            let sizes: Vec<u64> = orders.iter().map(|order| 1 << order).collect();
            let words = frames(&sizes);
            let frame = (at % words.len()) as u64;
            let found = extent_in(&words, frame);
            let mut start = 0;
            let size = sizes.iter().find(|&&size| {
                start += size;
                frame < start
            });
            prop_assert_eq!(Some(&found.pages), size);
            prop_assert_eq!(frame - found.index + found.pages, start);
        }

        #[test]
        fn no_flags_make_it_panic(words in prop::collection::vec(0_u64..4, 0..50), frame in 0_u64..60) {
            let words: Vec<u64> = words.iter().map(|word| word << 15).collect();
            let folio = extent_in(&words, frame);
            prop_assert!(folio.index < folio.pages);
        }
    }
}
