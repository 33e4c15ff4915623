//! `pagetide run` on the kernels of guests. Which of a program's pages are there, and what they are, older
//! kernels say in other ways than ours (`PAGEMAP_SCAN` came with 6.7), and callers wake up in others.

use crate::host::Host;

on_each_kernel! {
    two_socket {
        what_a_program_is_answered_is_the_same_whatever_kernel_it_really_runs_on
        files_of_the_machine_are_shown_by_each_way_on_each_kernel
    }
}

/// What the subject plays, and says.
const SCRIPTS: [(&str, &[&str]); 12] = [
    ("map a 3; write a 0 1; read a 1 2; where a", &["a: 0*1 errno-14*1 -*1"]),
    ("map a 20; read a 0 20; write a 5 9; where a", &["a: errno-14*5 0*4 errno-14*11"]),
    ("map a 20; read a 0 20; thread run-on 2, write a 0 20, where a", &["ok", "a: 1*20"]),
    ("map a 20; write a 0 10; thread run-on 2, write a 10 20, where a", &["ok", "a: 0*10 1*10"]),
    (
        "map a 4; write a 0 4; move a 1; where a; drop a; write a 0 4; where a",
        &["0: 1*4", "a: 1*4", "a: 0*4"],
    ),
    ("map a 2; write a 0 2; bind a bind 1 move; where a", &["ok", "a: 1*2"]),
    // Pages that are still shared with the parent are no zero pages.
    (
        "map a 2; set bind 1; write a 0 2; child policy, where a; policy",
        &["ok", "bind 1", "a: 1*2", "bind 1"],
    ),
    (
        "map a 4; write a 0 4; child set bind 1, write a 0 2, where a; where a",
        &["ok", "a: 1*2 0*2", "a: 0*4"],
    ),
    ("map a 4; write a 0 2; read a 2 3; child where a", &["a: 0*2 errno-14*1 -*1"]),
    ("map a 2; write a 0 2; child move a 1; move a 1", &["0: errno-13*2", "0: 1*2"]),
    ("set bind 1; exec policy, map a 2, write a 0 2, where a", &["ok", "bind 1", "a: 1*2"]),
    (
        "map a 1024 huge; set bind 1; write a 0 1; set bind 0; write a 512 513; where a",
        &["ok", "ok", "a: 1*512 0*512"],
    ),
];

fn what_a_program_is_answered_is_the_same_whatever_kernel_it_really_runs_on(host: &Host) {
    for (script, expected) in SCRIPTS {
        let words = ["pagetide", "run", "--machine", "two-socket", "--", host.subject, script];
        let output = host.run(&words);
        let said = output.stdout_text();
        let told = output.stderr_text();
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{script}: {told}");
        assert_eq!((output.code, told.as_ref()), (0, ""), "{script}");
    }
}

fn files_of_the_machine_are_shown_by_each_way_on_each_kernel(host: &Host) {
    for way in ["mounts", "injected"] {
        let script = "numactl --membind=3 grep -c bind:3 /proc/self/numa_maps; \
                      numactl -H | head -1; nproc; grep -c ^cpu[0-9] /proc/stat; \
                      sleep 100 & migratepages $! 0 2 && grep -c N2= /proc/$!/numa_maps; kill $!";
        let words = ["pagetide", "run", "--machine", "four-socket", "--files", way, "--"];
        let output = host.run(&[&words[..], &["sh", "-c", script]].concat());
        let said = output.stdout_text();
        let lines: Vec<&str> = said.lines().collect();
        let is_some = |line: &str| line.parse::<u32>().is_ok_and(|count| count > 0);
        assert_eq!(lines.len(), 5, "{way}: {output:?}");
        assert!(is_some(lines[0]) && is_some(lines[4]), "{way}: {output:?}");
        assert_eq!(lines[1..4], ["available: 4 nodes (0-3)", "4", "4"], "{way}: {output:?}");
    }
}
