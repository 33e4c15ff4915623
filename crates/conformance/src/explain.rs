//! A scenario told migration by migration: for `pagetide model explain`.

use std::fmt;

use model::{Explained, Machine};
use scenario::{End, Scenario};

use crate::player::Player;

/// What a step gives that kills its process.
const DIED: &str = "killed, or exited before";

/// A step, what it gave, and the migrations that it caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedStep {
    /// The step as the notation writes it.
    pub step: String,
    /// Its result, if it has one.
    pub seen: Option<String>,
    /// Calls of the migration engine, in order.
    pub migrations: Vec<Explained>,
}

impl fmt::Display for ExplainedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        if let Some(seen) = &self.seen {
            write!(f, " -> {seen}")?;
        }
        for migration in &self.migrations {
            write!(f, "\n{migration}")?;
        }
        Ok(())
    }
}

/// Plays a scenario on `machine` and tells of every migration by which functions it came, why, how
/// and with what result. The scenario's own `trace` steps see nothing: its events are told here.
/// It ends with a step that kills, and before one that cannot be performed; then the second value says
/// why.
pub fn explain(machine: Machine, scenario: &Scenario) -> (Vec<ExplainedStep>, Option<String>) {
    let mut player = Player::new(machine);
    player.machine_mut().trace_on();
    let mut told = Vec::new();
    for act in &scenario.acts {
        let one = Scenario { acts: vec![act.clone()] };
        let record = player.play(&one, |_| {});
        let events = player.machine_mut().take_events();
        if let End::Failed(why) = record.end {
            return (told, Some(why));
        }
        let died = record.end != End::Done;
        let seen = if died { Some(DIED) } else { record.results.first().map(|(_, text)| &**text) };
        told.push(ExplainedStep {
            step: act.to_string(),
            seen: seen.map(str::to_owned),
            migrations: model::explain(&events),
        });
        if died {
            break;
        }
    }
    (told, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case_machine;
    use model::KernelVersion;

    #[test]
    fn a_migration_is_told_with_the_functions_by_which_it_came() {
        let scenario = "map a 4; fill a 0; mp 0 {0} {1}".parse().unwrap();
        let (told, _) = explain(case_machine(KernelVersion::V6_12), &scenario);
        assert_eq!(
            told[2].to_string(),
            "mp 0 {0} {1} -> 0\n\
             kernel_migrate_pages > do_migrate_pages > migrate_to_node > migrate_pages\n  \
             reason=syscall_or_cpuset mode=MIGRATE_SYNC moved=4 stayed=0 split=0 entries_set=4"
        );
    }
}
