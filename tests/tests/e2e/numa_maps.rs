//! What the kernel says of a process's pages: the witness that outcomes are held against.
//!
//! A reader of its own, as small as it can be: it must not share the mistakes of pagetide's.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::host::Host;

/// Base pages by node.
pub(crate) type Placement = BTreeMap<u16, u64>;

/// One mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) range: Range<u64>,
    /// Whether numa_maps calls it `heap` or `stack`.
    pub(crate) mark: Option<String>,
    pub(crate) pages: Placement,
}

impl Mapping {
    /// Whether it has a page on another node.
    pub(crate) fn is_away_from(&self, node: u16) -> bool {
        self.pages.keys().any(|on| *on != node)
    }
}

/// Waits, for some seconds, until the threads of a process sleep, but for those that touch pages without
/// end: who has just answered may take a page or two on its way to the next read.
const UNTIL_QUIET: &str = r"
for THREAD in /proc/PID/task/*; do
    case $(cat $THREAD/comm) in touch-*) continue;; esac
    for TRY in $(seq 500); do grep -q '^State:.[RD]' $THREAD/status || break; sleep 0.01; done
done
";

/// Every mapping of a process that is quiet, with its pages by node.
pub(crate) fn read(host: &Host, pid: u32) -> Vec<Mapping> {
    let script = format!("{UNTIL_QUIET} cat /proc/PID/maps; echo; cat /proc/PID/numa_maps");
    let text = host.sh(&script.replace("PID", &pid.to_string()));
    let (maps, numa_maps) = text.split_once("\n\n").expect("an empty line was printed");
    let ends: BTreeMap<u64, u64> = maps.lines().map(ends_of_a_line).collect();
    numa_maps.lines().map(|line| mapping(line, &ends)).collect()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{text:?} is no address"))
}

fn ends_of_a_line(line: &str) -> (u64, u64) {
    let range = line.split(' ').next().unwrap_or_default();
    let (start, end) = range.split_once('-').unwrap_or_else(|| panic!("maps: {line}"));
    (hex(start), hex(end))
}

/// `7f5c8c000000 default anon=512 N0=256 N1=256 kernelpagesize_kB=4`
fn mapping(line: &str, ends: &BTreeMap<u64, u64>) -> Mapping {
    let words: Vec<&str> = line.split(' ').collect();
    let start = hex(words[0]);
    let mark = words.iter().find(|word| ["heap", "stack"].contains(word));
    let fields: Vec<(&str, &str)> = words.iter().filter_map(|word| word.split_once('=')).collect();
    let page_kib = fields.iter().find(|(key, _)| *key == "kernelpagesize_kB");
    let base_pages = page_kib.map_or(1, |(_, kib)| kib.parse::<u64>().unwrap() / 4);
    let on_node = |&(key, count): &(&str, &str)| {
        let node = key.strip_prefix('N')?.parse().ok()?;
        Some((node, count.parse::<u64>().ok()? * base_pages))
    };
    Mapping {
        range: start..ends[&start],
        mark: mark.map(|&word| word.to_owned()),
        pages: fields.iter().filter_map(on_node).collect(),
    }
}

/// What mappings add up to.
pub(crate) fn sum<'a>(mappings: impl IntoIterator<Item = &'a Mapping>) -> Placement {
    let mut sum = Placement::new();
    for (node, pages) in mappings.into_iter().flat_map(|mapping| &mapping.pages) {
        *sum.entry(*node).or_default() += pages;
    }
    sum
}
