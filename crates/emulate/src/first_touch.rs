//! Pages that were there when the second thread of a process began: the first thread has touched them.
//!
//! They are noted then, and placed when somebody asks or when the first thread changes what places
//! them. Of most programs nobody asks, and to note them costs a third of placing them.

use crate::scan::Run;

/// In order, and apart from each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstTouch(Vec<Run>);

impl FirstTouch {
    pub(crate) const fn new(runs: Vec<Run>) -> Self {
        Self(runs)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Members that end behind `start`, and begin before `end`.
    fn within(&self, start: u64, end: u64) -> std::ops::Range<usize> {
        let first = self.0.partition_point(|run| run.end <= start);
        let many = self.0[first..].iter().take_while(|run| run.start < end).count();
        first..first + many
    }

    pub(crate) fn overlaps(&self, start: u64, end: u64) -> bool {
        !self.within(start, end).is_empty()
    }

    /// The pages in `[start, end)` are dropped: whoever touches them next is not known.
    pub(crate) fn forget(&mut self, start: u64, end: u64) {
        let within = self.within(start, end);
        let Some(&[first, ..]) = self.0.get(within.clone()) else { return };
        let last = self.0[within.end - 1];
        let left = [
            Run { end: start.min(first.end), ..first },
            Run { start: end.max(last.start), ..last },
        ];
        self.0.splice(within, left.into_iter().filter(|run| run.start < run.end));
    }

    /// Whether the page at `start` in `run` is one of these still, and up to which address, at most
    /// `end`, all are what it is. A page that is of another kind by now was written, by anybody.
    pub(crate) fn at(&self, run: &Run, start: u64, end: u64) -> (bool, u64) {
        match self.0.get(self.within(start, end).start) {
            Some(noted) if noted.start <= start => (noted.is_like(run), end.min(noted.end)),
            Some(noted) => (false, end.min(noted.start)),
            None => (false, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use linux::proc::pagemap::ScanFlags;

    use super::*;

    fn run(start: u64, end: u64, flags: ScanFlags) -> Run {
        Run { start, end, flags }
    }

    fn noted(ranges: &[(u64, u64)]) -> FirstTouch {
        FirstTouch::new(
            ranges.iter().map(|&(start, end)| run(start, end, ScanFlags::NONE)).collect(),
        )
    }

    #[test]
    fn what_is_dropped_is_cut_out_wherever_it_begins_and_ends() {
        let all = [(10, 20), (30, 40), (50, 60)];
        let left = |start, end| {
            let mut noted = noted(&all);
            noted.forget(start, end);
            noted
        };
        assert_eq!(left(20, 30), noted(&all));
        assert_eq!(left(0, 10), noted(&all));
        assert_eq!(left(60, 99), noted(&all));
        assert_eq!(left(13, 15), noted(&[(10, 13), (15, 20), (30, 40), (50, 60)]));
        assert_eq!(left(15, 55), noted(&[(10, 15), (55, 60)]));
        assert_eq!(left(10, 20), noted(&[(30, 40), (50, 60)]));
        assert!(left(0, 99).is_empty());
    }

    #[test]
    fn a_page_is_found_as_long_as_it_is_of_the_same_kind() {
        let noted = noted(&[(10, 20), (30, 40)]);
        let anon = run(0, 99, ScanFlags::NONE);
        assert_eq!(noted.at(&anon, 0, 99), (false, 10));
        assert_eq!(noted.at(&anon, 12, 99), (true, 20));
        assert_eq!(noted.at(&anon, 12, 15), (true, 15));
        assert_eq!(noted.at(&anon, 20, 25), (false, 25));
        assert_eq!(noted.at(&anon, 40, 99), (false, 99));
        let huge = run(0, 99, ScanFlags::HUGE);
        assert_eq!(noted.at(&huge, 12, 99), (true, 20));
        let copied_from_a_file = run(0, 99, ScanFlags::FILE);
        assert_eq!(noted.at(&copied_from_a_file, 12, 99), (false, 20));
        assert!(noted.overlaps(19, 30) && !noted.overlaps(20, 30));
    }
}
