//! `/proc/PID/numa_maps` and `/proc/PID/status` of a process on the machine.
//!
//! Source: proc_pid_numa_maps(5), proc_pid_status(5); kernel, fs/proc/task_mmu.c, fs/proc/array.c.

use std::collections::BTreeMap;

use machine::{CpuSet, NodeSet};

use super::host::host;
use super::mask::{cpu_mask, node_mask};
use crate::world::World;

/// Where each page of `pid` is. Pages that appeared since the last look are placed first, and its
/// children are met, for they map its pages too.
pub(crate) fn numa_maps(world: &mut World, pid: u32) -> String {
    world.before_change(pid, None);
    let Some(task) = world.task(pid) else { return String::new() };
    let maps = host(&format!("/proc/{pid}/maps"));
    // The model joins what the kernel keeps apart, by flags of madvise for one.
    mark(&world.machine.numa_maps_cut_at(task, &starts(&maps)), &maps)
}

fn starts(maps: &str) -> Vec<u64> {
    let start = |line: &str| u64::from_str_radix(line.split_once('-')?.0, 16).ok();
    maps.lines().filter_map(start).collect()
}

/// Says which mappings are heap and stack: the model knows addresses only.
fn mark(numa_maps: &str, maps: &str) -> String {
    let names: BTreeMap<u64, &str> = maps
        .lines()
        .filter_map(|line| {
            let start = line.split_once('-')?.0;
            let name = [("[heap]", " heap"), ("[stack]", " stack")];
            let (_, name) = name.iter().find(|(label, _)| line.ends_with(label))?;
            Some((u64::from_str_radix(start, 16).ok()?, *name))
        })
        .collect();
    let mut text = String::new();
    for line in numa_maps.lines() {
        let (start, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (policy, rest) = rest.split_at(policy_length(rest));
        let name = u64::from_str_radix(start, 16).ok().and_then(|start| names.get(&start));
        text.push_str(&format!("{start} {policy}{}{rest}\n", name.unwrap_or(&"")));
    }
    text
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

    #[test]
    fn heap_and_stack_are_told_by_where_they_start() {
        let maps = "55d0000-55f0000 rw-p 00000000 00:00 0   [heap]\n\
                    7ffc000-7ffe000 rw-p 00000000 00:00 0   [stack]\n";
        let text = "055d0000 bind:0-1 anon=1 N0=1 kernelpagesize_kB=4\n07ffc000 default\n00400000 default\n";
        let expected = "055d0000 bind:0-1 heap anon=1 N0=1 kernelpagesize_kB=4\n\
                        07ffc000 default stack\n00400000 default\n";
        assert_eq!(mark(text, maps), expected);
    }

    #[test]
    fn heap_and_stack_come_after_a_policy_of_two_words() {
        let maps = "55d0000-55f0000 rw-p 00000000 00:00 0   [heap]\n\
                    7ffc000-7ffe000 rw-p 00000000 00:00 0   [stack]\n";
        for policy in ["prefer (many):0-1", "prefer (many)=static:1", "weighted interleave:0-1"] {
            let text = format!("055d0000 {policy} anon=1 N0=1\n07ffc000 {policy}\n");
            let expected = format!("055d0000 {policy} heap anon=1 N0=1\n07ffc000 {policy} stack\n");
            assert_eq!(mark(&text, maps), expected);
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
