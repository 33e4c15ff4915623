//! fork and exec: what is inherited, what is shared, and what is forgotten.

use std::process::{Command, Output, Stdio};

use super::python::python_on;
use super::{expect, pagetide, run, subject, text};

#[test]
fn a_child_has_the_policy_and_the_pages_of_its_parent() {
    let script = "map a 2; set bind 1; write a 0 2; child policy, where a; policy";
    expect("two-socket", script, &["ok", "bind 1", "a: 1*2", "bind 1"]);
}

#[test]
fn a_page_that_a_child_writes_is_copied_by_the_childs_policy_and_the_parents_stays() {
    let script = "map a 4; write a 0 4; child set bind 1, write a 0 2, where a; where a";
    expect("two-socket", script, &["ok", "a: 1*2 0*2", "a: 0*4"]);
}

#[test]
fn a_change_of_policy_after_the_fork_does_not_reach_the_child() {
    let script = "set bind 1; child child policy, set bind 0; policy";
    expect("two-socket", script, &["ok", "bind 1", "ok", "bind 1"]);
}

#[test]
fn a_new_program_keeps_the_policy_and_the_affinity() {
    let script =
        "set bind 1; run-on 3; exec policy, cpu, may-run-on, map a 2, write a 0 2, where a";
    let lines = ["ok", "ok", "bind 1", "cpu 3 node 1, cpu 3", "3", "a: 1*2"];
    expect("two-socket", script, &lines);
}

#[test]
fn numactl_binds_the_program_that_it_execs() {
    let numactl = ["numactl", "--interleave=all", subject(), "policy; cpu"];
    let output = run(&[&["--machine", "two-socket", "--"], &numactl[..]].concat());
    // Without the files of that machine numactl knows the nodes of this one only.
    assert!(text(&output.stdout).starts_with("interleave 0"), "{output:?}");
}

#[test]
fn an_exec_that_fails_leaves_everything_as_it_was() {
    let script = "map a 2; set bind 1; write a 0 2; child exec-nothing; where a";
    let output = run(&["--", subject(), script]);
    assert!(text(&output.stdout).ends_with("a: 1*2\n"), "{output:?}");
}

#[test]
fn a_shell_that_starts_hundreds_of_programs_gets_the_answer_of_each() {
    let loop_of = format!("for i in $(seq 200); do {} 'set bind 1; policy'; done", subject());
    let output = run(&["--", "sh", "-c", &loop_of]);
    assert_eq!(text(&output.stdout), "ok\nbind 1\n".repeat(200), "{}", text(&output.stderr));
}

/// Whether there is an answer for who comes after forty others that live, under such a limit.
fn answer_behind_forty(limit: &str) -> Output {
    let script = "P=; for i in $(seq 40); do sleep 100 & P=\"$P $!\"; done; \
                  for p in $P; do until grep -qs sleep /proc/$p/comm; do :; done; done; \
                  \"$1\" may-run-on; ulimit -n; kill $P";
    let script =
        format!("{limit}; exec \"$0\" run --machine four-socket -- sh -c '{script}' sh \"$1\"");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "sh", "-c", &script]).arg(pagetide()).arg(subject());
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn more_processes_are_answered_than_the_soft_limit_of_descriptors_has_room_for() {
    let output = answer_behind_forty("ulimit -Sn 96");
    // The program itself has the limit that it was started with.
    assert_eq!(text(&output.stdout), "0-3\n96\n", "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn that_a_process_cannot_be_followed_for_want_of_descriptors_is_said_once() {
    let output = answer_behind_forty("ulimit -n 96");
    let said = text(&output.stderr);
    let told = |line: &&str| line.contains("cannot be followed: EMFILE (too many open files)");
    assert_eq!(said.lines().filter(told).count(), 1, "{output:?}");
}

#[test]
fn a_child_whose_parent_has_ended_before_its_first_call_has_what_it_inherited() {
    // The C library knows nothing of the fork, and makes no call in the child.
    let script = r#"
page = map_page()
mbind(page, 1)
touch(page)
bind(1)
os.sched_setaffinity(0, {3})
parent = os.getpid()
if call(FORK):
    os._exit(0)
while os.getppid() == parent: time.sleep(0.01)
print(policy(), os.sched_getaffinity(0), node_of(page), flush=True)
os._exit(0)
"#;
    assert_eq!(python_on("two-socket", script), "(2, 2) {3} 1\n");
}

#[test]
fn an_exec_that_fails_is_seen_to_fail_by_an_orphan_that_inherited_nothing_but_its_memory() {
    let script = r#"
parent = os.getpid()
if call(FORK):
    os._exit(0)
while os.getppid() == parent: time.sleep(0.01)
page = map_page()
mbind(page, 1)
touch(page)
print(node_of(page))
try: os.execv("/nowhere", ["x"])
except OSError: print(node_of(page), flush=True)
os._exit(0)
"#;
    assert_eq!(python_on("two-socket", script), "1\n1\n");
}

#[test]
fn a_child_of_a_thread_that_has_ended_has_what_it_inherited_from_that_thread() {
    for fork in ["os.fork()", "call(FORK)"] {
        let script = r#"
def thread():
    global number, child
    bind(1)
    os.sched_setaffinity(0, {3})
    number = threading.get_native_id()
    child = FORK_IT
    if not child:
        while os.path.exists(f"/proc/{parent}/task/{number}"): time.sleep(0.01)
        print(policy(), os.sched_getaffinity(0), flush=True)
        os._exit(0)
parent = os.getpid()
running = threading.Thread(target=thread)
running.start()
running.join()
os.waitpid(child, 0)
"#;
        let said = python_on("two-socket", &script.replace("FORK_IT", fork));
        assert_eq!(said, "(2, 2) {3}\n", "{fork}");
    }
}

#[test]
fn pids_of_a_pid_namespace_made_inside_are_those_that_its_programs_mean() {
    let script = "taskset -pc 1 $$; sleep 60 & sleep 0.1; taskset -pc 2 $!; taskset -pc $!; \
                  migratepages $$ 0 1; echo $?; taskset -p 999; kill $!";
    let words = ["unshare", "-Urpf", "sh", "-c", script];
    let output = run(&[&["--machine", "two-socket", "--"], &words[..]].concat());
    let (said, refused) = (text(&output.stdout), text(&output.stderr));
    for line in
        ["pid 1's new affinity list: 1\n", "new affinity list: 2\n", "current affinity list: 2\n"]
    {
        assert!(said.contains(line), "{said}{refused}");
    }
    assert!(said.contains("\n0\n"), "migratepages: {said}{refused}");
    assert!(refused.contains("pid 999") && refused.contains("No such process"), "{said}{refused}");
}
