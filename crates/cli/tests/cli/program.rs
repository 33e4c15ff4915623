//! How the program itself is made up.

use std::fs;

const PT_LOAD: u64 = 1;
const PF_X: u64 = 1;
const PAGE_BYTES: u64 = 4096;

/// Of each segment that is mapped: whether it is code, and the pages of the file that it takes.
fn segments(elf: &[u8]) -> Vec<(bool, std::ops::Range<u64>)> {
    let number = |at: u64, bytes: usize| {
        let at = usize::try_from(at).unwrap();
        elf[at..at + bytes].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|header| headers + header * size);
    let loaded = headers.filter(|&header| number(header, 4) == PT_LOAD);
    let segment = |header| {
        let (offset, bytes) = (number(header + 8, 8), number(header + 32, 8));
        let pages = offset / PAGE_BYTES..(offset + bytes).div_ceil(PAGE_BYTES);
        (number(header + 4, 4) & PF_X != 0, pages)
    };
    loaded.map(segment).collect()
}

#[test]
fn no_page_of_the_program_is_code_in_one_segment_and_data_in_another() {
    let program = fs::read(env!("CARGO_BIN_EXE_pagetide")).unwrap();
    let segments = segments(&program);
    let (code, data): (Vec<_>, Vec<_>) = segments.iter().partition(|(is_code, _)| *is_code);
    assert!(!code.is_empty() && !data.is_empty(), "{segments:?}");
    for (_, code) in &code {
        for (_, data) in &data {
            assert!(code.end <= data.start || data.end <= code.start, "{segments:?}");
        }
    }
}
