//! Pages made by hand, for what captures seldom show: lost events, long times, damage. The captures
//! are in `tests/captures.rs`.

use super::*;
use proptest::prelude::*;

const LAYOUT: PageLayout = PageLayout { commit_offset: 8, data_offset: 16, page_bytes: 4096 };

/// A page of these words, at time 1000, with these flags.
fn page(flags: u64, words: &[u32]) -> Vec<u8> {
    let records: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let commit = u64::try_from(records.len()).unwrap() | flags;
    [&1000_u64.to_ne_bytes()[..], &commit.to_ne_bytes(), &records].concat()
}

const fn header(kind: u32, delta: u32) -> u32 {
    kind | delta << 5
}

fn events(words: &[u32]) -> Vec<Result<(u64, usize), BadPage>> {
    let page = page(0, words);
    let page = Page::parse(&LAYOUT, &page).unwrap();
    page.records().map(|record| record.map(|record| (record.time_ns, record.event.len()))).collect()
}

#[test]
fn times_add_up_over_events_padding_and_long_gaps() {
    let words = [
        header(1, 5),
        7, // an event of one word
        header(29, 2),
        4, // padding of one word
        header(30, 1),
        1, // 2^27 + 1
        header(0, 3),
        12,
        8,
        9, // an event of two words, its size written out
        header(29, 0),
        77, // the end
    ];
    assert_eq!(events(&words), [Ok((1005, 4)), Ok((1000 + 5 + 2 + (1 << 27) + 1 + 3, 8))]);
}

#[test]
fn an_absolute_time_replaces_what_was_added_up() {
    let words = [header(1, 9), 0, header(31, 100), 2, header(1, 1), 0];
    assert_eq!(events(&words), [Ok((1009, 4)), Ok(((2 << 27) + 101, 4))]);
}

#[test]
fn lost_events_are_counted_where_the_kernel_counted_them() {
    let lost = |flags, behind: &[u8]| {
        let mut page = page(flags, &[header(1, 0), 7]);
        page.extend_from_slice(behind);
        Page::parse(&LAYOUT, &page).unwrap().lost
    };
    let count = 41_u64.to_ne_bytes();
    assert_eq!(lost(0, &count), None);
    assert_eq!(lost(EVENTS_LOST, &count), Some(Lost::Uncounted));
    assert_eq!(lost(EVENTS_LOST | LOST_COUNT_STORED, &count), Some(Lost::Events(41)));
    assert_eq!(lost(EVENTS_LOST | LOST_COUNT_STORED, &[]), Some(Lost::Uncounted));
}

#[test]
fn a_record_that_leaves_the_page_ends_it_with_an_error() {
    assert_eq!(
        events(&[header(1, 0), 7, header(9, 0), 7]),
        [Ok((1000, 4)), Err(BadPage { offset: 8 })]
    );
    assert_eq!(events(&[header(0, 0), 0]), [Err(BadPage { offset: 0 })]);
}

#[test]
fn a_page_shorter_than_it_says_is_refused() {
    let page = page(0, &[header(1, 0), 7]);
    assert!(Page::parse(&LAYOUT, &page[..20]).is_err());
    assert!(Page::parse(&LAYOUT, &page[..4]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_go_on_for_ever(
        words in proptest::collection::vec(
            prop_oneof![any::<u32>(), 0_u32..64, (0_u32..32).prop_map(|kind| header(kind, 3))],
            0..64,
        ),
        flags in prop_oneof![Just(0), any::<u64>()],
    ) {
        let page = page(flags, &words);
        if let Ok(page) = Page::parse(&LAYOUT, &page) {
            prop_assert!(page.records().count() <= words.len());
        }
    }
}
