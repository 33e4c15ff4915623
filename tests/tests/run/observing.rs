//! `pagetide stat` on a machine that is a model.

use super::{pagetide, run, subject, text};

/// What the shell says that runs this on two sockets; `$P` is pagetide, `$A` the subject.
fn shell(script: &str) -> std::process::Output {
    let script = format!("P={} A={}; {script}", pagetide().display(), subject());
    run(&["--machine", "two-socket", "--", "sh", "-c", &script])
}

#[test]
fn stat_shows_the_machine_and_its_migrations_in_its_own_columns() {
    let output = shell("$P stat; $A 'map a 200; write a 0 200; move a 1' >&2; $P stat");
    let said = text(&output.stdout);
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    let column = |name: &str| lines[0].iter().position(|word| *word == name).unwrap();
    let firsts: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    assert_eq!(firsts, ["node", "all", "0", "1", "node", "all", "0", "1"], "{output:?}");
    let migrated = lines.iter().skip(1).step_by(4).map(|line| line[column("migrated")]);
    assert_eq!(migrated.collect::<Vec<_>>(), ["0", "200"], "{said}");
    assert_eq!([lines[3][column("hit")], lines[7][column("hit")]], ["0", "200"], "{said}");
}

#[test]
fn a_process_whose_first_thread_has_exited_is_shown_and_moved() {
    let output = shell(
        "/usr/bin/python3 -c 'import ctypes, threading
held = b\"1\" * (8 << 20)
threading.Thread(target=threading.Event().wait).start()
ctypes.CDLL(None).syscall(60, 0)' &
        until grep -q '^State:.Z' /proc/$!/status; do sleep 0.05; done
        $P move $! --to 1 --kind anon --no-record -q >&2; $P show $! --json; kill -9 $!",
    );
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = document["processes"][0]["tally"].as_array().unwrap().iter();
    let there = lines.filter(|line| line["node"] == 1 && line["kind"] == "anon");
    let pages: u64 = there.map(|line| line["pages"].as_u64().unwrap()).sum();
    assert!(pages >= 8 << 8, "{output:?}");
}
