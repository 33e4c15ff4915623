//! Plans: they change nothing, and a move carries out what they said.

use serde_json::Value;

use crate::host::Host;
use crate::moves::Outcome;
use crate::numa_maps;
use crate::program::Program;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_plan_changes_nothing_and_a_move_does_what_it_said
        a_plan_of_a_cgroup_moves_each_of_its_processes
        of_several_plans_that_of_a_process_that_has_gone_is_told_and_the_rest_moves
        a_plan_from_a_file_is_carried_out_as_it_is
        a_reader_that_closes_the_pipe_stops_no_move
        a_cgroup_is_brought_back_though_not_all_of_it_had_moved
        nodes_that_are_not_there_are_refused_by_name
    }
}

fn pages_of(plan: &Value) -> u64 {
    let flows = plan["flows"].as_array().unwrap();
    flows.iter().map(|flow| flow["pages"].as_u64().unwrap()).sum()
}

fn a_plan_changes_nothing_and_a_move_does_what_it_said(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:4M t=thp:4M s=shm:1M");
    let before = numa_maps::sum(&numa_maps::read(host, target.pid));
    let text =
        host.sh(&format!("pagetide plan {} --to 1 --json | tee /root/plan.json", target.pid));
    assert_eq!(numa_maps::sum(&numa_maps::read(host, target.pid)), before);
    let document: Value = serde_json::from_str(&text).unwrap();
    let plan = &document["plans"][0];

    let ended =
        Program::start(host, &["pagetide", "move", "--plan", "/root/plan.json", "--json"]).wait();
    let outcome = Outcome::of(&ended);
    // Of the text that others map, some came or went while pagetide itself ran.
    let flows = pages_of(plan);
    assert!(
        outcome.moved_pages >= 2304 && outcome.moved_pages.abs_diff(flows) < 512,
        "{outcome:?}"
    );
    assert_eq!(target.where_is("a"), "1*1024");
    target.check();
}

/// Two targets in a cgroup of their own, `/both`.
fn in_cgroup(host: &Host, words: [&str; 2]) -> [Target; 2] {
    let pair = words.map(|words| Target::start(host, words));
    host.sh("mkdir -p /sys/fs/cgroup/both");
    for target in &pair {
        host.write("/sys/fs/cgroup/both/cgroup.procs", &target.pid());
    }
    pair
}

fn a_plan_of_a_cgroup_moves_each_of_its_processes(host: &Host) {
    let mut pair = in_cgroup(host, ["--on-node 0 a=anon:2M"; 2]);
    host.sh("pagetide plan --cgroup /both --to 1 --kind anon --json > /root/both.json");
    let output = host.pagetide("move --plan /root/both.json --json");
    assert_eq!(output.code, 0, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["outcomes"].as_array().map(Vec::len), Some(2), "{document}");
    for target in &mut pair {
        assert_eq!(target.where_is("a"), "1*512");
        target.check();
    }
    drop(pair);
    host.sh("rmdir /sys/fs/cgroup/both");
}

fn of_several_plans_that_of_a_process_that_has_gone_is_told_and_the_rest_moves(host: &Host) {
    let [gone, mut stays] = in_cgroup(host, ["--on-node 0 a=anon:2M"; 2]);
    host.sh("pagetide plan --cgroup /both --to 1 --kind anon --json > /root/both.json");
    let pid = gone.pid();
    gone.kill();
    let output = host.pagetide("move --plan /root/both.json --quiet");
    let said = output.stderr_text();
    assert_eq!(output.code, 4, "{output:?}");
    assert!(said.starts_with("pagetide: ") && said.contains(&pid), "{said}");
    assert_eq!(stays.where_is("a"), "1*512");
    stays.check();
    drop(stays);
    host.sh("rmdir /sys/fs/cgroup/both");
}

fn a_plan_from_a_file_is_carried_out_as_it_is(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    host.sh(&format!("pagetide plan {} --to 1 --json > /root/as-it-is.json", target.pid));
    for words in ["--limit 4KiB", "--kind anon", "--to 1", "--include-shared"] {
        let output = host.pagetide(&format!("move --plan /root/as-it-is.json {words}"));
        assert_eq!(output.code, 2, "{words}: {output:?}");
    }
    assert_eq!(target.where_is("a"), "0*256");
}

fn a_reader_that_closes_the_pipe_stops_no_move(host: &Host) {
    let mut pair = in_cgroup(host, ["--on-node 0 a=anon:2M"; 2]);
    host.sh("pagetide move --cgroup /both --to 1 --kind anon --quiet | :");
    for target in &mut pair {
        assert_eq!(target.where_is("a"), "1*512");
        target.check();
    }
    drop(pair);
    host.sh("rmdir /sys/fs/cgroup/both");
}

fn a_cgroup_is_brought_back_though_not_all_of_it_had_moved(host: &Host) {
    let [mut moved, home] = in_cgroup(host, ["--on-node 0 a=anon:2M", "--on-node 1 a=anon:2M"]);
    let words = "--to 1 --kind anon --mapping [anon]";
    assert_eq!(host.pagetide(&format!("move {} {words} --quiet", moved.pid)).code, 0);
    assert_eq!(moved.where_is("a"), "1*512");
    let output = host.pagetide("move --cgroup /both --undo --quiet");
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(moved.where_is("a"), "0*512");
    let output = host.pagetide("move --cgroup /both --undo --quiet");
    assert!(crate::said::refusal(&output, 2).contains("nothing to undo"));
    drop((moved, home));
    host.sh("rmdir /sys/fs/cgroup/both");
}

fn nodes_that_are_not_there_are_refused_by_name(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    let pid = target.pid();
    for words in [["--to", "99"], ["--to", "2"], ["--to", "0,x"], ["--interleave", "0,7"]] {
        let output = host.pagetide(&format!("move {pid} {}", words.join(" ")));
        let line = crate::said::refusal(&output, 2);
        assert!(line.contains(words[0]) && line.contains(words[1]), "{line}");
    }
    assert_eq!(target.where_is("a"), "0*256");
}
