//! Many processes and threads, and deaths in the middle: nothing is kept, nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{children, is_gone_soon, on, pagetide, run, subject, text};

/// More in `./test --all`.
const PROCESSES: u64 = if cfg!(feature = "long-soak") { 10_000 } else { 1000 };
/// Much less than one page for each process.
const GROWTH_BYTES: u64 = 2 << 20;

/// What `--report` says of a run of `count` programs, one after the other.
fn report_of(count: u64) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let script = format!("i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done");
    let output = Command::new(pagetide())
        .args(["run", "--report"])
        .arg(&path)
        .args(["--", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn after_thousands_of_processes_the_supervisor_holds_what_it_held_at_the_start() {
    let [few, many] = [PROCESSES / 10, PROCESSES].map(report_of);
    assert!(many["calls"]["execve"]["calls"].as_u64().unwrap() > PROCESSES);
    for report in [&few, &many] {
        let [start, end] = [0, 1].map(|at| &report["supervisor"][at]);
        for what in ["processes", "tasks"] {
            assert_eq!(start[what], end[what], "{what}");
        }
        // The files that were shown are closed by then.
        assert!(end["descriptors"].as_u64() <= start["descriptors"].as_u64(), "{start} {end}");
    }
    assert_eq!(few["supervisor"][1]["descriptors"], many["supervisor"][1]["descriptors"]);
    let [few_bytes, many_bytes] =
        [&few, &many].map(|it| it["supervisor"][1]["resident_bytes"].as_u64().unwrap());
    assert!(many_bytes < few_bytes + GROWTH_BYTES, "{few_bytes} to {many_bytes}");
    // The report of the many is not longer than its limits allow.
    assert!(many["processes"].as_array().unwrap().len() <= 200);
    let told = many["processes"].as_array().unwrap().len() as u64;
    assert!(told + many["processes_left_out"]["processes"].as_u64().unwrap() > PROCESSES);
}

#[test]
fn two_hundred_threads_live_at_once_and_each_has_its_cpu() {
    // Each starts the next and waits for it; they take the four CPUs in turn.
    let said = on("two-socket", &format!("{}cpu", "thread ".repeat(200)));
    assert_eq!(said, "cpu 0 node 0, cpu 0\n");
}

/// A run whose program starts others without end, and where it could leave something.
struct Endless {
    run: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The program.
    pid: u32,
    temporary: tempfile::TempDir,
    mounts: BTreeSet<String>,
}

impl Endless {
    fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let script = "map a 8; write a 0 8; set bind 1; move a 1; unmap a";
        let endless = format!("echo $$; while :; do {} '{script}'; done", subject());
        let mounts = mounts();
        let mut run = Command::new(pagetide())
            .args(["run", "--", "sh", "-c", &endless])
            .env("TMPDIR", temporary.path())
            .current_dir(temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
        let pid = lines.next().unwrap().unwrap().parse().unwrap();
        // In the middle of its work.
        assert!((&mut lines).take(20).all(|line| line.is_ok()));
        Self { run, lines, pid, temporary, mounts }
    }

    fn kill(pid: u32) {
        let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Fails unless everything ends, and nothing is left.
    fn leaves_nothing(mut self, children: &[u32]) {
        // The pipe ends when the last process that could write to it is gone.
        (&mut self.lines).for_each(drop);
        for pid in children {
            assert!(is_gone_soon(*pid), "process {pid} is left");
        }
        let left: Vec<_> = fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let new: Vec<String> = mounts().difference(&self.mounts).cloned().collect();
        assert!(new.is_empty(), "{new:?}");
    }
}

/// Mounts of our own namespace over what a run covers.
fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let covers =
        |line: &&str| ["/sys/devices/", "/sys/bus/", "/proc/"].iter().any(|it| line.contains(it));
    text.lines().filter(covers).map(str::to_owned).collect()
}

#[test]
fn a_supervisor_that_is_killed_at_work_leaves_no_process_mount_or_file() {
    let mut endless = Endless::start();
    let supervisor = endless.run.id();
    let children = children(supervisor);
    assert!(children.contains(&endless.pid));
    Endless::kill(supervisor);
    endless.run.wait().unwrap();
    endless.leaves_nothing(&children);
}

#[test]
fn a_program_that_is_killed_at_work_leaves_no_process_mount_or_file() {
    let mut endless = Endless::start();
    let children = children(endless.run.id());
    Endless::kill(endless.pid);
    assert_eq!(endless.run.wait().unwrap().code(), Some(137));
    endless.leaves_nothing(&children);
}

#[test]
fn a_report_says_where_pages_were_placed_and_by_which_call_they_moved() {
    let folder = tempfile::tempdir().unwrap();
    let report = |name: &str| {
        let path = folder.path().join(name);
        let script = "map a 512; write a 0 512; set bind 1; set bind 1; move a 1; migrate 1 9";
        let output = run(&["--report", path.to_str().unwrap(), "--", subject(), script]);
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(Path::new(&path)).unwrap()
    };
    let json: Value = serde_json::from_str(&report("run.json")).unwrap();
    assert_eq!((&json["schema"], &json["exit_code"]), (&1.into(), &0.into()));
    let process = &json["processes"][0];
    assert!(process["last_bytes"]["1"].as_u64().unwrap() >= 2 << 20, "{process}");
    let moved = &json["moves"][0];
    assert_eq!((&moved["moved_pages"], &moved["stayed_pages"]), (&512.into(), &0.into()));
    assert_eq!(moved["path"][0], "kernel_move_pages");
    assert!(moved["call"].as_str().unwrap().starts_with("move_pages(0, 512, ["), "{moved}");
    assert_eq!(json["policies"][0]["call"], "set_mempolicy(MPOL_BIND, {1}, 65) = 0");
    assert_eq!(json["policies"][0]["times"], 2);
    assert_eq!(json["calls"]["migrate_pages"]["errors"]["EINVAL"], 1);

    let html = report("run.html");
    assert!(html.contains("kernel_move_pages") && html.contains("set_mempolicy(MPOL_BIND, {1}"));
    assert!(!html.contains("<script"));
}

#[test]
fn a_report_with_another_ending_is_refused_before_the_program_runs() {
    let output = run(&["--report", "run.txt", "--", subject(), "exit 7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(".html or .json"), "{output:?}");
}
