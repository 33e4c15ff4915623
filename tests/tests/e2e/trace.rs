//! `pagetide trace`: each kind of migration is made to happen, and the trace must say who, why and by
//! which path, as often as the kernel's own counters.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Host;
use crate::program::{Ended, Program, SIGCONT, SIGINT, SIGKILL, SIGSTOP};
use crate::said::refusal;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        trace_shows_migratepages_as_a_syscall_by_its_path
        trace_shows_a_hint_fault_as_numa_misplaced_under_the_fault
        trace_shows_compaction
        trace_shows_mbind
        trace_of_a_target_shows_what_others_do_to_it_and_nothing_else
        trace_filters_by_reason_and_refuses_one_that_the_kernel_lacks
        trace_prints_lines_and_a_table
        trace_draws_a_flame_graph
        trace_ends_with_its_target
        trace_says_what_a_user_needs
        trace_says_how_to_mount_tracefs
        trace_that_was_killed_leaves_nothing_behind_the_next
        trace_counts_a_storm_whole_or_says_what_it_lost
        trace_counts_what_was_overwritten_while_it_slept
        trace_goes_on_where_a_cpu_is_offline_and_follows_it_when_it_is_back
    }
    dram_cxl {
        trace_shows_demotion
    }
}

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A trace under way.
struct Trace<'a> {
    host: &'a Host,
    program: Program,
    /// The counters before it began, and when it had begun.
    before: [BTreeMap<String, u64>; 2],
}

/// What a trace printed as JSON.
struct Traced {
    lines: Vec<Value>,
    summary: Value,
    /// By how much the counters of vmstat grew while it was under way, and around it.
    counted: [BTreeMap<String, u64>; 2],
}

impl<'a> Trace<'a> {
    /// Starts `pagetide trace WORDS`, and waits until its events are on.
    fn start(host: &'a Host, words: &str) -> Self {
        let around = vmstat(host);
        let words = format!("pagetide trace {words}");
        let program = Program::start(host, &words.trim_end().split(' ').collect::<Vec<_>>());
        // Tracing is off while the events are switched on.
        let last = format!("{INSTANCES}/pagetide-*/events/syscalls/sys_enter_move_pages/enable");
        let on = format!("{INSTANCES}/pagetide-*/tracing_on");
        let are_on = format!("grep -q 1 {last} && grep -q 1 {on}");
        host.sh(&format!("until {{ {are_on}; }} 2>/dev/null; do sleep 0.1; done"));
        Self { host, program, before: [around, vmstat(host)] }
    }

    /// Ends it by Ctrl-C.
    fn interrupt(self) -> Ended {
        self.program.signal(SIGINT);
        let ended = self.program.wait();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(instances(self.host), "", "its instance is gone");
        ended
    }

    /// Ends it by Ctrl-C, and reads what it printed with `--json`.
    fn finish(self) -> Traced {
        let (host, [around, begun]) = (self.host, self.before.clone());
        let under_way = growth(&begun, &vmstat(host));
        let ended = self.interrupt();
        let counted = [under_way, growth(&around, &vmstat(host))];
        let mut lines: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["schema"] == 1), "{ended:?}");
        let summary = lines.pop().unwrap();
        assert_eq!(summary["event"], "summary");
        Traced { lines, summary, counted }
    }
}

impl Traced {
    /// Migrations for this reason, of which there must be some.
    fn migrations(&self, reason: &str) -> Vec<&Value> {
        let found = self.lines.iter().filter(|line| line["reason"] == reason);
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "no {reason} in {:?}", self.lines);
        found
    }

    /// The sums are those of the lines, and those of the kernel's counters.
    fn assert_adds_up(&self) {
        let total = &self.summary["total"];
        let counters = [
            ("succeeded_pages", "pgmigrate_success"),
            ("failed_pages", "pgmigrate_fail"),
            ("thp_succeeded", "thp_migration_success"),
        ];
        for (key, counter) in counters {
            let lines: u64 = self.lines.iter().filter_map(|line| line[key].as_u64()).sum();
            assert_eq!(total[key], lines, "{key}");
            assert_eq!(total[key], self.summary["vmstat"][key], "{key}: {}", self.summary);
            // Ours is read a little earlier and later: a page of somebody else's may move then.
            let [least, most] = self.counted.each_ref().map(|counted| counted[counter]);
            assert!((least..=most).contains(&lines), "{key}: {least} {lines} {most}");
        }
        assert_eq!(
            (&self.summary["lost_events"], &self.summary["bad_pages"]),
            (&0.into(), &0.into())
        );
    }
}

