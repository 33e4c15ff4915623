//! Reads `/proc/zoneinfo`: the zones of each node, their watermarks and the frames they span.
//!
//! ```text
//! Node 0, zone   Normal
//!   pages free     2412
//!         min      7325
//!         spanned  589824
//!         protection: (0, 0, 0)
//!       nr_free_pages 2412
//!   pagesets
//!     cpu: 0
//!               high:  240
//!   start_pfn:           1048576
//! ```
//!
//! - The amounts of a zone stand between `pages free` and `protection`; equal words come again
//!   later (`high:` of each CPU) and mean something else.
//! - A zone without memory ends after `protection`: it has no first frame.
//! - Zones of different nodes may overlap: a span has holes, in which another node may lie.
//!
//! Source: kernel, mm/vmstat.c, `zoneinfo_show_print`.

use std::ops::Range;

use machine::NodeId;

use crate::{Malformed, ReadError, Root};

/// One zone of a node. Amounts are base pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its node.
    pub node: NodeId,
    /// `DMA32`, `Normal`, `Movable` and so on.
    pub name: String,
    /// Free pages.
    pub free: u64,
    /// Below it only the kernel itself may allocate.
    pub min: u64,
    /// Below it kswapd wakes up.
    pub low: u64,
    /// Above it kswapd goes to sleep.
    pub high: u64,
    /// Pages from the first to the last, holes included.
    pub spanned: u64,
    /// Pages that exist.
    pub present: u64,
    /// Pages that the allocator was given.
    pub managed: u64,
    /// The first frame; none for a zone without memory.
    pub first_frame: Option<u64>,
}

impl Zone {
    /// The frames from the first to the last, holes included.
    #[must_use]
    pub fn frames(&self) -> Option<Range<u64>> {
        let first = self.first_frame?;
        Some(first..first.saturating_add(self.spanned))
    }
}

/// Reads the text of zoneinfo.
///
/// # Errors
///
/// A header or an amount that is not as expected.
pub fn parse(text: &str) -> Result<Vec<Zone>, Malformed> {
    let mut zones: Vec<Zone> = Vec::new();
    let mut in_amounts = false;
    for (index, line) in text.lines().enumerate() {
        let malformed = |what: String| Malformed::new(index + 1, what);
        if let Some(header) = line.strip_prefix("Node ") {
            let zone = empty(header).ok_or_else(|| malformed(format!("no zone: `{line}`")))?;
            zones.push(zone);
            in_amounts = false;
            continue;
        }
        let Some(zone) = zones.last_mut() else { continue };
        let mut words = line.split_ascii_whitespace();
        let mut word = words.next().unwrap_or_default();
        if word == "pages" {
            in_amounts = true;
            word = words.next().unwrap_or_default();
        }
        let amount = match word {
            "protection:" => {
                in_amounts = false;
                continue;
            }
            "start_pfn:" => zone.first_frame.insert(0),
            "free" if in_amounts => &mut zone.free,
            "min" if in_amounts => &mut zone.min,
            "low" if in_amounts => &mut zone.low,
            "high" if in_amounts => &mut zone.high,
            "spanned" if in_amounts => &mut zone.spanned,
            "present" if in_amounts => &mut zone.present,
            "managed" if in_amounts => &mut zone.managed,
            _ => continue,
        };
        let number = words.next().and_then(|number| number.parse().ok());
        *amount = number.ok_or_else(|| malformed(format!("{word} has no number")))?;
    }
    Ok(zones)
}

/// The zone of a header line `0, zone Normal`, without amounts yet.
fn empty(header: &str) -> Option<Zone> {
    let (node, zone) = header.split_once(',')?;
    Some(Zone {
        node: NodeId::new(node.parse().ok()?)?,
        name: zone.trim_start().strip_prefix("zone")?.trim().to_owned(),
        free: 0,
        min: 0,
        low: 0,
        high: 0,
        spanned: 0,
        present: 0,
        managed: 0,
        first_frame: None,
    })
}

/// The zones of all nodes.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<Vec<Zone>, ReadError> {
    root.parse("proc/zoneinfo", parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
Node 1, zone   Normal
  per-node stats
      nr_inactive_anon 2089
  pages free     2412
        boost    0
        min      7325
        low      9156
        high     10987
        spanned  589824
        present  589824
        managed  577504
        protection: (0, 0, 0)
      nr_free_pages 2412
  pagesets
    cpu: 0
              count: 3
              high:  240
  vm stats threshold: 4
  start_pfn:           1048576
Node 1, zone  Movable
  pages free     0
        min      32
        spanned  0
        protection: (0, 0, 0)
";

    #[test]
    fn watermarks_are_those_of_the_zone_and_not_of_a_cpus_list() {
        let zones = parse(TEXT).unwrap();
        let zone = &zones[0];
        assert_eq!((zone.free, zone.min, zone.low, zone.high), (2412, 7325, 9156, 10987));
        assert_eq!(zone.frames(), Some(1_048_576..1_638_400));
        assert_eq!((zone.node.get(), zone.name.as_str()), (1, "Normal"));
    }

    #[test]
    fn a_zone_without_memory_spans_no_frames() {
        assert_eq!(parse(TEXT).unwrap()[1].frames(), None);
    }

    #[test]
    fn this_machine_has_a_zone_with_memory() {
        let zones = read(&Root::default()).unwrap();
        assert!(zones.iter().any(|zone| zone.managed > 0 && zone.frames().is_some()));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(Node [0-9]{1,5}, zone [A-Z]{1,3}\n|\
                \x20 (pages )?(free|min|spanned|start_pfn:) {0,3}[0-9]{0,25}\n|\
                [ -~]{0,20}\n){0,9}") {
            for zone in parse(&text).unwrap_or_default() {
                let _ = zone.frames();
            }
        }
    }
}
