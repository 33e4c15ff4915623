//! The journal: what a move changed, written down while it happens, so that it can be undone.
//!
//! One file a move, one JSON document a line: a head that names the target and the mappings, then
//! the runs that moved. It is flushed after each chunk, so that a killed pagetide leaves a true one.
//! A sweep moves in one call what can be told only after it: what it may move is written down before.
//! Undo makes a plan of it; pages that have gone elsewhere since, and mappings that others have taken
//! the place of, are not in that plan's way: the mover leaves them alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use machine::{AddrRange, NodeId, NodeSet};
use serde::{Deserialize, Serialize};

use crate::feed::{Lane, Piece};
use crate::plan::{Plan, PlannedPass, PlannedRange, SCHEMA};
use crate::route::Destination;
use crate::target::TargetId;

/// The first line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    schema: u32,
    target: TargetId,
    /// The planned ranges: they tell by name which mapping a run lay in.
    ranges: Vec<PlannedRange>,
}

/// Neighbouring pages that moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MovedRun {
    range: AddrRange,
    from: NodeId,
    to: NodeId,
}

/// Each further line of a journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Moved(MovedRun),
    /// What a sweep may move. Undo leaves alone what it has not moved.
    Sweeping {
        sweeping: Vec<MovedRun>,
    },
    /// What that sweep has moved; it stands for all lines before it.
    Swept {
        swept: Vec<MovedRun>,
    },
}

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system said no.
    #[error("cannot {what} the record of moves {}: {reason}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// There is no record of a move of this process.
    #[error("no move of process {pid} is on record in {}: nothing to undo", folder.display())]
    NoRecord {
        /// The process.
        pid: u32,
        /// Where records are kept.
        folder: PathBuf,
    },
    /// A line is not what a journal holds.
    #[error("line {line} of the record {} is damaged: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: serde_json::Error,
    },
}

/// A journal that is being written.
pub struct Journal {
    path: PathBuf,
    out: BufWriter<File>,
    /// The first write that failed; later ones are not tried.
    failed: Option<io::Error>,
    runs: usize,
}

impl Journal {
    /// Begins the journal of `plan` in `folder`, which is made if need be. It is readable for its
    /// owner alone, as what it says of a process is no one else's business.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]: nothing may be moved then that shall be undone.
    pub fn begin(folder: &Path, plan: &Plan) -> Result<Self, JournalError> {
        use std::os::unix::fs::OpenOptionsExt as _;

        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |reason| JournalError::Io { what, path, reason }
        };
        fs::create_dir_all(folder).map_err(failed("make the folder for", folder))?;
        let path = folder.join(next_name(folder, &plan.target));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let out = BufWriter::new(file.map_err(failed("create", &path))?);
        let mut journal = Self { path, out, failed: None, runs: 0 };
        let ranges = plan.passes.iter().flat_map(|pass| pass.ranges.iter().cloned()).collect();
        journal.write(&Head { schema: SCHEMA, target: plan.target.clone(), ranges });
        journal.flush();
        match journal.failed.take() {
            None => Ok(journal),
            Some(source) => {
                // What the write has said matters more.
                let _ = fs::remove_file(&journal.path);
                Err(failed("write", &journal.path)(source))
            }
        }
    }

    /// Writes down pages that moved to `lane.to`.
    pub(crate) fn record(&mut self, lane: &Lane, moved: &[Piece]) {
        for run in join_runs(moved, lane) {
            self.write(&Line::Moved(run));
            self.runs += 1;
        }
        self.flush();
    }

    /// Writes down what a sweep may move, before it does. Nothing has moved before.
    pub(crate) fn begin_sweep(&mut self, lane: &Lane, pieces: &[Piece]) {
        let sweeping = join_runs(pieces, lane);
        let runs = sweeping.len();
        self.write(&Line::Sweeping { sweeping });
        self.flush();
        self.runs = if self.has_failed() { 0 } else { runs };
    }

    /// Writes down what the sweep has moved.
    pub(crate) fn end_sweep(&mut self, lane: &Lane, moved: &[Piece]) {
        let swept = join_runs(moved, lane);
        self.runs = swept.len();
        self.write(&Line::Swept { swept });
        self.flush();
    }

    /// Whether a write has failed: what moves from here on is not on record.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn write(&mut self, line: &impl Serialize) {
        if self.failed.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut self.out, line)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        self.failed = written.err();
    }

    /// Ends the journal. One of a move that changed nothing is removed again.
    ///
    /// # Errors
    ///
    /// The first write that failed: the move can then not be undone in whole.
    pub fn finish(mut self) -> Result<(), JournalError> {
        let mut result = self.failed.take().map_or_else(|| self.out.flush(), Err);
        if self.runs == 0 {
            result = result.and(fs::remove_file(&self.path));
        }
        result.map_err(|reason| JournalError::Io { what: "write", path: self.path.clone(), reason })
    }
}

