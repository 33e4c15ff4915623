//! What `stat` says, held against vmstat and numastat.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Host;
use crate::program::Program;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        the_differences_of_stat_add_up_to_those_of_vmstat_over_a_known_migration
        stat_has_a_line_for_each_node_and_a_dash_for_what_is_not_counted_there
        a_file_for_prometheus_is_whole_and_readable_by_all
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        stat_since_boot_says_what_vmstat_and_numastat_say
        the_text_for_prometheus_has_the_kernels_counters
    }
    dram_cxl {
        stat_knows_a_node_without_cpus
    }
}

/// Lines of a name and a number.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, count) = line.split_once(' ').unwrap();
        (name.to_owned(), count.trim().parse().unwrap())
    };
    text.lines().map(line).collect()
}

fn vmstat(host: &Host) -> BTreeMap<String, u64> {
    counters(&host.sh("cat /proc/vmstat"))
}

fn numastat(host: &Host, node: u16) -> BTreeMap<String, u64> {
    counters(&host.sh(&format!("cat /sys/devices/system/node/node{node}/numastat")))
}

fn document(line: &str) -> Value {
    let document: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    assert_eq!(document["schema"], 1, "{line}");
    document
}

fn machine_counter(document: &Value, name: &str) -> u64 {
    document["machine"]["counters"][name].as_u64().unwrap_or_else(|| panic!("{name}: {document}"))
}

fn the_differences_of_stat_add_up_to_those_of_vmstat_over_a_known_migration(host: &Host) {
    const COUNTERS: [&str; 3] = ["pgmigrate_success", "pgmigrate_fail", "thp_migration_success"];
    let target = Target::start(host, "--on-node 0 a=anon:2M t=thp:4M p=anon:1M,pin=3");
    let before = vmstat(host);
    let mut stat = Program::start(host, &["pagetide", "stat", "100ms", "--json"]);
    let first = document(&stat.line());
    assert_eq!(first["interval_ns"], Value::Null, "the first is since boot");
    for name in COUNTERS {
        assert_eq!(machine_counter(&first, name), before[name], "{name}");
    }
    for area in ["a", "t", "p"] {
        let pages = (target.area(area).end - target.area(area).start) / 4096;
        let range = target.range(area, 0..pages);
        host.pagetide(&format!("move {} --to 1 --range {range} --quiet", target.pid));
    }
    let after = vmstat(host);
    let moved = 512 + 1024 + 253;
    let difference = |name: &str| after[name] - before[name];
    // The planner moves a little memory of its own, to learn what it costs.
    assert!(difference("pgmigrate_success") >= moved, "{}", difference("pgmigrate_success"));
    assert!(difference("pgmigrate_fail") >= 3 && difference("thp_migration_success") == 2);
    let mut sums = BTreeMap::from(COUNTERS.map(|name| (name, 0)));
    while COUNTERS.iter().any(|name| sums[name] < difference(name)) {
        let line = document(&stat.line());
        assert!(line["interval_ns"].as_u64() > Some(0), "{line}");
        for (name, sum) in &mut sums {
            *sum += machine_counter(&line, name);
        }
    }
    stat.kill();
    for (name, sum) in sums {
        assert_eq!(sum, difference(name), "{name}");
    }
}

fn stat_since_boot_says_what_vmstat_and_numastat_say(host: &Host) {
    let names =
        [("numa_hit", "numa_hit"), ("numa_other", "other_node"), ("numa_local", "local_node")];
    let earlier = [numastat(host, 0), numastat(host, 1)];
    let output = host.pagetide("stat --json");
    let stat = document(&output.stdout_text());
    let later = [numastat(host, 0), numastat(host, 1)];
    for (node, (earlier, later)) in earlier.iter().zip(&later).enumerate() {
        for (ours, theirs) in names {
            let count = stat["nodes"][node.to_string()]["counters"][ours].as_u64().unwrap();
            assert!((earlier[theirs]..=later[theirs]).contains(&count), "{node} {ours}: {count}");
        }
    }
    let kernel = vmstat(host);
    let machine = stat["machine"]["counters"].as_object().unwrap();
    let is_ours = |name: &&String| {
        ["numa_", "pgmigrate_", "thp_migration_", "pgpromote_", "pgdemote_", "pgalloc_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let expected: Vec<&String> = kernel.keys().filter(is_ours).collect();
    assert_eq!(
        machine.keys().collect::<Vec<_>>(),
        expected,
        "those that this kernel has, and no other"
    );
}

fn stat_has_a_line_for_each_node_and_a_dash_for_what_is_not_counted_there(host: &Host) {
    let output = host.pagetide("stat");
    let said = output.stdout_text().into_owned();
    assert_eq!((output.code, output.stderr_text().as_ref()), (0, ""), "{said}");
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["node", "all", "0", "1"], "{said}");
    assert!(said.lines().all(|line| line.len() <= 100), "{said}");
    let column = rows[0].iter().position(|heading| *heading == "migrated").unwrap();
    assert!(rows[1][column].parse::<u64>().is_ok(), "{said}");
    assert_eq!([rows[2][column], rows[3][column]], ["-", "-"], "{said}");
    let wide = host.pagetide("stat --wide").stdout_text().into_owned();
    assert!(wide.contains("thp-split") && wide.contains("interleave"), "{wide}");

    host.write("/proc/sys/vm/numa_stat", "0");
    let said = host.pagetide("stat").stdout_text().into_owned();
    host.write("/proc/sys/vm/numa_stat", "1");
    let all: Vec<&str> = said.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(all[1..5], ["-"; 4], "what the kernel was told not to count: {said}");
}

fn the_text_for_prometheus_has_the_kernels_counters(host: &Host) {
    let kernel = vmstat(host);
    let text = host.pagetide("stat --prometheus").stdout_text().into_owned();
    let value = |metric: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
        line.map(|value| value.parse::<u64>().unwrap())
    };
    for (name, metric) in [
        ("pgmigrate_success", "pagetide_pgmigrate_success_pages_total"),
        ("thp_migration_success", "pagetide_thp_migration_success_thps_total"),
        ("numa_hint_faults", "pagetide_numa_hint_faults_total"),
    ] {
        assert_eq!(value(metric), Some(kernel[name]), "{metric}\n{text}");
    }
    for node in [0, 1] {
        let free = value(&format!("pagetide_node_memory_free_bytes{{node=\"{node}\"}}"));
        assert!(free.is_some_and(|bytes| bytes > 1 << 20), "{text}");
    }
}

fn a_file_for_prometheus_is_whole_and_readable_by_all(host: &Host) {
    host.sh("mkdir -p /root/prom && echo old > /root/prom/pagetide.prom");
    let words = "stat 10ms --count 3 --prometheus --output /root/prom/pagetide.prom";
    let output = host.pagetide(words);
    assert_eq!((output.code, output.stdout_text().as_ref()), (0, ""), "{output:?}");
    assert_eq!(host.sh("ls -A /root/prom"), "pagetide.prom\n");
    assert!(host.sh("ls -l /root/prom").contains("-rw-r--r--"));
    let text = host.sh("cat /root/prom/pagetide.prom");
    assert!(text.starts_with("# HELP ") && !text.contains("old\n"), "{text}");
}

fn stat_knows_a_node_without_cpus(host: &Host) {
    let stat = document(&host.pagetide("stat --json").stdout_text());
    let nodes: Vec<&String> = stat["nodes"].as_object().unwrap().keys().collect();
    assert_eq!(nodes, ["0", "1", "2"], "{stat}");
    assert!(stat["nodes"]["2"]["free_bytes"].as_u64() > Some(0), "{stat}");
}