/// The stack of a migration must have these functions, from the engine outwards.
fn assert_path(migration: &Value, functions: &[&str]) {
    let stack = migration["stack"].as_array().unwrap();
    let mut frames = stack.iter().map(|frame| frame.as_str().unwrap());
    assert!(
        functions.iter().all(|function| {
            // One of several names: kernels call it differently.
            frames.any(|frame| function.split('|').any(|name| frame == name))
        }),
        "{functions:?} in {stack:?}"
    );
}

fn vmstat(host: &Host) -> BTreeMap<String, u64> {
    let text = host.sh("cat /proc/vmstat");
    let counters = text.lines().filter_map(|line| line.split_once(' '));
    counters.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    // What is no counter but a level may fall.
    let grown = |(name, count): (&String, &u64)| (name.clone(), count.saturating_sub(before[name]));
    after.iter().map(grown).collect()
}

fn instances(host: &Host) -> String {
    host.sh(&format!("ls {INSTANCES}"))
}

fn trace_shows_migratepages_as_a_syscall_by_its_path(host: &Host) {
    let target = Target::start(host, "--name db --on-node 0 a=anon:4M t=thp:4M");
    let trace = Trace::start(host, "--stacks --json");
    host.sh(&format!("/root/theirs/migratepages {} 0 1", target.pid));
    let traced = trace.finish();
    traced.assert_adds_up();
    let migrations = traced.migrations("syscall_or_cpuset");
    for migration in &migrations {
        assert_eq!(
            (&migration["process"], &migration["mode"]),
            (&"migratepages".into(), &"MIGRATE_SYNC".into())
        );
        assert_eq!(migration["pages_of"]["pid"], target.pid, "{migration}");
        assert_eq!(migration["pages_of"]["name"], "db", "{migration}");
        assert!(migration["duration_ns"].as_u64() > Some(0), "{migration}");
        let path = ["migrate_pages", "do_migrate_pages", "kernel_migrate_pages"];
        assert_path(migration, &path);
        assert_eq!(migration["stack"][0], "migrate_pages", "no frame of the tracing itself");
    }
    let sum = |key: &str| migrations.iter().map(|m| m[key].as_u64().unwrap()).sum::<u64>();
    assert!(sum("succeeded_pages") >= 2048 && sum("thp_succeeded") == 2, "{migrations:?}");
}

fn trace_goes_on_where_a_cpu_is_offline_and_follows_it_when_it_is_back(host: &Host) {
    let target = Target::start(host, "--on-node 0 a=anon:4M");
    let is_online = |online| host.write("/sys/devices/system/cpu/cpu1/online", online);
    is_online("0");
    let trace = Trace::start(host, "--json");
    host.sh(&format!("/root/theirs/migratepages {} 0 1; sleep 2", target.pid));
    let pid = host.sh("pidof pagetide | cut -d' ' -f1");
    let ticks = host.sh(&format!("cut -d' ' -f14,15 /proc/{}/stat", pid.trim()));
    let ticks: u64 = ticks.split_whitespace().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    is_online("1");
    host.sh(&format!("taskset -c 1 /root/theirs/migratepages {} 1 0", target.pid));
    let traced = trace.finish();
    traced.assert_adds_up();
    let cpus = traced.migrations("syscall_or_cpuset");
    assert!(cpus.iter().any(|migration| migration["cpu"] == 1), "{cpus:?}");
    assert!(cpus.iter().any(|migration| migration["cpu"] != 1), "{cpus:?}");
    assert!(ticks < 150, "it slept: {ticks} ticks of 10 ms in 2 s");
}

