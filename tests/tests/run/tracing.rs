//! `pagetide trace` inside of a run: what the model migrates, told as the kernel's events are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use super::files::{WAYS, as_nobody, is_root};
use super::{pagetide, run, subject, text};

/// `$P` is pagetide, `$A` the subject, `$G` the target, `$F` an empty file; `begin ARGUMENTS` traces into
/// `$F` until `end`, and `shown` waits until there is something.
fn script(rest: &str) -> String {
    let target = env!("CARGO_BIN_EXE_pagetide-target");
    format!(
        "P={} A={} G={target} F=$(mktemp); \
         begin() {{ : > $F; $P trace \"$@\" > $F & T=$!; }}; \
         shown() {{ until [ -s $F ]; do sleep .02; done; }}; \
         end() {{ kill -TERM $T; wait $T; cat $F; rm $F; }}; {rest}",
        pagetide().display(),
        subject()
    )
}

fn on_two_sockets(way: &str, rest: &str) -> String {
    let output = run(&["--files", way, "--", "sh", "-c", &script(rest)]);
    assert!(output.status.success(), "by {way}: {output:?}");
    text(&output.stdout)
}

/// The lines of a trace, the last of which is the summary.
fn json(rest: &str) -> Vec<serde_json::Value> {
    let said = on_two_sockets("mounts", rest);
    let lines = said.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Moves pages of an own mapping to node 1 by mbind, and back by move_pages.
const MOVES: &str = "$A 'map a 9; write a 0 9; bind a bind 1 move; move a 0' > /dev/null";

/// The number that the line with `name` has.
fn number(said: &str, name: &str) -> Vec<u64> {
    let lines = said.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.map(|number| number.parse().unwrap()).collect()
}

#[test]
fn each_migration_is_shown_with_reason_and_path_and_the_sums_are_those_of_vmstat() {
    for way in WAYS {
        let said = on_two_sockets(
            way,
            &format!(
                "V='grep ^pgmigrate_success /proc/vmstat'; {MOVES}; $V; begin --stacks; shown; \
                 sleep 60 & S=$!; migratepages $S 0 1; kill $S; {MOVES}; end; $V"
            ),
        );
        let lines: Vec<&str> = said.lines().collect();
        let below = |words: &[&str]| {
            let is_meant = |line: &&str| words.iter().all(|word| line.contains(word));
            lines
                [lines.iter().position(is_meant).unwrap_or_else(|| panic!("{words:?}: {said}")) + 1]
                .trim()
        };
        assert_eq!(
            below(&["migratepages", "syscall or cpuset", "sync", "pages of "]),
            "migrate_pages < migrate_to_node < do_migrate_pages < kernel_migrate_pages"
        );
        assert_eq!(
            below(&["numa-subject", "mempolicy mbind", "sync"]),
            "migrate_pages < do_mbind < kernel_mbind"
        );
        assert_eq!(
            below(&["numa-subject", "syscall or cpuset"]),
            "migrate_pages < move_pages_and_store_status < do_pages_move < kernel_move_pages"
        );
        let counted = number(&said, "pgmigrate_success");
        let same =
            format!("counted the same: {} pages moved, 0 pages failed", counted[1] - counted[0]);
        assert!(said.contains(&same), "by {way}: {same}: {said}");
        assert!(counted[1] > counted[0] + 2 * 9, "by {way}: migratepages has moved some: {said}");
    }
}

#[test]
fn an_ordinary_user_may_trace() {
    if !is_root() {
        return; // The other tests have shown it already.
    }
    for way in WAYS {
        // The subject may lie where others may not look.
        let moves = "sleep 60 & S=$!; migratepages $S 0 1; kill $S";
        let inside = format!(
            "F=$(mktemp); $P trace > $F & T=$!; until [ -s $F ]; do sleep .02; done; \
             {moves}; kill -TERM $T; wait $T; cat $F; rm $F"
        );
        let output = as_nobody(&["--files", way, "--", "sh", "-c", &inside]);
        let said = text(&output.stdout);
        assert!(said.contains("/proc/vmstat counted the same: "), "by {way}: {output:?}");
        assert!(!said.contains("the same: 0 pages"), "by {way}: {said}");
    }
}

#[test]
fn only_the_reason_that_was_asked_for_is_shown() {
    let lines =
        json(&format!("begin --json --reason mbind; until [ -s $F ]; do {MOVES}; done; end"));
    let (summary, events) = lines.split_last().unwrap();
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(event["reason"], "mempolicy_mbind", "{event}");
        assert_eq!(event["succeeded_pages"], 9, "{event}");
        assert_eq!(event["pages_of"]["pid"], event["pid"], "{event}");
        assert_eq!(event["pages_of"]["name"], "numa-subject", "{event}");
        assert!(event["duration_ns"].is_null() && event["stack"].is_null(), "{event}");
        assert!(event["time_ns"].as_u64().unwrap() > 1_600_000_000_000_000_000, "{event}");
    }
    assert_eq!(summary["total"]["migrations"], events.len(), "{summary}");
    assert!(summary["vmstat"].is_null(), "it counts all reasons: {summary}");
}

#[test]
fn a_target_is_shown_what_others_do_to_its_pages_and_no_more() {
    let lines = json(&format!(
        "sleep 60 & S=$!; begin --json $S; until [ -s $F ]; do {MOVES}; migratepages $S 0 1; \
         migratepages $S 1 0; done; kill $S; wait $T; cat $F; rm $F"
    ));
    let (summary, events) = lines.split_last().unwrap();
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(
            (&event["process"], &event["reason"]),
            (&"migratepages".into(), &"syscall_or_cpuset".into())
        );
        assert_ne!(event["pages_of"]["pid"], event["pid"], "{event}");
    }
    assert_eq!(summary["event"], "summary", "the trace ends with its target: {summary}");
}

