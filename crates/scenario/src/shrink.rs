//! Makes a scenario that shows something as small as it can be and still show it.
//!
//! The fuzz calls it with "the kernel and the model still differ". First steps are dropped, in long
//! runs, then in shorter ones, with all that names what is gone (`sound`); then each argument is
//! made simpler (`simpler`); and again, until nothing that is tried still shows it. It is greedy
//! and deterministic, and every scenario that is accepted costs less than the one before, so it
//! ends by itself; a limit on the tries ends it sooner.
//!
//! Source: Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input (2002).

mod simpler;
mod sound;

use crate::{Act, Scenario, Step};
use simpler::simpler;
use sound::{renamed, sound};

/// What a shrink came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest scenario that was found.
    pub scenario: Scenario,
    /// How many scenarios were tried.
    pub tries: u32,
    /// Nothing that is tried is smaller; `false`: the limit came first.
    pub is_minimal: bool,
}

/// Shrinks a scenario for which `shows` holds. At most `limit` others are tried.
pub fn shrink(scenario: &Scenario, limit: u32, shows: impl FnMut(&Scenario) -> bool) -> Shrunk {
    let mut search = Search { best: scenario.clone(), tries: 0, limit, shows };
    loop {
        let before = search.best.clone();
        search.drop_steps();
        search.simplify_steps();
        search.rename_areas();
        if search.best == before || search.is_over() {
            break;
        }
    }
    let is_minimal = !search.is_over();
    Shrunk { scenario: search.best, tries: search.tries, is_minimal }
}

struct Search<F> {
    best: Scenario,
    tries: u32,
    limit: u32,
    shows: F,
}

impl<F: FnMut(&Scenario) -> bool> Search<F> {
    const fn is_over(&self) -> bool {
        self.tries >= self.limit
    }

    /// Takes a scenario in place of the best one if it costs less and still shows it.
    fn take(&mut self, acts: Vec<Act>) -> bool {
        let candidate = Scenario { acts: sound(acts) };
        if self.is_over() || cost(&candidate) >= cost(&self.best) {
            return false;
        }
        self.tries += 1;
        let shows = (self.shows)(&candidate);
        if shows {
            self.best = candidate;
        }
        shows
    }

    /// Runs of steps, long ones first; from the end, where the looks are.
    fn drop_steps(&mut self) {
        let mut length = self.best.acts.len().div_ceil(2);
        while length > 0 && !self.is_over() {
            let mut upto = self.best.acts.len();
            while upto > 0 {
                let from = upto.saturating_sub(length);
                let mut acts = self.best.acts.clone();
                acts.drain(from..upto);
                self.take(acts);
                upto = from.min(self.best.acts.len());
            }
            length /= 2;
        }
    }

    /// The first letters of the alphabet, for areas.
    fn rename_areas(&mut self) {
        for to in 'a'..='z' {
            let used: Vec<char> = letters(&self.best).collect();
            let Some(&from) = used.iter().filter(|&&letter| letter > to).min() else { return };
            if !used.contains(&to) {
                self.take(renamed(&self.best.acts, from, to));
            }
        }
    }

    /// Each step, until nothing simpler of it shows it.
    fn simplify_steps(&mut self) {
        let mut at = 0;
        while at < self.best.acts.len() && !self.is_over() {
            let taken = simpler(&self.best.acts[at]).into_iter().any(|act| {
                let mut acts = self.best.acts.clone();
                acts[at] = act;
                self.take(acts)
            });
            at += usize::from(!taken);
        }
    }
}

/// The letters of the areas.
fn letters(scenario: &Scenario) -> impl Iterator<Item = char> {
    scenario.acts.iter().filter_map(|act| match act.step {
        Step::Map { area, .. } => Some(area),
        _ => None,
    })
}