fn trace_shows_a_hint_fault_as_numa_misplaced_under_the_fault(host: &Host) {
    let target = Target::start(host, "--cpu 2 --on-node 0 a=anon:8M,touch");
    let trace =
        Trace::start(host, &format!("{} --reason numa_misplaced --stacks --json", target.pid));
    let migrated = vmstat(host)["numa_pages_migrated"];
    host.write("/proc/sys/kernel/numa_balancing", "1");
    host.sh(&format!(
        "until [ $(sed -n 's/^numa_pages_migrated //p' /proc/vmstat) -gt {migrated} ]; do sleep 0.1; done"
    ));
    host.write("/proc/sys/kernel/numa_balancing", "0");
    // So that no fault is under way any more.
    target.kill();
    let traced = trace.finish();
    for migration in traced.migrations("numa_misplaced") {
        let names = (&migration["mode"], &migration["pages_of"]["pid"]);
        assert_eq!(names, (&"MIGRATE_ASYNC".into(), &migration["pid"]), "{migration}");
        assert_path(
            migration,
            &[
                "migrate_pages",
                "migrate_misplaced_page|migrate_misplaced_folio",
                "__handle_mm_fault",
            ],
        );
    }
}

fn trace_shows_compaction(host: &Host) {
    let _target = Target::start(host, "--on-node 0 a=anon:32M");
    let trace = Trace::start(host, "--stacks --json");
    host.write("/proc/sys/vm/compact_memory", "1");
    let traced = trace.finish();
    traced.assert_adds_up();
    for migration in traced.migrations("compaction") {
        assert_path(migration, &["migrate_pages", "compact_zone", "sysctl_compaction_handler"]);
        assert_eq!(migration["pages_of"], Value::Null, "nobody can tell");
    }
    let ends = traced.lines.iter().filter(|line| line["name"] == "mm_compaction_end");
    let statuses: Vec<_> = ends.map(|line| &line["fields"]["status"]).collect();
    assert!(
        !statuses.is_empty() && statuses.iter().all(|status| status.is_string()),
        "{statuses:?}"
    );
}

fn trace_shows_mbind(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:4M");
    let trace = Trace::start(host, "--stacks --json");
    assert_eq!(target.ask("mbind a 1"), "ok");
    let traced = trace.finish();
    traced.assert_adds_up();
    let migrations = traced.migrations("mempolicy_mbind");
    for migration in &migrations {
        assert_eq!(
            (&migration["pid"], &migration["pages_of"]["pid"]),
            (&target.pid.into(), &target.pid.into())
        );
        assert_path(migration, &["migrate_pages", "do_mbind", "kernel_mbind|__x64_sys_mbind"]);
    }
    let moved: u64 = migrations.iter().map(|m| m["succeeded_pages"].as_u64().unwrap()).sum();
    assert_eq!(moved, 1024);
}

fn trace_of_a_target_shows_what_others_do_to_it_and_nothing_else(host: &Host) {
    let mut moved = Target::start(host, "--name moved --on-node 0 a=anon:1M");
    let mut other = Target::start(host, "--name other --on-node 0 a=anon:1M");
    for target in [moved.pid(), "moved".to_owned()] {
        let trace = Trace::start(host, &format!("{target} --json"));
        assert_eq!(other.ask("bounce a 1,0 10"), "ok");
        host.sh(&format!("pagetide move {} --to 1 --kind anon --quiet", moved.pid));
        assert_eq!(moved.ask("bounce a 0,1 10"), "ok");
        let traced = trace.finish();
        let by = |name: &str| traced.lines.iter().filter(|line| line["process"] == name).count();
        assert_eq!((by("other"), by("moved")), (0, 10), "{:?}", traced.lines);
        assert!(by("pagetide") > 0, "{:?}", traced.lines);
        assert_eq!(traced.summary["vmstat"], Value::Null, "it counts everybody's pages");
        host.sh(&format!("pagetide move {} --to 0 --kind anon --quiet", moved.pid));
    }
}

fn trace_filters_by_reason_and_refuses_one_that_the_kernel_lacks(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M b=anon:1M");
    let trace = Trace::start(host, "--reason mbind --json");
    assert_eq!(target.ask("bounce a 1 10"), "ok");
    assert_eq!(target.ask("mbind b 1"), "ok");
    let traced = trace.finish();
    assert_eq!(traced.migrations("mempolicy_mbind").len(), traced.lines.len());
    let line = refusal(&host.pagetide("trace --reason boredom"), 2);
    assert!(line.contains("`boredom`") && line.contains("numa_misplaced"), "{line}");
}

