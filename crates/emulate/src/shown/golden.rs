//! What is shown, held to what guests of the lab with the same machine have: Debian's kernel 6.12.
//!
//! `tests/golden/shown/MACHINE.txt` lists files with their text, and links. Left out of it is what
//! docs/run.md says is not shown, what is about the CPU model, and most CPUs. Numbers that are
//! measured in a guest are `#`; in `meminfo`, one `#` for each letter of the column.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::{KernelVersion, Machine, Options};

use super::tree::{Entry, Tree};
use super::{cpuinfo, live::Live, meminfo, vmstat, zoneinfo};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/shown");

/// Paths and what is there: the text of a file, or the target of a link after an arrow.
type Shown = BTreeMap<String, String>;

fn golden(machine: &str) -> Shown {
    let text = std::fs::read_to_string(format!("{FOLDER}/{machine}.txt")).unwrap();
    let mut shown = Shown::new();
    let mut current = String::new();
    for line in text.lines() {
        match line.split_at(1) {
            ("F", path) => {
                current = path.trim().to_owned();
                shown.insert(current.clone(), String::new());
            }
            ("L", link) => {
                let (path, target) = link.trim().split_once(" -> ").unwrap();
                shown.insert(path.to_owned(), format!("-> {target}"));
            }
            (_, text) => {
                let text = text.strip_prefix(' ').unwrap_or(text);
                writeln!(shown.get_mut(&current).unwrap(), "{text}").unwrap();
            }
        }
    }
    shown
}

fn boot(name: &str) -> Machine {
    let topology = machine::load(name).unwrap();
    Machine::boot(topology, KernelVersion::V6_12, Options::default())
}

fn is_compared(path: &str) -> bool {
    let is_another_cpu = ["/cpu1/", "/cpu3/"].iter().any(|cpu| path.contains(cpu));
    let is_of_this_computer = ["vulnerabilities", "modalias"].iter().any(|it| path.contains(it));
    let is_about_the_model = path.contains("/cpu/cpu") && path.ends_with("/uevent");
    let is_cache = path.contains("/cache/");
    !is_another_cpu && !is_of_this_computer && (is_cache || !is_about_the_model)
}

fn text_of(machine: &Machine, live: Live) -> String {
    match live {
        Live::NodeMeminfo(node) => meminfo::of_node(machine, node),
        Live::NodeNumastat(node) => vmstat::numastat(machine, node),
        Live::NodeVmstat(node) => vmstat::of_node(machine, node),
        other => panic!("{other:?} is not in sysfs"),
    }
}

/// Puts `#` where guests differ from boot to boot.
fn mask(path: &str, text: &str) -> String {
    let is_column = path.ends_with("meminfo");
    let names = ["numastat", "vmstat", "zoneinfo", "_bandwidth"];
    if !is_column && !names.iter().any(|name| path.ends_with(name)) {
        return text.to_owned();
    }
    let mut masked = String::new();
    let mut letters = text.chars().peekable();
    let mut spaces = 0;
    while let Some(letter) = letters.next() {
        let number = |spaces: usize| "#".repeat(if is_column { spaces + 1 } else { 1 });
        if letter == ' ' {
            spaces += 1;
            continue;
        }
        if !letter.is_ascii_digit() {
            masked.push_str(&" ".repeat(std::mem::take(&mut spaces)));
            masked.push(letter);
            continue;
        }
        if !is_column {
            masked.push_str(&" ".repeat(std::mem::take(&mut spaces)));
        }
        masked.push_str(&number(std::mem::take(&mut spaces)));
        while letters.next_if(char::is_ascii_digit).is_some() {
            masked.push_str(if is_column { "#" } else { "" });
        }
    }
    masked
}

fn shown(machine: &Machine, tree: &Tree) -> Shown {
    let mut shown = Shown::new();
    for (path, entry) in tree.entries() {
        let path = path.to_str().unwrap();
        let text = match entry {
            Entry::Folder => continue,
            Entry::Link(target) => format!("-> {target}"),
            Entry::Text(_, text) => mask(path, text),
            Entry::Live(live) => mask(path, &text_of(machine, *live)),
        };
        if is_compared(path) {
            shown.insert(path.to_owned(), text);
        }
    }
    shown
}

fn compare(name: &str) {
    let machine = boot(name);
    let mut expected = golden(name);
    expected.retain(|path, _| !path.starts_with("/proc/"));
    let shown = shown(&machine, &super::tree(&machine));
    for (path, text) in &expected {
        assert_eq!(shown.get(path), Some(text), "{path} of {name}");
    }
    for path in shown.keys() {
        assert!(expected.contains_key(path), "a guest has no {path} on {name}");
    }
}

#[test]
fn sysfs_of_two_sockets_is_that_of_a_guest() {
    compare("two-socket");
}

#[test]
fn sysfs_of_four_sockets_is_that_of_a_guest() {
    compare("four-socket");
}

#[test]
fn sysfs_with_a_memory_only_node_is_that_of_a_guest() {
    compare("dram-cxl");
}

#[test]
fn counters_and_zones_are_printed_as_in_a_guest() {
    let machine = boot("two-socket");
    let golden = golden("two-socket");
    let vmstat = mask("/proc/vmstat", &vmstat::of_machine(&machine, ""));
    assert_eq!(vmstat, golden["/proc/vmstat"]);
    let zones = mask("/proc/zoneinfo", &zoneinfo::text(&machine));
    let first_of_second_node = zones.match_indices("Node #, zone").nth(5).unwrap().0;
    assert_eq!(zones[first_of_second_node..], golden["/proc/zoneinfo"]);
}

#[test]
fn memory_and_processors_are_printed_as_in_a_guest() {
    let machine = boot("two-socket");
    let golden = golden("two-socket");
    let host = &golden["/proc/meminfo"];
    assert_eq!(mask("/proc/meminfo", &meminfo::of_machine(&machine, host)), *host);
    let host = &golden["/proc/cpuinfo"];
    assert_eq!(cpuinfo::cpuinfo(host, machine.topology()), *host);
}
