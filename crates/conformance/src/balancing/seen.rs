//! What a loop led to, as the program in the guest prints it.
//!
//! ```text
//! elapsed_ms=980
//! node=1 pages=4096
//! numa_hint_faults=4106
//! migrated reason=numa_misplaced succeeded=4106 failed=0
//! ```
//!
//! Pages of the area by node; counters of /proc/vmstat that changed; pages that
//! `migrate:mm_migrate_pages` gave, by reason. A counter that is not there did not change.

use std::collections::BTreeMap;

/// What a loop led to, on a kernel or on the model.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// Pages of the area by node.
    pub nodes: BTreeMap<u16, u64>,
    /// Changes in `/proc/vmstat`, by name.
    pub counters: BTreeMap<String, u64>,
    /// Pages that migrated, by the kernel's reason.
    pub migrated: BTreeMap<String, u64>,
}

/// A line of the program's output that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenError {
    /// The line.
    pub line: String,
}

impl std::fmt::Display for SeenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a loop printed {:?}: neither counter, placement nor migration", self.line)
    }
}

impl std::error::Error for SeenError {}

impl Seen {
    /// Reads what `pagetide-target loop` printed.
    ///
    /// # Errors
    ///
    /// [`SeenError`], for the first line that is not as above.
    pub fn parse(text: &str) -> Result<Self, SeenError> {
        let mut seen = Self::default();
        for line in text.lines() {
            seen.read_line(line).ok_or_else(|| SeenError { line: line.to_owned() })?;
        }
        Ok(seen)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        if let Some(fields) = line.strip_prefix("node=") {
            let (node, pages) = fields.split_once(" pages=")?;
            self.nodes.insert(node.parse().ok()?, pages.parse().ok()?);
            return Some(());
        }
        if let Some(fields) = line.strip_prefix("migrated reason=") {
            let (reason, rest) = fields.split_once(" succeeded=")?;
            let (pages, _) = rest.split_once(" failed=")?;
            self.migrated.insert(reason.to_owned(), pages.parse().ok()?);
            return Some(());
        }
        let (name, value) = line.split_once('=')?;
        // A counter that fell (a node statistic may) is none that a comparison needs.
        self.counters.insert(name.to_owned(), value.parse::<i64>().ok()?.max(0).unsigned_abs());
        Some(())
    }

    /// Pages of the area on a node.
    pub fn pages_on(&self, node: u16) -> u64 {
        self.nodes.get(&node).copied().unwrap_or(0)
    }

    /// The change of a counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_is_read() {
        let text = "elapsed_ms=980\nnode=0 pages=3862\nnode=1 pages=235\nnuma_hint_faults=12320\nnuma_local=-3\n\
                    migrated reason=numa_misplaced succeeded=248 failed=2\n";
        let seen = Seen::parse(text).unwrap();
        assert_eq!((seen.pages_on(0), seen.pages_on(1), seen.pages_on(2)), (3862, 235, 0));
        assert_eq!(seen.counter("numa_hint_faults"), 12320);
        assert_eq!(seen.counter("numa_local"), 0);
        assert_eq!(seen.migrated["numa_misplaced"], 248);
    }

    #[test]
    fn a_line_that_means_nothing_is_told() {
        for line in ["pagetide-target: no", "node=1", "node=1 pages=x", "migrated reason=x", "x=y"]
        {
            let error = Seen::parse(line).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
    }
}