#[test]
fn what_a_tracer_that_sleeps_is_not_told_is_counted_and_the_run_goes_on() {
    let lines = json(&format!(
        "begin --json --buffer 4KiB; until [ -s $F ]; do {MOVES}; done; kill -STOP $T; \
         printf 'bounce a 1,0 3000\\nexit\\n' | $G --cpu 0 --on-node 0 a=anon:1M > /dev/null; \
         kill -CONT $T; end"
    ));
    let (summary, events) = lines.split_last().unwrap();
    let number = |key: &str| summary[key].as_u64().unwrap();
    let (gaps, migrations): (Vec<_>, Vec<_>) =
        events.iter().partition(|event| event["event"] == "lost");
    let told: u64 = gaps.iter().map(|gap| gap["events"].as_u64().unwrap()).sum();
    assert!(told > 0, "{summary}");
    assert_eq!((told, migrations.len() as u64), (number("lost_events"), number("read_events")));
    // Each lost one has moved one page.
    let seen = summary["total"]["succeeded_pages"].as_u64().unwrap();
    assert_eq!(summary["vmstat"]["succeeded_pages"], seen + told, "{summary}");
}

#[test]
fn pages_that_a_call_moves_one_by_one_are_as_many_migrations() {
    let lines = json(&format!(
        "begin --json; until [ -s $F ]; do {MOVES}; done; \
         printf 'storm a 0,1 4\\nexit\\n' | $G --cpu 0 --on-node 0 a=anon:16M > /dev/null; end"
    ));
    let (summary, events) = lines.split_last().unwrap();
    let single = events.iter().filter(|event| event["process"] == "pagetide-target");
    let pages: Vec<u64> = single.map(|event| event["succeeded_pages"].as_u64().unwrap()).collect();
    // Half of the pages were where the first call wants them.
    assert_eq!((pages.len(), pages.iter().sum::<u64>()), (4096 * 4 - 2048, 4096 * 4 - 2048));
    assert_eq!(summary["vmstat"]["succeeded_pages"], summary["total"]["succeeded_pages"]);
}

#[test]
fn a_flame_graph_under_a_run_shows_pages() {
    let script = format!(
        "begin --flamegraph $F.svg; shown; {MOVES}; kill -TERM $T; wait $T; cat $F.svg; rm $F $F.svg"
    );
    let said = on_two_sockets("mounts", &script);
    assert!(said.contains("Pages in migrations") && said.contains("do_mbind (9 pages"), "{said}");
}

#[test]
fn an_earlier_picture_stays_where_nothing_is_drawn() {
    for (words, code, said) in [
        ("", 0, "there is nothing to draw"),
        ("--reason nosuch", 2, "nosuch"),
        ("--flamegraph $D/no/such.svg", 2, "cannot write "),
    ] {
        let picture = if words.contains("--flamegraph") { "" } else { "--flamegraph $D/x.svg" };
        let shown = on_two_sockets(
            "mounts",
            &format!(
                "D=$(mktemp -d); echo earlier > $D/x.svg; \
                 $P trace --duration 1ms --summary {picture} {words} 2>&1; \
                 echo status $?; cat $D/x.svg; ls -A $D; rm -r $D"
            ),
        );
        let end = format!("status {code}\nearlier\nx.svg\n");
        assert!(shown.contains(said) && shown.ends_with(&end), "{words}: {shown}");
    }
}

#[test]
fn a_tracer_whose_starter_ignores_the_hangup_goes_on_after_it() {
    let said = on_two_sockets(
        "mounts",
        "trap '' HUP; begin; shown; grep SigIgn /proc/$T/status; kill -HUP $T; \
         sleep 60 & S=$!; migratepages $S 0 1; kill -KILL $S; end",
    );
    // Of a command in the background a shell of scripts has SIGINT ignored, too.
    let ignored = said.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & 0b11, 0b11, "{said}");
    assert!(said.contains("migratepages  "), "{said}");
}

#[test]
fn a_tracer_that_is_killed_is_missed_by_nobody() {
    let said = on_two_sockets(
        "mounts",
        &format!("begin; shown; kill -KILL $T; {MOVES}; begin; shown; {MOVES}; end"),
    );
    let last = said.lines().last().unwrap();
    assert_eq!(last, "/proc/vmstat counted the same: 18 pages moved, 0 pages failed", "{said}");
}

/// What tracing says outside, when it is told the name of a run's socket.
fn trace_from_outside(name: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(pagetide()).args(["trace", "--duration", "1s"]);
    command.env("PAGETIDE_RUN_EVENTS", name).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn events_are_told_to_processes_of_the_run_alone() {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(pagetide()).args(["run", "--", "sh", "-c"]);
    command.arg("echo $PAGETIDE_RUN_EVENTS; read go");
    let mut run = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut name = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut name).unwrap();
    let refused = trace_from_outside(name.trim());
    run.stdin.take().unwrap().write_all(b"\n").unwrap();
    run.wait().unwrap();
    let ended = trace_from_outside(name.trim());
    for output in [refused, ended] {
        let said = text(&output.stderr);
        assert_eq!((output.status.success(), said.lines().count()), (false, 1), "{output:?}");
        assert!(said.contains("supervisor does not answer"), "{said}");
    }
}

#[test]
fn whose_pages_moved_is_told_of_pids_of_a_pid_namespace_too() {
    let inside = "sleep 60 & while ! migratepages $! 0 1; do sleep .1; done; kill $!";
    let said =
        on_two_sockets("mounts", &format!("begin; unshare -Urpf sh -c '{inside}'; shown; end"));
    assert!(said.contains("pages of sleep "), "{said}");
}
