//! `/proc/PID/numa_maps` and `/proc/PID/status` of a process on the machine.
//!
//! Source: proc_pid_numa_maps(5), proc_pid_status(5); kernel, fs/proc/task_mmu.c, fs/proc/array.c.

use std::collections::BTreeMap;

use linux::Root;
use linux::proc::maps::{self, Mapping};
use machine::{CpuSet, NodeSet};

use super::host::host;
use super::mask::{cpu_mask, node_mask};
use crate::world::World;

/// Where each page of `pid` is. Pages that appeared since the last look are placed first, and its
/// children are met, for they map its pages too.
pub(crate) fn numa_maps(world: &mut World, pid: u32) -> String {
    world.before_change(pid, None);
    let Some(task) = world.task(pid) else { return String::new() };
    let mappings = maps::read(&Root::default(), pid).unwrap_or_default();
    // The model joins what the kernel keeps apart, by flags of madvise for one.
    let starts: Vec<u64> = mappings.iter().map(|mapping| mapping.range.start()).collect();
    name(&world.machine.numa_maps_cut_at(task, &starts), &mappings)
}

/// Says what mappings are called now. The model knows where they are, and what a file was called when it
/// was first seen.
fn name(numa_maps: &str, mappings: &[Mapping]) -> String {
    let by_start: BTreeMap<u64, &Mapping> =
        mappings.iter().map(|mapping| (mapping.range.start(), mapping)).collect();
    let mut text = String::new();
    for line in numa_maps.lines() {
        let (start, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mapping = u64::from_str_radix(start, 16).ok().and_then(|start| by_start.get(&start));
        let (policy, rest) = rest.split_at(policy_length(rest));
        let (name, rest) = match (mapping, rest.strip_prefix(" file=")) {
            (Some(mapping), Some(named)) if is_path(&mapping.name) => {
                let counts = &named[named.find(' ').unwrap_or(named.len())..];
                (format!(" file={}", model::escape_path(&mapping.name)), counts)
            }
            (Some(mapping), None) if mapping.is_heap() => (" heap".to_owned(), rest),
            (Some(mapping), None) if mapping.is_stack() => (" stack".to_owned(), rest),
            _ => (String::new(), rest),
        };
        text.push_str(&format!("{start} {policy}{name}{rest}\n"));
    }
    text
}

/// Not so where shared memory was given a name of its own: `[anon_shmem:x]`.
fn is_path(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('[')
}

/// Bytes of the policy that `text` begins with. Two have names of two words.
fn policy_length(text: &str) -> usize {
    let is_long = ["prefer (many)", "weighted interleave"].iter().any(|it| text.starts_with(it));
    let spaces = usize::from(is_long);
    text.match_indices(' ').nth(spaces).map_or(text.len(), |(at, _)| at)
}

/// What this computer says of `pid`, with the CPUs and nodes where it may be.
pub(crate) fn status(world: &World, pid: u32) -> String {
    let text = host(&format!("/proc/{pid}/status"));
    let allowed = world.thread(pid).map(|thread| thread.allowed.clone());
    let cpus = allowed.unwrap_or_else(|| world.cpus());
    let mems = world.task(pid).and_then(|task| world.machine.mems_allowed(task));
    place(&text, &cpus, &world.cpus(), mems.unwrap_or_else(|| world.machine.memory_nodes()))
}

fn place(status: &str, cpus: &CpuSet, all: &CpuSet, mems: NodeSet) -> String {
    let mut text = String::new();
    for line in status.lines() {
        let name = line.split(':').next().unwrap_or_default();
        match name {
            "Cpus_allowed" => text.push_str(&format!("{name}:\t{}", cpu_mask(cpus, all))),
            "Cpus_allowed_list" => text.push_str(&format!("{name}:\t{cpus}")),
            "Mems_allowed" => text.push_str(&format!("{name}:\t{}", node_mask(mems))),
            "Mems_allowed_list" => text.push_str(&format!("{name}:\t{mems}")),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "055d0000-055f0000 rw-p 00000000 00:00 0   [heap]\n\
                        07ff0000-07ff1000 rw-p 00000000 08:01 9   /tmp/x=[heap] (deleted)\n\
                        07ffc000-07ffe000 rw-p 00000000 00:00 0   [stack]\n";

    fn named(numa_maps: &str) -> String {
        name(numa_maps, &maps::parse(MAPS).unwrap())
    }

    #[test]
    fn heap_and_stack_are_told_by_where_they_start() {
        let text = "055d0000 bind:0-1 anon=1 N0=1 kernelpagesize_kB=4\n07ffc000 default\n00400000 default\n";
        let expected = "055d0000 bind:0-1 heap anon=1 N0=1 kernelpagesize_kB=4\n\
                        07ffc000 default stack\n00400000 default\n";
        assert_eq!(named(text), expected);
    }

    #[test]
    fn heap_and_stack_come_after_a_policy_of_two_words() {
        for policy in ["prefer (many):0-1", "prefer (many)=static:1", "weighted interleave:0-1"] {
            let text = format!("055d0000 {policy} anon=1 N0=1\n07ffc000 {policy}\n");
            let expected = format!("055d0000 {policy} heap anon=1 N0=1\n07ffc000 {policy} stack\n");
            assert_eq!(named(&text), expected);
        }
    }

    #[test]
    fn a_file_has_its_present_name_as_the_kernel_writes_it_and_is_no_heap() {
        let now = r"file=/tmp/x\075[heap]\040(deleted)";
        for counts in ["", " anon=1 N0=1"] {
            let text = format!(
                "07ff0000 default file=/tmp/old{counts}\n00400000 default file=/b{counts}\n"
            );
            let expected =
                format!("07ff0000 default {now}{counts}\n00400000 default file=/b{counts}\n");
            assert_eq!(named(&text), expected);
        }
    }

    #[test]
    fn only_where_it_may_be_is_changed() {
        let text = "Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\nMems_allowed_list:\t0\nThreads:\t1\n";
        let all = "0-3".parse().unwrap();
        let changed = place(text, &"2-3".parse().unwrap(), &all, "0-1".parse().unwrap());
        let expected = "Name:\tx\nCpus_allowed:\tc\nCpus_allowed_list:\t2-3\nMems_allowed_list:\t0-1\nThreads:\t1\n";
        assert_eq!(changed, expected);
    }
}
