//! Portions: one call of move_pages(2) that holds few pages at a time.
//!
//! The kernel gathers the pages of a call until it meets one that it cannot move, moves what it has, and
//! goes on (kernel, mm/migrate.c, `do_pages_move`; 6.1, 6.12, 7.3). So between two portions stands an address
//! that no process can have mapped. Used by the mover where the user limits the stall.

use linux::UNWRITTEN;

/// The kernel's half of the address space: looked up, not found, and answered with `EFAULT`.
const BREAK: u64 = 0xffff_ffff_ffff_f000;

/// The addresses of one call.
#[derive(Debug, Default)]
pub(crate) struct Portions {
    addresses: Vec<u64>,
    status: Vec<i32>,
    /// Pages of a portion; at least one.
    size: usize,
}

impl Portions {
    /// Takes the pages of a call, `size` of them at a time.
    pub(crate) fn fill(&mut self, pages: impl Iterator<Item = u64>, size: usize) {
        self.size = size.max(1);
        self.addresses.clear();
        for (number, page) in pages.enumerate() {
            if number > 0 && number % self.size == 0 {
                self.addresses.push(BREAK);
            }
            self.addresses.push(page);
        }
        self.status.clear();
        self.status.resize(self.addresses.len(), UNWRITTEN);
    }

    /// What to give to the kernel: the addresses, and room for their status words.
    pub(crate) fn for_call(&mut self) -> (&[u64], &mut [i32]) {
        (&self.addresses, &mut self.status)
    }

    /// The status words of the pages that had their turn, in their order. A portion with a page that fails
    /// is the last one that the kernel takes; it leaves words of that portion open.
    pub(crate) fn status(&mut self) -> &[i32] {
        let mut number = 0;
        let period = self.size.saturating_add(1);
        self.status.retain(|_| {
            number += 1;
            number % period != 0
        });
        let failed = self.status.chunks(self.size).position(|portion| portion.contains(&UNWRITTEN));
        if let Some(failed) = failed {
            self.status.truncate((failed + 1).saturating_mul(self.size));
        }
        &self.status
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_page_keeps_its_word_and_no_portion_is_larger_than_asked_for(
            pages in 0u64..300, size in 1usize..100
        ) {
            let mut portions = Portions::default();
            portions.fill((0..pages).map(|page| page << 12), size);
            let (addresses, status) = portions.for_call();
            for (word, address) in status.iter_mut().zip(addresses) {
                *word = if *address == BREAK { -14 } else { i32::try_from(address >> 12).unwrap() };
            }
            prop_assert!(addresses.split(|&address| address == BREAK).all(|part| part.len() <= size));
            prop_assert!(addresses.last() != Some(&BREAK));
            let words: Vec<u64> = portions.status().iter().map(|&word| word.try_into().unwrap()).collect();
            prop_assert_eq!(words, (0..pages).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_comes_after_a_portion_that_failed_had_no_turn() {
        let mut portions = Portions::default();
        portions.fill((0..7).map(|page| page << 12), 2);
        let (_, status) = portions.for_call();
        // Pages 0 and 1, a break, page 2 and one that failed, a break.
        status[..6].copy_from_slice(&[1, 1, -14, UNWRITTEN, UNWRITTEN, -14]);
        assert_eq!(portions.status(), [1, 1, UNWRITTEN, UNWRITTEN]);
    }

    #[test]
    fn a_call_of_one_portion_has_no_break() {
        let mut portions = Portions::default();
        portions.fill([4096, 8192].into_iter(), usize::MAX);
        assert_eq!(portions.for_call().0, [4096, 8192]);
        assert_eq!(portions.status().len(), 2);
    }
}
