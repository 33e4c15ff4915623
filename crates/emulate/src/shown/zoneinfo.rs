//! `/proc/zoneinfo`: the zones of the model.
//!
//! Frames are the model's: nodes lie one behind the other from frame 0. The zones that the model
//! has no use for (DMA, Device) are shown empty, as the kernel shows them.
//!
//! Source: kernel 6.12, mm/vmstat.c, `zoneinfo_show_print`.

use std::fmt::Write as _;

use machine::NodeId;
use model::{Machine, NumaStats, Usage, ZoneKind, ZoneUsage};

use super::names;
use super::vmstat::value;

/// All zones by the names that are printed, and the model's for it.
const ZONES: [(&str, Option<ZoneKind>); 5] = [
    ("DMA", None),
    ("DMA32", Some(ZoneKind::Dma32)),
    ("Normal", Some(ZoneKind::Normal)),
    ("Movable", Some(ZoneKind::Movable)),
    ("Device", None),
];

/// The text.
pub(crate) fn text(machine: &Machine) -> String {
    let mut text = String::new();
    for node in machine.topology().nodes() {
        // Writing to a String cannot fail.
        let _ = of_node(&mut text, machine, node.id);
    }
    text
}

fn of_node(text: &mut String, machine: &Machine, node: NodeId) -> std::fmt::Result {
    let zones = machine.zones(node);
    let usage = machine.usage(node);
    let mut first = true;
    for (name, kind) in ZONES {
        writeln!(text, "Node {node}, zone {name:>8}")?;
        let Some(zone) = zones.iter().find(|zone| Some(zone.kind) == kind) else {
            head(text, None)?;
            continue;
        };
        if first {
            text.push_str("  per-node stats\n");
            for name in names::NODE {
                let value = value(name, &usage, &NumaStats::default()).unwrap_or(0);
                writeln!(text, "      {name:<12} {value}")?;
            }
            first = false;
        }
        head(text, Some(zone))?;
        // The counters of allocation are kept by node: they stand in its largest zone.
        let is_largest = zones.iter().all(|other| other.pages <= zone.pages);
        let stats = machine.numa_stats(node).filter(|_| is_largest).unwrap_or_default();
        let own = Usage { total: zone.pages, free: zone.free, ..Usage::default() };
        for name in names::ZONE.iter().chain(names::NUMA) {
            writeln!(text, "      {name:<12} {}", value(name, &own, &stats).unwrap_or(0))?;
        }
        text.push_str("  pagesets\n");
        for cpu in machine.topology().cpus().iter() {
            writeln!(text, "    cpu: {cpu}")?;
            text.push_str("              count: 0\n              high:  0\n");
            text.push_str("              batch: 63\n  vm stats threshold: 24\n");
        }
        text.push_str("  node_unreclaimable:  0\n");
        writeln!(text, "  start_pfn:           {}", zone.start.get())?;
    }
    Ok(())
}

/// The lines that every zone has; an empty one has zeroes.
fn head(text: &mut String, zone: Option<&ZoneUsage>) -> std::fmt::Result {
    let pages = zone.map_or(0, |zone| zone.pages);
    let marks = zone.map(|zone| zone.watermarks).unwrap_or_default();
    writeln!(text, "  pages free     {}", zone.map_or(0, |zone| zone.free))?;
    for (name, value) in [
        ("boost", 0),
        ("min", marks.min),
        ("low", marks.low),
        ("high", marks.high),
        ("promo", marks.promo),
        ("spanned", pages),
        ("present", pages),
        ("managed", pages),
        ("cma", 0),
    ] {
        writeln!(text, "        {name:<8} {value}")?;
    }
    text.push_str("        protection: (0, 0, 0, 0, 0)\n");
    Ok(())
}
