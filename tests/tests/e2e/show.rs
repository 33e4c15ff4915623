//! What `show` says, held against numa_maps.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Host;
use crate::numa_maps::{self, Placement};
use crate::target::{Target, unique_name};

on_each_kernel! {
    two_socket {
        show_of_a_cgroup_shows_each_of_its_processes
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        show_counts_what_the_kernel_counts
        show_says_in_a_sentence_what_is_wrong
        show_draws_where_the_parts_of_a_mapping_are
        show_without_a_target_lists_who_is_away_from_its_cpus
    }
    dram_cxl {
        show_knows_a_node_without_cpus
    }
}

/// The one process of `show TARGET --json`.
fn shown(host: &Host, target: &str) -> Value {
    let output = host.pagetide(&format!("show {target} --json"));
    assert_eq!((output.code, output.stderr_text().as_ref()), (0, ""), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(1), "{document}");
    document["processes"][0].clone()
}

/// Pages by node out of the lines of a tally.
fn by_node(tally: &Value) -> Placement {
    let mut pages = Placement::new();
    for line in tally.as_array().unwrap() {
        let node = u16::try_from(line["node"].as_u64().unwrap()).unwrap();
        *pages.entry(node).or_default() += line["pages"].as_u64().unwrap();
    }
    pages
}

fn pages_where(tally: &Value, key: &str, value: &str) -> u64 {
    let lines = tally.as_array().unwrap().iter().filter(|line| line[key] == value);
    lines.map(|line| line["pages"].as_u64().unwrap()).sum()
}

fn show_counts_what_the_kernel_counts(host: &Host) {
    let areas = "a=anon:3M,nodes=0,1 t=thp:4M,node=1 s=shm:1M,node=0 h=heap:1M,node=1 z=zero:1M";
    let name = unique_name("counted");
    let target = Target::start(host, &format!("--name {name} {areas}"));
    let kernel = numa_maps::read(host, target.pid);
    let process = shown(host, &name);
    assert_eq!((&process["pid"], &process["name"]), (&target.pid.into(), &name.into()));
    assert_eq!(by_node(&process["tally"]), numa_maps::sum(&kernel));
    assert_eq!(pages_where(&process["tally"], "size", "thp"), 1024);
    assert!(pages_where(&process["tally"], "kind", "heap") >= 256);
    assert_eq!(pages_where(&process["tally"], "kind", "shmem"), 256);

    let kernel: BTreeMap<u64, Placement> = kernel
        .into_iter()
        .filter(|mapping| !mapping.pages.is_empty())
        .map(|mapping| (mapping.range.start, mapping.pages))
        .collect();
    let mappings = process["mappings"].as_array().unwrap();
    let seen: BTreeMap<u64, Placement> = mappings
        .iter()
        .map(|view| {
            let range = view["range"].as_str().unwrap();
            let start = u64::from_str_radix(range.split('-').next().unwrap(), 16).unwrap();
            (start, by_node(&view["tally"]))
        })
        .filter(|(_, pages)| !pages.is_empty())
        .collect();
    assert_eq!(seen, kernel);
    let unseen = process["unseen"].as_array().map(Vec::len);
    assert_eq!(
        unseen,
        Some(usize::from(host.is_emulated)),
        "frames tell nodes on real kernels only"
    );
}

fn show_says_in_a_sentence_what_is_wrong(host: &Host) {
    let target = Target::start(host, "--cpu 2 --on-node 0 a=anon:64M");
    let said = host.pagetide(&format!("show {}", target.pid)).stdout_text().into_owned();
    let sentence = said.lines().find(|line| line.starts_with("! threads may run on node 1; "));
    assert!(sentence.is_some_and(|line| line.ends_with("% of memory is on node 0")), "{said}");
    assert!(said.contains("is on node 0, away from the CPUs of its threads"), "{said}");
}

fn show_draws_where_the_parts_of_a_mapping_are(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:64M");
    let range = target.range("a", 0..4096);
    host.pagetide(&format!("move {} --to 1 --range {range}", target.pid));
    assert_eq!(target.where_is("a"), "1*4096 0*12288");
    let said = host.pagetide(&format!("show {}", target.pid)).stdout_text().into_owned();
    let start = format!("{:x}", target.area("a").start);
    let line = said.lines().find(|line| line.contains(&start)).unwrap();
    assert!(line.contains("11111111000000000000000000000000"), "{said}");
}

fn show_without_a_target_lists_who_is_away_from_its_cpus(host: &Host) {
    let target = Target::start(host, "--name remote --cpu 3 --on-node 0 a=anon:32M");
    let output = host.pagetide("show");
    let said = output.stdout_text();
    assert_eq!((output.code, output.stderr_text().as_ref()), (0, ""));
    let first = said.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(words[..2], [target.pid().as_str(), "remote"], "{said}");
    let output = host.pagetide("show --json");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["processes"][0]["pid"], target.pid, "{document}");
    assert!(document["processes"][0]["away_bytes"].as_u64() >= Some(32 << 20), "{document}");
}

fn show_of_a_cgroup_shows_each_of_its_processes(host: &Host) {
    let pair =
        [0, 1].map(|node| Target::start(host, &format!("--name pair --on-node {node} a=anon:8M")));
    host.sh("mkdir -p /sys/fs/cgroup/pair");
    for target in &pair {
        host.write("/sys/fs/cgroup/pair/cgroup.procs", &target.pid());
    }
    let output = host.pagetide("show --cgroup /pair --json");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut pids: Vec<u64> = document["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process["pid"].as_u64().unwrap())
        .collect();
    pids.sort_unstable();
    assert_eq!(pids, [u64::from(pair[0].pid), u64::from(pair[1].pid)]);
    let said = host.pagetide("show --cgroup /pair").stdout_text().into_owned();
    assert!(pair.iter().all(|target| said.contains(&target.pid())), "{said}");
    let line = crate::said::refusal(&host.pagetide("show pair"), 2);
    assert!(pair.iter().all(|target| line.contains(&target.pid())), "{line}");
    drop(pair);
    host.sh("rmdir /sys/fs/cgroup/pair");
}

fn show_knows_a_node_without_cpus(host: &Host) {
    let target = Target::start(host, "--cpu 0 --on-node 2 a=anon:8M");
    let process = shown(host, &target.pid());
    assert_eq!(by_node(&process["tally"]), numa_maps::sum(&numa_maps::read(host, target.pid)));
    let said = host.pagetide("machine").stdout_text().into_owned();
    assert!(said.contains("3 nodes, 4 CPUs"), "{said}");
}