/// Joins pieces in address order into runs.
fn join_runs(pieces: &[Piece], lane: &Lane) -> Vec<MovedRun> {
    let mut runs: Vec<MovedRun> = Vec::new();
    for piece in pieces {
        let (from, to) = (piece.from, lane.to);
        let pages = piece.count * lane.size.base_pages();
        match runs.last_mut() {
            Some(run) if run.range.end() == piece.start && run.from == from => {
                run.range = AddrRange::from_pages(run.range.start(), run.range.pages() + pages);
            }
            _ => runs.push(MovedRun { range: AddrRange::from_pages(piece.start, pages), from, to }),
        }
    }
    runs
}

/// A journal that was read back: one move that can be undone.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    head: Head,
    runs: Vec<MovedRun>,
}

impl Record {
    /// The last move of `target` in `folder` that changed anything.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; a torn last line, as a killed pagetide leaves it, is no error.
    pub fn last_of(folder: &Path, target: &TargetId) -> Result<Self, JournalError> {
        for number in numbers(folder, target) {
            match Self::read(folder.join(file_name(target, number)))? {
                Some(record) if record.head.target.boot_id == target.boot_id => return Ok(record),
                _ => {}
            }
        }
        Err(JournalError::NoRecord { pid: target.pid, folder: folder.to_path_buf() })
    }

    /// Reads a journal; `None`: it tells of no page, as one of a pagetide that was killed at its begin.
    fn read(path: PathBuf) -> Result<Option<Self>, JournalError> {
        let failed = |reason| JournalError::Io { what: "read", path: path.clone(), reason };
        let file = File::open(&path).map_err(failed)?;
        let lines: Vec<String> =
            BufReader::new(file).lines().collect::<Result<_, _>>().map_err(failed)?;
        let malformed = |line: usize, problem| JournalError::Malformed {
            path: path.clone(),
            line: line + 1,
            problem,
        };
        let first = lines.first().map_or("", String::as_str);
        let head: Head = match serde_json::from_str(first) {
            Ok(head) => head,
            Err(error) if error.is_eof() && lines.len() <= 1 => return Ok(None),
            Err(error) => return Err(malformed(0, error)),
        };
        let mut runs = Vec::with_capacity(lines.len());
        for (at, line) in lines.iter().enumerate().skip(1) {
            match serde_json::from_str(line) {
                Ok(Line::Moved(run)) => runs.push(run),
                Ok(Line::Sweeping { sweeping: all } | Line::Swept { swept: all }) => runs = all,
                Err(error) if error.is_eof() && at + 1 == lines.len() => {}
                Err(error) => return Err(malformed(at, error)),
            }
        }
        Ok(Some(Self { path, head, runs }).filter(|record| !record.runs.is_empty()))
    }

