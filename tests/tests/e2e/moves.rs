//! One move, and the accounts that must add up after it.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

use crate::host::Host;
use crate::numa_maps::{self, Mapping, Placement};
use crate::program::{Ended, Program, SIGCONT, SIGSTOP};
use crate::target::Target;

/// An outcome as `move --json` prints it.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) pid: u32,
    pub(crate) found_pages: u64,
    pub(crate) moved_pages: u64,
    pub(crate) already_there_pages: u64,
    pub(crate) gone_pages: u64,
    pub(crate) stayed: BTreeMap<String, u64>,
    pub(crate) end: String,
    pub(crate) placement: Option<Placement>,
    pub(crate) left_pages: u64,
    pub(crate) calls: u64,
    pub(crate) calls_ns: u64,
    pub(crate) longest_call_ns: u64,
    pub(crate) longest_hold_ns: Option<u64>,
    pub(crate) elapsed_ns: u64,
}

#[derive(Deserialize)]
struct Document {
    schema: u32,
    outcomes: Vec<Outcome>,
}

impl Outcome {
    /// The one outcome that a move printed.
    pub(crate) fn of(ended: &Ended) -> Self {
        let Document { schema, mut outcomes } = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!((schema, outcomes.len()), (1, 1), "{ended:?}");
        let outcome = outcomes.remove(0);
        outcome.assert_adds_up(ended.code);
        outcome
    }

    /// Pages that stayed, if they all did for this cause.
    pub(crate) fn stayed_only(&self, cause: &str) -> u64 {
        assert_eq!(self.stayed.keys().collect::<Vec<_>>(), [cause], "{self:?}");
        self.stayed[cause]
    }

    pub(crate) fn stayed_pages(&self) -> u64 {
        self.stayed.values().sum()
    }

    fn assert_adds_up(&self, code: u8) {
        let fates = self.moved_pages + self.gone_pages + self.stayed_pages();
        assert_eq!(self.found_pages, fates, "every page found has one fate: {self:?}");
        let expected = match self.end.as_str() {
            "completed" if self.stayed.is_empty() => 0,
            "completed" | "interrupted" => 1,
            "target_gone" => 4,
            "not_permitted" => 3,
            end => panic!("end {end}"),
        };
        assert_eq!(code, expected, "exit code of {self:?}");
        assert!(self.calls_ns >= self.longest_call_ns, "{self:?}");
        assert!(self.elapsed_ns >= self.longest_call_ns, "{self:?}");
        assert_eq!(self.calls == 0, self.calls_ns == 0, "{self:?}");
    }
}

/// The mappings that a move is about: those that hold something for it to move.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// These areas of the target.
    Areas(&'a [&'a str]),
    /// Some pages of these areas: the outcome speaks of no others, so that the kernel's sums of the
    /// mappings say nothing of its placement, and the test asks the target page by page.
    PartOf(&'a [&'a str]),
    /// The mappings that numa_maps calls `heap` or `stack`, with a page that is not on this node.
    Marked(&'a str, u16),
    /// Every mapping with a page that is not on this node.
    AllAwayFrom(u16),
}

/// A move that is under way, with what the kernel said of the target before it.
pub(crate) struct Move<'a> {
    host: &'a Host,
    pid: u32,
    before: Vec<Mapping>,
    pub(crate) mover: Program,
}

impl<'a> Move<'a> {
    /// Starts `pagetide move PID WORDS --json`.
    pub(crate) fn start(host: &'a Host, target: &Target, words: &str) -> Self {
        Self::start_in_words(host, target, &format!("{words} --json"))
    }

    /// Starts `pagetide move PID WORDS`, whose outcome will be in words.
    pub(crate) fn start_in_words(host: &'a Host, target: &Target, words: &str) -> Self {
        let before = numa_maps::read(host, target.pid);
        let words = format!("pagetide move {} {words}", target.pid);
        let mover = Program::start(host, &words.split(' ').collect::<Vec<_>>());
        Self { host, pid: target.pid, before, mover }
    }