/// What a scenario costs its reader: steps, then pages, then letters, then names and numbers.
fn cost(scenario: &Scenario) -> (usize, u64, usize, u64) {
    let text = scenario.to_string();
    let pages = scenario.acts.iter().map(|act| match act.step {
        Step::Map { pages, .. } => pages,
        _ => 0,
    });
    let marks = text.bytes().map(|byte| match byte {
        b'0'..=b'9' => u64::from(byte - b'0'),
        b'A'..=b'Z' => 10,
        _ => 0,
    });
    let letters = letters(scenario).map(|letter| u64::from(u32::from(letter) - u32::from('a')));
    (scenario.acts.len(), pages.sum(), text.len(), marks.chain(letters).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Outline, SEQUENCES, generate};
    use proptest::prelude::*;

    fn shrunk_to(text: &str, shows: fn(&str) -> bool) -> String {
        let scenario = text.parse().unwrap();
        let shrunk = shrink(&scenario, 10_000, |candidate| shows(&candidate.to_string()));
        assert!(shrunk.is_minimal);
        shrunk.scenario.to_string()
    }

    #[test]
    fn steps_and_arguments_that_do_not_matter_go() {
        let text = "unmap vdso; map a 8 memfd; map b 512 thp; fill a[2..7] 0121; fork Q; \
                    Q: touch a; smp bind+static {0,1,2}; mp 0 {0,1} {2} max=65; where a b";
        assert_eq!(shrunk_to(text, |text| text.contains("mp 0")), "mp 0 {} {}");
        assert_eq!(shrunk_to(text, |text| text.contains("touch a")), "map a 1; touch a");
        assert_eq!(shrunk_to(text, |text| text.contains("static")), "smp bind+static {}");
    }

    #[test]
    fn what_names_a_thing_that_is_gone_goes_with_it() {
        let text = "map a 4; map b 4; fork Q; Q: touch a; mv Q a,b 1; where a b";
        assert_eq!(
            shrunk_to(text, |text| text.contains("mv ") && text.contains("b")),
            "map b 1; mv 0 b ?"
        );
    }

    /// Two kinds of step that a scenario has, as what it shows.
    fn any_shown() -> impl Strategy<Value = (Scenario, [String; 2])> {
        (any::<u64>(), 0..SEQUENCES * 3, any::<(usize, usize)>()).prop_map(|(seed, index, at)| {
            let scenario = generate(seed, index, Outline::CASES);
            let verb = |at: usize| {
                let text = scenario.acts[at % scenario.acts.len()].step.to_string();
                text.split(' ').next().unwrap_or_default().to_owned()
            };
            let verbs = [verb(at.0), verb(at.1)];
            (scenario, verbs)
        })
    }

    fn has(scenario: &Scenario, verb: &str) -> bool {
        scenario.acts.iter().any(|act| act.step.to_string().split(' ').next() == Some(verb))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_left_shows_it_costs_no_more_and_no_step_of_it_can_go(
            (scenario, verbs) in any_shown()
        ) {
            let shows = |scenario: &Scenario| verbs.iter().all(|verb| has(scenario, verb));
            let shrunk = shrink(&scenario, 100_000, shows);
            prop_assert!(shrunk.is_minimal);
            prop_assert!(shows(&shrunk.scenario));
            prop_assert!(cost(&shrunk.scenario) <= cost(&scenario));
            for at in 0..shrunk.scenario.acts.len() {
                let mut acts = shrunk.scenario.acts.clone();
                acts.remove(at);
                prop_assert!(!shows(&Scenario { acts: sound(acts) }), "{}", shrunk.scenario);
            }
            let again = shrink(&shrunk.scenario, 100_000, shows);
            prop_assert_eq!(again.scenario, shrunk.scenario);
        }

        #[test]
        fn the_limit_is_kept_and_what_was_found_by_then_shows_it(
            (scenario, verbs) in any_shown(), limit in 0u32..40,
        ) {
            let mut tries = 0;
            let shows = |scenario: &Scenario| verbs.iter().all(|verb| has(scenario, verb));
            let shrunk = shrink(&scenario, limit, |candidate| {
                tries += 1;
                shows(candidate)
            });
            prop_assert!(tries == shrunk.tries && tries <= limit);
            prop_assert!(shows(&shrunk.scenario));
        }

        #[test]
        fn what_is_tried_can_be_written_and_read_back((scenario, verbs) in any_shown()) {
            shrink(&scenario, 200, |candidate| {
                assert_eq!(candidate.to_string().parse().as_ref(), Ok(candidate));
                has(candidate, &verbs[0])
            });
        }
    }
}