fn trace_prints_lines_and_a_table(host: &Host) {
    let mut target = Target::start(host, "--name mover --on-node 0 a=anon:1M");
    let trace = Trace::start(host, "--stacks --self");
    assert_eq!(target.ask("mbind a 1"), "ok");
    let said = trace.interrupt().stdout;
    assert!(!said.contains('\x1b'), "no colour in a pipe: {said}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // The first line of these, and the stack below it. Others may migrate too: a hint that a test with
    // balancing has left.
    let find = |is_meant: &dyn Fn(&str) -> bool| {
        let mut lines = said.lines().skip_while(|line| !is_meant(line));
        (words(lines.next().unwrap()), lines.next().unwrap())
    };
    let (migration, below) = find(&|line| line.contains("mempolicy mbind  "));
    assert_eq!(migration[1..3], ["mover".to_owned(), target.pid()], "{said}");
    assert_eq!(migration[3..8], ["mempolicy", "mbind", "sync", "256", "0"], "{said}");
    assert!(below.starts_with("    migrate_pages < do_mbind < "), "{said}");
    let (row, below) = find(&|line| line.starts_with("mempolicy mbind"));
    assert_eq!(row[2..6], ["mover", "1", "256", "0"], "{said}");
    assert!(below.starts_with("    migrate_pages < do_mbind < "), "{said}");
    assert!(said.contains("/proc/vmstat counted the same: "), "{said}");
    assert!(said.contains("pagetide itself: ") && said.contains("% of one CPU"), "{said}");
}

fn trace_draws_a_flame_graph(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    let trace = Trace::start(host, "--summary --flamegraph /root/flame.svg");
    assert_eq!(target.ask("mbind a 1"), "ok");
    let said = trace.interrupt().stdout;
    assert!(!said.contains("time (UTC)"), "the summary alone: {said}");
    let svg = host.sh("cat /root/flame.svg");
    assert!(svg.contains("<svg") && svg.contains("<title>do_mbind"), "{svg}");
}

fn trace_ends_with_its_target(host: &Host) {
    let target = Target::start(host, "a=anon:1M");
    let trace = Trace::start(host, &format!("{} --json", target.pid));
    target.kill();
    let ended = trace.program.wait();
    assert_eq!((ended.code, ended.stdout.lines().count()), (0, 1), "{ended:?}");
    assert_eq!(instances(host), "");
    let line = refusal(&host.pagetide("trace 4194305"), 4);
    assert!(line.contains("4194305"), "{line}");
}

fn trace_says_what_a_user_needs(host: &Host) {
    let line = refusal(&host.run(&[host.target, "as-user", "1000", "pagetide", "trace"]), 3);
    assert!(line.contains("EACCES") && line.contains("CAP_DAC_OVERRIDE"), "{line}");
}

fn trace_says_how_to_mount_tracefs(host: &Host) {
    host.sh("umount /sys/kernel/tracing");
    let output = host.pagetide("trace --duration 1s");
    host.sh("mount -t tracefs tracefs /sys/kernel/tracing");
    let line = refusal(&output, 2);
    assert!(line.contains("mount -t tracefs tracefs /sys/kernel/tracing"), "{line}");
}

fn trace_that_was_killed_leaves_nothing_behind_the_next(host: &Host) {
    let trace = Trace::start(host, "--json");
    trace.program.signal(SIGKILL);
    trace.program.wait();
    let left = instances(host);
    assert!(left.starts_with("pagetide-"), "{left}");
    host.sh(&format!("mkdir {INSTANCES}/somebody"));
    let output = host.pagetide("trace --duration 100ms --json");
    let remaining = instances(host);
    host.sh(&format!("rmdir {INSTANCES}/somebody"));
    assert_eq!((output.code, remaining.trim()), (0, "somebody"), "{output:?}");
    assert!(output.stderr_text().contains(left.trim()), "{output:?}");
}

fn trace_counts_a_storm_whole_or_says_what_it_lost(host: &Host) {
    const PAGES: u64 = 4096;
    const TIMES: u64 = 6;
    let mut pair = ["--cpu 0", "--cpu 2"]
        .map(|cpu| Target::start(host, &format!("{cpu} --on-node 0 a=anon:16M")));
    // With a reason: events that concern no migration (khugepaged's) are not switched on.
    let trace = Trace::start(host, "--reason syscall --summary --json --self");
    std::thread::scope(|scope| {
        for target in &mut pair {
            scope.spawn(|| assert_eq!(target.ask(&format!("storm a 0,1 {TIMES}")), "ok"));
        }
    });
    let traced = trace.finish();
    let number = |key: &str| traced.summary[key].as_u64().unwrap();
    let seen = traced.summary["total"]["migrations"].as_u64().unwrap();
    // Half of the pages were where the first call wants them.
    let migrations = 2 * (PAGES * TIMES - PAGES / 2);
    // A start and an end of each migration, and the calls.
    let (read, lost) = (number("read_events"), number("lost_events"));
    assert_eq!(read + lost, 2 * migrations + 2 * TIMES, "{}", traced.summary);
    assert_eq!(seen == migrations, lost == 0, "{}", traced.summary);
}

fn trace_counts_what_was_overwritten_while_it_slept(host: &Host) {
    let mut target = Target::start(host, "--cpu 0 --on-node 0 a=anon:1M");
    let trace = Trace::start(host, "--reason syscall --buffer 8KiB --json");
    trace.program.signal(SIGSTOP);
    assert_eq!(target.ask("bounce a 1,0 2000"), "ok");
    trace.program.signal(SIGCONT);
    let traced = trace.finish();
    let lost = traced.summary["lost_events"].as_u64().unwrap();
    let seen = traced.summary["total"]["migrations"].as_u64().unwrap();
    assert!(lost > 0 && seen < 2000, "{}", traced.summary);
    assert_eq!(traced.summary["read_events"].as_u64().unwrap() + lost, 3 * 2000);
    let gaps = traced.lines.iter().filter(|line| line["event"] == "lost");
    let told: u64 = gaps.map(|gap| gap["events"].as_u64().unwrap()).sum();
    assert_eq!(told, lost, "each gap says how many");
}

fn trace_shows_demotion(host: &Host) {
    let group = "/sys/fs/cgroup/demoted";
    host.sh(&format!("mkdir -p {group} && echo 1 > /sys/kernel/mm/numa/demotion_enabled"));
    host.sh(&format!("echo $$ > {group}/cgroup.procs && dd if=/dev/zero of=/dev/shm/demoted bs=1M count=24 2>/dev/null"));
    let trace = Trace::start(host, "--stacks --json");
    // Where no tier is lower there is nowhere to go: EAGAIN.
    host.run(&["sh", "-c", &format!("echo 8M > {group}/memory.reclaim")]);
    let traced = trace.finish();
    host.sh("echo 0 > /sys/kernel/mm/numa/demotion_enabled; rm /dev/shm/demoted");
    host.sh(&format!("rmdir {group}"));
    traced.assert_adds_up();
    let tiers = host.sh("ls /sys/devices/virtual/memory_tiering");
    if tiers.lines().filter(|name| name.starts_with("memory_tier")).count() < 2 {
        assert!(traced.lines.iter().all(|line| line["reason"] != "demotion"));
        return;
    }
    let migrations = traced.migrations("demotion");
    for migration in &migrations {
        assert_eq!(
            (&migration["process"], &migration["mode"]),
            (&"sh".into(), &"MIGRATE_ASYNC".into())
        );
        let path = [
            "migrate_pages",
            "demote_folio_list|shrink_folio_list",
            "shrink_node",
            "memory_reclaim",
        ];
        assert_path(migration, &path);
    }
    let moved: u64 = migrations.iter().map(|m| m["succeeded_pages"].as_u64().unwrap()).sum();
    let counters = traced.counted[0].iter().filter(|(name, _)| name.starts_with("pgdemote_"));
    assert_eq!(moved, counters.map(|(_, count)| count).sum::<u64>());
}