    /// Waits until some pages have come to `node`, and stops the mover there.
    pub(crate) fn stop_midway(&self, node: u16) {
        let on_node = |mappings: &[Mapping]| numa_maps::sum(mappings).get(&node).copied();
        let before = on_node(&self.before);
        while on_node(&numa_maps::read(self.host, self.pid)) == before {}
        self.mover.signal(SIGSTOP);
    }

    /// Lets a stopped mover go on.
    pub(crate) fn go_on(&self) {
        self.mover.signal(SIGCONT);
    }

    /// Waits for its end, and holds the outcome against the kernel's books and the target's contents.
    pub(crate) fn finish(self, target: &mut Target, about: About<'_>) -> Outcome {
        let ended = self.mover.wait();
        // Before the target is asked anything: that touches its stack and heap.
        let after = numa_maps::read(self.host, self.pid);
        let outcome = Outcome::of(&ended);
        assert_eq!(outcome.pid, self.pid);
        let books = Books::new(self.before, after, |mapping| match about {
            About::Areas(areas) | About::PartOf(areas) => {
                areas.iter().any(|area| overlap(&target.area(area), &mapping.range))
            }
            About::Marked(mark, node) => {
                mapping.mark.as_deref() == Some(mark) && mapping.is_away_from(node)
            }
            About::AllAwayFrom(node) => mapping.is_away_from(node),
        });
        books.assert_nothing_is_missing(&outcome);
        if !matches!(about, About::PartOf(_)) {
            assert_eq!(outcome.placement.as_ref(), Some(&books.after), "placement: {outcome:?}");
        }
        target.check();
        outcome
    }
}

/// Runs a move of `target`, and looks only at its outcome.
pub(crate) fn outcome_of(host: &Host, target: &Target, words: &str) -> Outcome {
    Outcome::of(&Move::start(host, target, words).mover.wait())
}

/// Moves pages of `target`, and checks the outcome as [`Move::finish`] does.
pub(crate) fn move_pages(
    host: &Host,
    target: &mut Target,
    words: &str,
    about: About<'_>,
) -> Outcome {
    Move::start(host, target, words).finish(target, about)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// What the kernel said of the target before and after a move, of the mappings that it is about.
struct Books {
    before: Placement,
    after: Placement,
}

impl Books {
    /// Every other mapping must be as it was.
    fn new(
        before: Vec<Mapping>,
        after: Vec<Mapping>,
        is_concerned: impl Fn(&Mapping) -> bool,
    ) -> Self {
        let (concerned, others): (Vec<_>, Vec<_>) = before.into_iter().partition(is_concerned);
        let starts =
            |mappings: &[Mapping]| mappings.iter().map(|m| m.range.start).collect::<Vec<_>>();
        let (concerned_starts, other_starts) = (starts(&concerned), starts(&others));
        let now = |starts: &[u64]| {
            numa_maps::sum(after.iter().filter(|mapping| starts.contains(&mapping.range.start)))
        };
        assert_eq!(
            now(&other_starts),
            numa_maps::sum(&others),
            "mappings that were to be left alone"
        );
        Self { before: numa_maps::sum(&concerned), after: now(&concerned_starts) }
    }

    fn assert_nothing_is_missing(&self, outcome: &Outcome) {
        let Self { before, after } = self;
        let arrived =
            |(node, pages): (&u16, &u64)| pages.saturating_sub(*before.get(node).unwrap_or(&0));
        let arrived: u64 = after.iter().map(arrived).sum();
        // A page that took the place of one that left does not show in the sums.
        assert!(arrived <= outcome.moved_pages, "{arrived} pages came, of which {outcome:?}");
        assert_eq!(after.values().sum::<u64>(), before.values().sum::<u64>(), "pages were lost");
        assert_eq!(outcome.left_pages, outcome.stayed_pages(), "the target was quiet: {outcome:?}");
    }
}