    /// The passes that bring everything back, the last change first.
    pub fn passes_back(&self) -> Vec<PlannedPass> {
        let mut ranges = self.head.ranges.clone();
        ranges.sort_by_key(|planned| planned.range);
        ranges.dedup_by_key(|planned| planned.range);
        let mut passes: Vec<PlannedPass> = Vec::new();
        for run in self.runs.iter().rev() {
            let (source, target) = (NodeSet::only(run.to), Destination::Node(run.from));
            let at = passes.iter().position(|pass| pass.from == source && pass.to == target);
            let at = at.unwrap_or_else(|| {
                passes.push(PlannedPass { from: source, to: target, ranges: Vec::new() });
                passes.len() - 1
            });
            passes[at].ranges.extend(planned_ranges(run, &ranges));
        }
        for pass in &mut passes {
            pass.ranges.sort_by_key(|planned| planned.range);
        }
        passes
    }

    /// Takes the record off the books, when all of it has been undone.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn forget(self) -> Result<(), JournalError> {
        let path = self.path;
        fs::remove_file(&path).map_err(|reason| JournalError::Io { what: "remove", path, reason })
    }
}

/// The run as ranges of the mappings that it lay in: neighbours in address order may be of several.
fn planned_ranges(run: &MovedRun, ranges: &[PlannedRange]) -> impl Iterator<Item = PlannedRange> {
    let first = ranges.partition_point(|planned| planned.range.end() <= run.range.start());
    ranges[first..].iter().map_while(|planned| {
        let range = planned.range.intersection(run.range)?;
        Some(PlannedRange { range, pages: range.pages(), ..planned.clone() })
    })
}

/// The name carries the start time, so that a successor under the same pid has no record.
fn file_name(target: &TargetId, number: u64) -> String {
    format!("{}-{}-{number}.jsonl", target.pid, target.start_time_ticks)
}

/// The numbers of the target's journals, the last one first.
fn numbers(folder: &Path, target: &TargetId) -> Vec<u64> {
    let prefix = format!("{}-{}-", target.pid, target.start_time_ticks);
    let number = |name: String| name.strip_prefix(&prefix)?.strip_suffix(".jsonl")?.parse().ok();
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u64> = names.filter_map(number).collect();
    numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(number));
    numbers
}

