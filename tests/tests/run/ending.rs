//! How a run ends: exit codes, signals, and a supervisor that dies.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{children, is_gone_soon, pagetide, run, soon, subject, text};

fn code(words: &[&str]) -> Option<i32> {
    run(words).status.code()
}

#[test]
fn the_exit_code_is_the_programs() {
    assert_eq!(code(&["--", subject(), "exit 7"]), Some(7));
    assert_eq!(code(&["--", "true"]), Some(0));
}

#[test]
fn the_exit_code_is_the_programs_also_when_it_has_left_the_process_group() {
    assert_eq!(code(&["--", "timeout", "60", subject(), "exit 7"]), Some(7));
}

#[test]
fn a_signal_that_ends_the_program_counts_from_128_as_in_a_shell() {
    assert_eq!(code(&["--", subject(), "die 15"]), Some(143));
    assert_eq!(code(&["--", subject(), "die 9"]), Some(137));
}

#[test]
fn a_program_that_cannot_be_run_is_named_and_the_code_is_a_shells() {
    let output = run(&["--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    let said = "pagetide: cannot run no-such-program: ENOENT (no such file or directory)\n";
    assert_eq!(text(&output.stderr), said);
    assert_eq!(code(&["--", "/etc/passwd"]), Some(126));
}

#[test]
fn a_machine_that_the_model_has_no_room_for_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.toml");
    let node =
        |cpus: &str, memory: &str| format!("[[node]]\ncpus = \"{cpus}\"\nmemory = \"{memory}\"\n");
    let many: String = (0..64).map(|cpu| node(&cpu.to_string(), "64MiB")).collect();
    let takes = "in whole pages of 2 MiB, and the model takes 64.0 MiB up to 16.0 TiB";
    for (nodes, said) in [
        (many, "has 64 nodes, and the model has room for 32".to_owned()),
        (node("0", "512TiB"), format!("has 512 TiB {takes}")),
        (node("0", "1MiB"), format!("has 0 B {takes}")),
    ] {
        fs::write(&path, format!("name = \"odd\"\n{nodes}")).unwrap();
        let output = run(&["--machine", path.to_str().unwrap(), "--", "true"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(text(&output.stderr), format!("pagetide: the machine odd {said}\n"));
    }
}

#[test]
fn a_run_inside_a_run_is_told_why_it_cannot_be() {
    let inner = pagetide();
    let output = run(&["--", inner.to_str().unwrap(), "run", "--", "true"]);
    let said = text(&output.stderr);
    assert!(said.contains("another supervisor") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_signal_to_the_supervisor_reaches_the_program() {
    let script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut running = Command::new(pagetide())
        .args(["run", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let killed = Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(running.wait().unwrap().code(), Some(5));
}

#[test]
fn a_supervisor_that_is_killed_takes_the_program_with_it() {
    let mut running = Command::new(pagetide())
        .args(["run", "--", "sh", "-c", "echo ready; while :; do sleep 0.1; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    running.kill().unwrap();
    running.wait().unwrap();
    // The pipe ends when the last process that could write to it is gone.
    assert!(lines.next().is_none());
}

#[test]
fn a_supervisor_that_is_killed_leaves_no_folder_of_injected_files() {
    let script = "exec 3< /sys/devices/system/node/online; readlink /proc/self/fd/3; sleep 60";
    let mut run = Command::new(pagetide())
        .args(["run", "--files", "injected", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(run.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let folder = &line[..line.find("/sys/").unwrap()];
    assert!(folder.contains("/pagetide-run-") && fs::exists(folder).unwrap(), "{folder}");
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(soon(|| (!fs::exists(folder).unwrap()).then_some(())).is_some(), "{folder} is left");
}

/// A run in which a process with a group of its own waits for a line.
struct Waiting {
    run: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Of the supervisor: the program, and helpers of the run.
    children: Vec<u32>,
}

impl Waiting {
    /// What it does is in the end `then`, in a shell; it is killed after a minute, for a process that
    /// hangs is a failure.
    fn start(then: &str) -> Self {
        let script = format!(
            "exec 3<&0; timeout --kill-after=1 60 sh -c 'echo ready; {}' <&3 & wait",
            then.replace('\'', r"'\''")
        );
        let mut run = Command::new(pagetide())
            .args(["run", "--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = run.stdin.take().unwrap();
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let children = children(run.id());
        Self { run, stdin, lines, children }
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// The one that is to stay when the supervisor dies.
    fn keeper(&self) -> u32 {
        soon(|| self.children.iter().copied().find(|&pid| name(pid) == "run-keeper")).unwrap()
    }

    /// Fails unless the pipe ends, when the last process that could write to it is gone, and the
    /// helpers are gone too.
    fn said_and_left_nothing(&mut self) -> Vec<String> {
        let said = (&mut self.lines).map(Result::unwrap).collect();
        for &pid in &self.children {
            assert!(is_gone_soon(pid), "process {pid} is left");
        }
        said
    }
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned()
}

fn kill(words: &[&str]) {
    assert!(Command::new("kill").args(words).status().unwrap().success(), "{words:?}");
}

#[test]
fn processes_outside_the_group_of_a_supervisor_that_is_killed_go_on_to_their_end() {
    let script = "thread say started, wait, say on; child say child; map a 1; write a 0 1; unmap a; \
                  policy; exec say done";
    let mut waiting = Waiting::start(&format!("{} \"{script}\"; echo over", subject()));
    assert_eq!(waiting.lines.next().unwrap().unwrap(), "started");
    kill(&["-KILL", "--", &format!("-{}", waiting.run.id())]);
    waiting.run.wait().unwrap();
    waiting.go_on();
    // The thread that ends is what would try for ever; the model is gone.
    let expected = ["on", "child", "errno 38", "done", "over"];
    assert_eq!(waiting.said_and_left_nothing(), expected);
}

#[test]
fn a_call_that_the_supervisor_was_about_to_answer_when_it_was_killed_goes_on() {
    let mut waiting = Waiting::start(&format!("read line; {} \"say met\"; echo over", subject()));
    let (keeper, supervisor) = (waiting.keeper(), waiting.run.id());
    // A process that is met is shown its files by the helper, for which the supervisor waits.
    let is_helper = |&&pid: &&u32| pid != keeper && name(pid) == "pagetide";
    let helper = waiting.children.iter().find(is_helper).unwrap().to_string();
    kill(&["-STOP", &helper]);
    waiting.go_on();
    let call = || fs::read_to_string(format!("/proc/{supervisor}/syscall")).unwrap();
    let receives = format!("{} ", libc::SYS_recvfrom);
    soon(|| call().starts_with(&receives).then_some(())).expect("the helper does not answer");
    waiting.run.kill().unwrap();
    waiting.run.wait().unwrap();
    assert_eq!(waiting.said_and_left_nothing(), ["met", "over"]);
}

#[test]
fn what_waits_for_the_death_of_the_supervisor_holds_nothing_and_ends_with_the_run() {
    let mut waiting = Waiting::start("read line");
    let keeper = waiting.keeper();
    let read = |name: &str| fs::read_link(format!("/proc/{keeper}/{name}")).unwrap();
    // The listener, and the supervisor's pidfd.
    assert_eq!(fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count(), 2);
    assert_eq!(read("cwd").to_str(), Some("/"));
    let stat = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, keeper.to_string());
    waiting.go_on();
    assert_eq!(waiting.run.wait().unwrap().code(), Some(0));
    // The supervisor has waited for it.
    assert!(!fs::exists(format!("/proc/{keeper}")).unwrap());
    assert!(waiting.said_and_left_nothing().is_empty());
}

#[test]
fn an_ordinary_user_gets_the_same_answers_as_root() {
    let is_root = text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0";
    if !is_root {
        return; // Then every other test of this binary has run as one.
    }
    // Where root's own folders are closed to others, the programs lie elsewhere.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copies = [pagetide(), subject().into()].map(|program| {
        let copy = folder.path().join(program.file_name().unwrap());
        fs::copy(&program, &copy).unwrap();
        copy
    });
    assert!(Command::new("chmod").arg("755").arg(folder.path()).status().unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copies[0])
        .args(["run", "--machine", "two-socket", "--"])
        .arg(&copies[1])
        .arg("map a 4; write a 0 2; set bind 1; write a 2 4; where a; move a 0; cpu; run-on 3; cpu")
        .output()
        .unwrap();
    let lines = "ok\na: 0*2 1*2\n0: 0*4\ncpu 0 node 0, cpu 0\nok\ncpu 3 node 1, cpu 3\n";
    assert_eq!(text(&output.stdout), lines, "{output:?}");
}

/// `pagetide run` with these words as the one process of a group and a session of its own, as in a terminal.
fn in_a_session(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "setsid", "-w"]).arg(pagetide()).arg("run").args(words);
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_program_that_survives_a_signal_to_its_group_sees_the_machines_files_after_it() {
    let look = "grep s_allowed_list /proc/self/status";
    let script = format!("trap : INT; {look}; kill -INT 0; for i in 1 2 3 4 5 6; do {look}; done");
    let words = ["--files", "mounts", "--machine", "two-socket", "--", "sh", "-c", &script];
    let output = in_a_session(&words).output().unwrap();
    let expected = "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1\n".repeat(7);
    assert_eq!(text(&output.stdout), expected, "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_process_whose_files_cannot_be_shown_is_told_once() {
    let script = "for i in $(cat /proc/$PPID/task/$PPID/children); do \
                  test $i = $$ || grep -q run-keeper /proc/$i/comm || kill -KILL $i; done; \
                  for i in 1 2 3; do cat /proc/self/comm; done";
    let output = run(&["--files", "mounts", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "cat\ncat\ncat\n");
    let said = text(&output.stderr);
    assert!(said.contains("cannot show the status") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_run_does_not_wait_for_children_that_its_process_had_before_it_was_a_run() {
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!; exec \"$@\"";
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60", "sh", "-c", script, "sh"])
        .arg(pagetide())
        .args(["run", "--", subject(), "exit 7"])
        .output()
        .unwrap();
    kill(&["-KILL", text(&output.stdout).trim()]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn files_that_cannot_be_shown_by_mounts_after_all_leave_no_helper_and_no_blocked_signal() {
    let forbid = "echo 0 >/proc/sys/user/max_inotify_instances; exec \"$@\"";
    let injected = |words: &[&str]| {
        let output = Command::new("timeout")
            .args(["--kill-after=5", "60", "unshare", "-Ur", "sh", "-c", forbid, "sh"])
            .arg(pagetide())
            .args([&["run", "--machine", "four-socket", "--"], words].concat())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout)
    };
    // The program and the keeper are the supervisor's children.
    let children = "wc -w </proc/$PPID/task/$PPID/children; cat /sys/devices/system/node/online";
    assert_eq!(injected(&["sh", "-c", children]), "2\n0-3\n");
    // Not by a shell, which unblocks what it is given.
    let blocked = injected(&["grep", "SigBlk", "/proc/self/status"]);
    assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
}

#[test]
fn the_exit_code_is_the_programs_also_when_sigchld_was_ignored_and_it_is_for_the_program() {
    let ignoring = |words: &[&str]| {
        Command::new("timeout")
            .args(["--kill-after=5", "120", "env", "--ignore-signal=CHLD"])
            .arg(pagetide())
            .args([&["run", "--"], words].concat())
            .output()
            .unwrap()
    };
    assert_eq!(ignoring(&[subject(), "exit 7"]).status.code(), Some(7));
    let output = ignoring(&["grep", "SigIgn", "/proc/self/status"]);
    let said = text(&output.stdout);
    let ignored = u64::from_str_radix(said.trim().trim_start_matches("SigIgn:\t"), 16).unwrap();
    assert_eq!(ignored >> (libc::SIGCHLD - 1) & 1, 1, "{output:?}");
}
