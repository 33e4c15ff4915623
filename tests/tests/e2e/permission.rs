//! Users who may not, and users who may more than they think.

use lab::Output;

use crate::host::Host;
use crate::moves::Outcome;
use crate::program::Ended;
use crate::said::refusal;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_process_of_another_user_is_refused
        a_user_moves_his_own_process_without_any_capability
        show_says_what_a_user_could_not_see
        show_of_a_cgroup_counts_the_processes_that_a_user_may_not_read
        shared_pages_need_a_capability_that_the_line_names
    }
}

/// Runs `pagetide` as a user.
fn as_user(host: &Host, words: &str) -> Output {
    let words = ["pagetide"].into_iter().chain(words.split(' '));
    host.run(&host.as_user().into_iter().chain(words).collect::<Vec<_>>())
}

fn a_process_of_another_user_is_refused(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M");
    let pid = target.pid();
    for words in ["show PID", "plan PID --to 1", "move PID --to 1"] {
        let line = refusal(&as_user(host, &words.replace("PID", &pid)), 3);
        assert!(line.contains(&pid) && line.contains("CAP_SYS_PTRACE"), "{line}");
    }
    assert_eq!(target.where_is("a"), "0*256");
}

fn a_user_moves_his_own_process_without_any_capability(host: &Host) {
    let areas = "--on-node 0 a=anon:2M t=thp:4M s=shm:1M";
    let mut target = Target::start_by(host, "as-user 1000", areas);
    let pid = target.pid();
    let output = as_user(host, &format!("move {pid} --to 1 --kind anon,shmem --json"));
    let ended = Ended {
        code: output.code,
        stdout: output.stdout_text().into_owned(),
        stderr: output.stderr_text().into_owned(),
    };
    let outcome = Outcome::of(&ended);
    assert!(outcome.moved_pages >= 512 + 1024 + 256, "{outcome:?}");
    for (area, pages) in [("a", 512), ("t", 1024), ("s", 256)] {
        assert_eq!(target.where_is(area), format!("1*{pages}"));
    }
    target.check();
    let output = as_user(host, &format!("move {pid} --undo"));
    assert!(output.code <= 1, "{output:?}");
    assert_eq!(target.where_is("a"), "0*512");
}

fn show_says_what_a_user_could_not_see(host: &Host) {
    let target = Target::start_by(host, "as-user 1000", "--on-node 0 a=anon:1M");
    let output = as_user(host, &format!("show {}", target.pid));
    let said = output.stdout_text();
    assert_eq!(output.code, 0, "{output:?}");
    let unseen = "! not seen in full: frame numbers are hidden";
    assert!(said.contains(unseen) && said.contains("CAP_SYS_ADMIN"), "{said}");
}

fn show_of_a_cgroup_counts_the_processes_that_a_user_may_not_read(host: &Host) {
    let own = Target::start_by(host, "as-user 1000", "--on-node 0 a=anon:1M");
    let other = Target::start(host, "--on-node 0 a=anon:1M");
    host.sh("mkdir -p /sys/fs/cgroup/mixed");
    for target in [&own, &other] {
        host.write("/sys/fs/cgroup/mixed/cgroup.procs", &target.pid());
    }
    let output = as_user(host, "show --cgroup /mixed --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let processes = document["processes"].as_array().unwrap();
    assert_eq!((output.code, processes.len()), (0, 1), "{document}");
    assert_eq!((&processes[0]["pid"], &document["unreadable"]), (&own.pid.into(), &1.into()));
    let output = as_user(host, "show --cgroup /mixed");
    assert!(output.stdout_text().contains("! 1 process could not be read"), "{output:?}");
    refusal(&as_user(host, "move --cgroup /mixed --to 1"), 3);

    drop(own);
    refusal(&as_user(host, "show --cgroup /mixed"), 3);
    drop(other);
    host.sh("rmdir /sys/fs/cgroup/mixed");
}

fn shared_pages_need_a_capability_that_the_line_names(host: &Host) {
    let areas = "--on-node 0 s=shm:1M,shared-with-child";
    let mut target = Target::start_by(host, "as-user 1000", areas);
    let output = as_user(host, &format!("move {} --to 1 --include-shared", target.pid));
    assert_eq!(output.code, 3, "{output:?}");
    let said = output.stdout_text() + output.stderr_text();
    assert!(said.contains("CAP_SYS_NICE"), "{said}");
    assert_eq!(target.where_is("s"), "0*256");
}
