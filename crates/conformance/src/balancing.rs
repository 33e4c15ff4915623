//! NUMA balancing in the large: access loops that a real kernel and the model perform alike.
//!
//! A [`Loop`] is threads that use memory pass by pass. In a guest `pagetide-target loop` performs it,
//! told by [`Loop::words`] and [`Loop::switches`]; [`Loop::play`] performs it on the model. Both
//! give a [`Seen`]: where the pages lie at the end, how the counters changed, what migrated and why.
//! [`compare()`] holds one against the other, within bounds that each have a reason.
//!
//! Who uses it: the end-to-end test `balancing`, and the table of docs/balancing.md.

mod compare;
mod loops;
mod play;
mod seen;

pub use compare::{Bound, Row, compare};
pub use loops::LOOPS;
pub use seen::{Seen, SeenError};

/// Threads that use an area of memory while balancing is on.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// Its name in tables and tests.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub shows: &'static str,
    /// A built-in machine.
    pub machine: &'static str,
    /// What the area is.
    pub memory: Memory,
    /// Base pages of the area.
    pub pages: u32,
    /// The node that the area is filled on.
    pub node: u16,
    /// The threads; the first is the process's main thread.
    pub threads: &'static [Thread],
    /// Whether the threads write.
    pub writes: bool,
    /// Passes of each thread.
    pub passes: u32,
    /// From the beginning of a pass to the next, in ms. Pass `k` of thread `i` of `n` begins at
    /// `(k + i/n) * beat_ms`; the thread burns what is left of its `beat_ms / n`, then sleeps.
    pub beat_ms: u32,
    /// The switches of balancing.
    pub switches: Switches,
}

/// What the area of a loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Private anonymous base pages.
    Anon,
    /// Private anonymous THPs.
    Thp,
    /// A shared mapping of a memfd.
    Memfd,
    /// A shared mapping of a tmpfs file that may be read and not written.
    ReadOnlyFile,
}

/// One thread of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The CPU that it is bound to.
    pub cpu: u32,
    /// First base page that it uses.
    pub from: u32,
    /// Base page behind the last one.
    pub upto: u32,
}

/// The switches of balancing that a loop changes (spec 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// `kernel.numa_balancing`.
    pub mode: u8,
    /// `scan_delay_ms`.
    pub scan_delay_ms: u64,
    /// `scan_period_min_ms`.
    pub scan_period_min_ms: u64,
    /// `scan_period_max_ms`.
    pub scan_period_max_ms: u64,
    /// `hot_threshold_ms`.
    pub hot_threshold_ms: u64,
}

impl Loop {
    /// Whether two threads use the same pages.
    fn is_shared(&self) -> bool {
        let overlap = |one: &Thread, two: &Thread| one.from < two.upto && two.from < one.upto;
        let pairs = self.threads.iter().zip(self.threads.iter().skip(1));
        pairs.into_iter().any(|(one, two)| overlap(one, two))
    }

    /// The arguments of `pagetide-target` that perform it.
    pub fn words(&self) -> Vec<String> {
        let kind = match self.memory {
            Memory::Anon => "anon",
            Memory::Thp => "thp",
            Memory::Memfd => "memfd",
            Memory::ReadOnlyFile => "file",
        };
        let options = match self.memory {
            Memory::ReadOnlyFile => ",path=/root/loop,read",
            Memory::Anon | Memory::Thp | Memory::Memfd => "",
        };
        let access = if self.writes { "write" } else { "read" };
        let mut words = vec![
            "loop".to_owned(),
            format!("a={kind}:{}K,node={}{options}", self.pages * 4, self.node),
            self.passes.to_string(),
            self.beat_ms.to_string(),
            self.switches.mode.to_string(),
            access.to_owned(),
        ];
        let threads = self.threads.iter();
        words.extend(threads.map(|Thread { cpu, from, upto }| format!("{cpu}:{from}-{upto}")));
        words
    }

    /// Files of a guest, and what to write to them before; debugfs must be mounted.
    pub fn switches(&self) -> [(&'static str, u64); 4] {
        let Switches { scan_delay_ms, scan_period_min_ms, scan_period_max_ms, .. } = self.switches;
        [
            ("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", scan_delay_ms),
            ("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", scan_period_min_ms),
            ("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", scan_period_max_ms),
            (
                "/sys/kernel/debug/sched/numa_balancing/hot_threshold_ms",
                self.switches.hot_threshold_ms,
            ),
        ]
    }
}
