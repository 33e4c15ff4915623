//! Counters in Prometheus' text format, as node_exporter's textfile collector reads it.
//!
//! ```text
//! # HELP pagetide_pgmigrate_success_pages_total Base pages that were migrated.
//! # TYPE pagetide_pgmigrate_success_pages_total counter
//! pagetide_pgmigrate_success_pages_total 3072
//! ```
//!
//! The collector wants this format and no OpenMetrics, whose writers put the `TYPE` of a counter
//! under another name than its samples; so there is a writer of our own, of few lines. What a
//! kernel does not count has no metric. Names of nodes are numbers: no label needs an escape.
//!
//! Source: prometheus.io, "Exposition formats", text-based format 0.0.4.

use std::fmt::Write as _;

use engine::counters::{Amounts, Line, Reading};
use machine::Bytes;

/// What a counter counts: how its name begins, its unit where the name has none, and its HELP.
const COUNTED: [(&str, &str, &str); 24] = [
    ("numa_hit", "allocations", "Allocations on the node that was wanted"),
    ("numa_miss", "allocations", "Allocations here that were wanted on another node"),
    ("numa_foreign", "allocations", "Allocations wanted here that another node gave"),
    ("numa_interleave", "allocations", "Interleaved allocations on the node that was wanted"),
    ("numa_local", "allocations", "Allocations by a CPU of the node"),
    ("numa_other", "allocations", "Allocations by a CPU of another node"),
    ("numa_pte_updates", "", "Page table entries that NUMA balancing marked"),
    ("numa_huge_pte_updates", "", "Entries of huge pages that NUMA balancing marked"),
    ("numa_hint_faults_local", "", "Hint faults on the node of the CPU"),
    ("numa_hint_faults", "", "Faults on pages that NUMA balancing had marked"),
    ("numa_pages_migrated", "", "Base pages that NUMA balancing migrated"),
    ("pgmigrate_success", "pages", "Base pages that were migrated"),
    ("pgmigrate_fail", "pages", "Base pages that could not be migrated"),
    ("thp_migration_success", "thps", "THPs that were migrated whole"),
    ("thp_migration_fail", "thps", "THPs that could not be migrated whole"),
    ("thp_migration_split", "thps", "THPs that were split to be migrated"),
    ("pgpromote_success", "pages", "Base pages that were promoted to a faster tier"),
    ("pgpromote_candidate", "pages", "Base pages that were considered for promotion"),
    ("pgdemote_kswapd", "pages", "Base pages that kswapd demoted"),
    ("pgdemote_direct", "pages", "Base pages that direct reclaim demoted"),
    ("pgdemote_khugepaged", "pages", "Base pages that khugepaged's reclaim demoted"),
    ("pgdemote_", "pages", "Base pages that were demoted to a slower tier"),
    ("pgpromote_", "pages", "Base pages of a step of promotion"),
    ("pgalloc_", "pages", "Base pages that were allocated from the zone"),
];

/// Amounts of memory: name, HELP, and where it is.
type Gauge = (&'static str, &'static str, fn(&Amounts) -> Bytes);

const AMOUNTS: [Gauge; 5] = [
    ("free", "Free memory", |amounts| amounts.free_bytes),
    ("watermark_min", "Sum of the zones' min watermarks", |amounts| amounts.min_bytes),
    ("watermark_low", "Sum of the zones' low watermarks", |amounts| amounts.low_bytes),
    ("watermark_high", "Sum of the zones' high watermarks", |amounts| amounts.high_bytes),
    ("managed", "Memory that the allocator was given", |amounts| amounts.managed_bytes),
];

/// All metrics of a reading since boot: of each node where the kernel counts by node, else of the
/// machine.
pub(crate) fn text(reading: &Reading) -> String {
    let mut text = String::new();
    for (name, &count) in &reading.machine.counters {
        let nodes = reading.nodes.iter().filter_map(|(id, line)| Some((id, line.get(name)?)));
        let by_node: Vec<_> = nodes.map(|(id, n)| (format!("{{node=\"{id}\"}}"), n)).collect();
        let samples = if by_node.is_empty() { vec![(String::new(), count)] } else { by_node };
        let (metric, help) = describe(name);
        write_metric(&mut text, &metric, "counter", &help, &samples);
    }
    for (name, help, amount) in AMOUNTS {
        let sample = |(id, line): (&machine::NodeId, &Line)| {
            (format!("{{node=\"{id}\"}}"), amount(&line.amounts).get())
        };
        let samples: Vec<_> = reading.nodes.iter().map(sample).collect();
        let metric = format!("pagetide_node_memory_{name}_bytes");
        write_metric(&mut text, &metric, "gauge", &format!("{help}."), &samples);
    }
    text
}

/// The metric of a counter of vmstat, and its HELP. A counter that we do not know has no unit.
fn describe(name: &str) -> (String, String) {
    let exact = COUNTED.iter().find(|(known, ..)| *known == name);
    let family =
        || COUNTED.iter().find(|(known, ..)| known.ends_with('_') && name.starts_with(known));
    match exact.or_else(family) {
        Some((_, unit, help)) => {
            let unit = if unit.is_empty() { String::new() } else { format!("_{unit}") };
            (format!("pagetide_{name}{unit}_total"), format!("{help} ({name} of vmstat)."))
        }
        None => (format!("pagetide_{name}_total"), format!("{name} of vmstat.")),
    }
}

fn write_metric(
    text: &mut String,
    metric: &str,
    kind: &str,
    help: &str,
    samples: &[(String, u64)],
) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{metric}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use machine::NodeId;

    use super::*;

    fn reading() -> Reading {
        let line = |counters: &[(&str, u64)]| Line {
            counters: counters.iter().map(|&(name, n)| (name.to_owned(), n)).collect(),
            amounts: Amounts { free_bytes: Bytes::new(4096), ..Amounts::default() },
        };
        let node = |raw| NodeId::new(raw).unwrap();
        Reading {
            machine: line(&[("numa_hit", 5), ("numa_new_thing", 1), ("pgmigrate_success", 7)]),
            nodes: [(node(0), line(&[("numa_hit", 2)])), (node(2), line(&[("numa_hit", 3)]))]
                .into(),
        }
    }

    #[test]
    fn what_is_counted_by_node_is_labelled_and_what_is_not_is_of_the_machine() {
        let text = text(&reading());
        for line in [
            "# TYPE pagetide_numa_hit_allocations_total counter",
            "pagetide_numa_hit_allocations_total{node=\"2\"} 3",
            "pagetide_pgmigrate_success_pages_total 7",
            "pagetide_numa_new_thing_total 1",
            "pagetide_node_memory_free_bytes{node=\"0\"} 4096",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
        assert!(!text.contains("pgmigrate_fail"), "what is not counted has no metric");
    }

    #[test]
    fn each_metric_has_one_help_and_one_type_before_its_samples() {
        let text = text(&reading());
        let mut seen = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                current = rest.split(' ').next().unwrap().to_owned();
                assert!(seen.insert(current.clone()), "{line} comes twice");
            } else {
                let name = line.trim_start_matches("# TYPE ").split([' ', '{']).next();
                assert_eq!(name, Some(current.as_str()), "{line}");
            }
        }
    }
}
