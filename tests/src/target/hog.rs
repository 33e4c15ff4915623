//! `hog NODE LEAVE_BYTES`: a node with next to no free memory, for moves that must find it full.
//!
//! It stops 16 MiB above the min watermarks, where the kernel would end it (out of memory under
//! `MPOL_BIND`); they are 23 MiB on a node of 512 MiB where THPs are enabled. A move to that node gets
//! those 16 MiB and then `ENOMEM`: move more. LEAVE_BYTES 0 asks for as full as can be.

use std::fs;
use std::io::{self, Write};
use std::process;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result, Tried};
use crate::spec::PAGE_BYTES;
use crate::sys::{self, Backing, Mapping};

/// Between two looks at what is free, a quarter of it is taken, and near the end this much. Others
/// allocate meanwhile.
const STEP_BYTES: usize = 1 << 20;

/// Kept above the min watermarks. One allocation may take 8 MiB from a zone for the CPU's own list
/// (2016 pages, 6.7 and newer), which the watermark check does not count as free: without a margin
/// the hog was ended with 15 MiB in those lists.
const MARGIN_BYTES: usize = 16 << 20;

/// The node is full when nothing could be taken this often in a row: reclaim goes on for a while.
const QUIET_LOOKS: u32 = 3;
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Fills the node, says `ready pid=PID held_bytes=N free_bytes=N`, and sleeps.
pub(crate) fn run(node: u32, leave_bytes: usize) -> Result<()> {
    let total_bytes = meminfo(node, "MemTotal")?;
    let mapping = Mapping::new(&Backing::Anon { is_shared: false }, total_bytes, PAGE_BYTES);
    let mapping = mapping.tried(|| format!("cannot map {total_bytes} bytes"))?;
    drop(mapping.advise(libc::MADV_NOHUGEPAGE)); // fails only where there are no THPs
    sys::set_thread_policy(Some(node)).tried(|| format!("cannot allocate on node {node}"))?;

    let mut held_bytes = 0;
    let mut quiet_looks = 0;
    while quiet_looks < QUIET_LOOKS {
        let room_bytes = total_bytes - held_bytes;
        let spare = spare_bytes(node, leave_bytes)?.min(room_bytes);
        let step = spare.min(STEP_BYTES.max(spare / 4));
        if step < PAGE_BYTES {
            quiet_looks += 1;
            thread::sleep(LOOK_PERIOD);
            continue;
        }
        quiet_looks = 0;
        let step = step - step % PAGE_BYTES;
        let locked = mapping.lock(held_bytes, step);
        locked.tried(|| format!("cannot hold {step} more bytes of node {node}"))?;
        held_bytes += step;
    }
    say_ready(held_bytes, meminfo(node, "MemFree")?)?;
    loop {
        thread::park();
    }
}

fn say_ready(held_bytes: usize, free_bytes: usize) -> Result<()> {
    let mut out = io::stdout().lock();
    let pid = process::id();
    let said = writeln!(out, "ready pid={pid} held_bytes={held_bytes} free_bytes={free_bytes}");
    said.and_then(|()| out.flush()).tried(|| "cannot write to stdout".to_owned())
}

/// What may still be taken: down to `leave_bytes`, or to a margin above the watermarks.
fn spare_bytes(node: u32, leave_bytes: usize) -> Result<usize> {
    let path = "/proc/zoneinfo";
    let zoneinfo = fs::read_to_string(path).tried(|| format!("cannot read {path}"))?;
    let usable_bytes = usable_pages(&zoneinfo, node) * PAGE_BYTES;
    let free_bytes = meminfo(node, "MemFree")?;
    let above_margin_bytes = usable_bytes.saturating_sub(MARGIN_BYTES);
    Ok(above_margin_bytes.min(free_bytes.saturating_sub(leave_bytes)))
}

/// Pages of the node that an allocation for a process can have: in each zone, those above its min
/// watermark and above what is kept from allocations that could go to a higher zone.
///
/// Source: kernel, mm/page_alloc.c, `__zone_watermark_ok`; mm/vmstat.c, `zoneinfo_show_print`.
fn usable_pages(zoneinfo: &str, node: u32) -> usize {
    let head = format!("Node {node},");
    let (mut usable, mut is_ours, mut free, mut min) = (0, false, 0_usize, 0_usize);
    for line in zoneinfo.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Node", ..] => is_ours = line.starts_with(&head),
            ["pages", "free", pages] => free = pages.parse().unwrap_or(0),
            ["min", pages] => min = pages.parse().unwrap_or(0),
            ["protection:", .., last] if is_ours => {
                let kept: usize = last.trim_matches(['(', ')']).parse().unwrap_or(0);
                usable += free.saturating_sub(min).saturating_sub(kept);
            }
            _ => {}
        }
    }
    usable
}

/// A field of the node's meminfo, in bytes.
fn meminfo(node: u32, field: &str) -> Result<usize> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs::read_to_string(&path).tried(|| format!("cannot read {path}"))?;
    field_bytes(&text, field).ok_or_else(|| Error::Unmet(format!("{path} has no {field}")))
}

/// Reads `Node 0 MemFree:  1234 kB`.
fn field_bytes(text: &str, field: &str) -> Option<usize> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(2);
        let is_field = words.next()?.strip_suffix(':') == Some(field);
        is_field.then_some(words.next()?.parse::<usize>().ok()?.checked_mul(1024)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_nodes_meminfo_is_in_bytes() {
        let text = "Node 1 MemTotal:        1031452 kB\nNode 1 MemFree:          903212 kB\n";
        assert_eq!(field_bytes(text, "MemFree"), Some(903_212 * 1024));
        assert_eq!(field_bytes(text, "MemTotal"), Some(1_031_452 * 1024));
        assert_eq!(field_bytes(text, "Mem"), None);
        assert_eq!(field_bytes("\nNode\nNode 1 MemFree:\n", "MemFree"), None);
    }

    #[test]
    fn usable_pages_are_above_watermark_and_protection_of_the_nodes_own_zones() {
        let zone = |node, name, free, min, kept| {
            format!(
                "Node {node}, zone {name}\n  pages free     {free}\n        boost    0\n        \
                 min      {min}\n        low      9999\n        protection: (0, 7, {kept})\n"
            )
        };
        let text = zone(0, "DMA", 3840, 100, 20_000)
            + &zone(0, "DMA32", 5000, 600, 400)
            + &zone(1, "Normal", 9000, 1000, 0)
            + &zone(10, "Normal", 50, 1, 0);
        assert_eq!(usable_pages(&text, 0), 4000);
        assert_eq!(usable_pages(&text, 1), 8000);
        assert_eq!(usable_pages(&text, 2), 0);
    }
}