fn next_name(folder: &Path, target: &TargetId) -> String {
    file_name(target, numbers(folder, target).first().map_or(1, |last| last.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{Kind, PageSize};
    use crate::plan::tests::plan_of;

    fn node(raw: u16) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    impl Journal {
        /// A journal on a full disk, under a name that nobody has.
        pub(crate) fn that_fails() -> Self {
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let path = "/dev/full/record".into();
            Self { path, out: BufWriter::new(full), failed: None, runs: 0 }
        }
    }

    fn record(journal: &mut Journal, pages: &[(u64, u16)], to: u16) {
        let lane = Lane { round: 1, shared: false, to: node(to), size: PageSize::Base };
        let piece = |&(page, from): &(u64, u16)| Piece {
            start: page * 4096,
            count: 1,
            from: node(from),
            kind: Kind::Anon,
        };
        journal.record(&lane, &pages.iter().map(piece).collect::<Vec<_>>());
    }

    fn planned(first_page: u64, pages: u64) -> PlannedRange {
        let range = AddrRange::from_pages(first_page * 4096, pages);
        PlannedRange { range, mapping: "[anon]".to_owned(), file: None, pages }
    }

    #[test]
    fn what_moved_is_read_back_as_passes_that_return_it_last_change_first() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan_of(vec![PlannedPass {
            from: "0-1".parse().unwrap(),
            to: Destination::Node(node(1)),
            ranges: vec![planned(16, 16)],
        }]);
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        record(&mut journal, &[(16, 1), (17, 1)], 2);
        record(&mut journal, &[(18, 0), (20, 0)], 1);
        journal.finish().unwrap();

        let record = Record::last_of(folder.path(), &plan.target).unwrap();
        let passes = record.passes_back();
        assert_eq!(passes[0].from, NodeSet::only(node(1)));
        assert_eq!(passes[0].to, Destination::Node(node(0)));
        assert_eq!(passes[0].ranges, [planned(18, 1), planned(20, 1)]);
        assert_eq!(passes[1].ranges, [planned(16, 2)]);
        record.forget().unwrap();
        assert!(matches!(
            Record::last_of(folder.path(), &plan.target),
            Err(JournalError::NoRecord { .. })
        ));
    }

    #[test]
    fn a_run_over_the_border_of_two_mappings_is_returned_in_both() {
        let folder = tempfile::tempdir().unwrap();
        let other = PlannedRange { mapping: "/usr/lib/libc.so.6".to_owned(), ..planned(18, 2) };
        let pass = |from: &str, to| PlannedPass {
            from: from.parse().unwrap(),
            to: Destination::Node(node(to)),
            ranges: vec![planned(16, 2), other.clone()],
        };
        let plan = plan_of(vec![pass("1", 2), pass("0", 1)]);
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        record(&mut journal, &[(17, 0), (18, 0)], 1);
        journal.finish().unwrap();
        let passes = Record::last_of(folder.path(), &plan.target).unwrap().passes_back();
        let in_other = PlannedRange { mapping: other.mapping, ..planned(18, 1) };
        assert_eq!(passes[0].ranges, [planned(17, 1), in_other]);
    }

    #[test]
    fn the_last_of_several_moves_is_the_one_to_undo() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan_of(vec![]);
        for first in 0..12 {
            let mut journal = Journal::begin(folder.path(), &plan).unwrap();
            record(&mut journal, &[(first, 0)], 1);
            journal.finish().unwrap();
        }
        let record = Record::last_of(folder.path(), &plan.target).unwrap();
        assert_eq!(record.runs[0].range, AddrRange::from_pages(11 * 4096, 1));
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan_of(vec![]);
        let mut journal = Journal::begin(folder.path(), &plan).unwrap();
        record(&mut journal, &[(1, 0), (3, 0)], 1);
        let path = journal.path.clone();
        journal.finish().unwrap();
        let whole = fs::read_to_string(&path).unwrap();

        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(Record::last_of(folder.path(), &plan.target).unwrap().runs.len(), 1);

        fs::write(&path, whole.replacen("\"range\"", "\"rage\"", 1)).unwrap();
        let error = Record::last_of(folder.path(), &plan.target).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn a_journal_that_was_torn_at_its_begin_or_is_of_another_boot_hides_no_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan_of(vec![]);
        let begin = |plan: &Plan| Journal::begin(folder.path(), plan).unwrap();
        let mut whole = begin(&plan);
        record(&mut whole, &[(7, 0)], 1);
        whole.finish().unwrap();
        let last = || Record::last_of(folder.path(), &plan.target).unwrap().runs[0].range;
        let expected = AddrRange::from_pages(7 * 4096, 1);

        let torn = begin(&plan).path;
        let head = fs::read(&torn).unwrap();
        assert!(head.ends_with(b"\n"), "the head is there before the first page moves");
        assert_eq!(last(), expected);
        for bytes in [0, head.len() / 2] {
            fs::write(&torn, &head[..bytes]).unwrap();
            assert_eq!(last(), expected);
        }

        let mut other = plan.clone();
        other.target.boot_id = "another boot".to_owned();
        let mut journal = begin(&other);
        record(&mut journal, &[(9, 0)], 1);
        journal.finish().unwrap();
        assert_eq!(last(), expected);
    }

    #[test]
    fn a_journal_says_as_soon_as_a_write_has_failed() {
        let mut journal = Journal::that_fails();
        assert!(!journal.has_failed());
        record(&mut journal, &[(1, 0)], 1);
        assert!(journal.has_failed());
        assert!(journal.finish().unwrap_err().to_string().contains("No space"));
    }

    #[test]
    fn a_move_that_changed_nothing_leaves_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan_of(vec![]);
        Journal::begin(folder.path(), &plan).unwrap().finish().unwrap();
        assert!(Record::last_of(folder.path(), &plan.target).is_err());
    }
}
