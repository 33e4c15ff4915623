//! The files that describe NUMA: unmodified programs find the nodes and CPUs of the machine, as root
//! and as an ordinary user, by mounts and by injected descriptors.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::python::CALLS;
use super::{pagetide, run, subject, text};

pub(super) const WAYS: [&str; 2] = ["mounts", "injected"];

fn say(way: &str, machine: &str, words: &[&str]) -> String {
    let all = [&["--files", way, "--machine", machine, "--"], words].concat();
    let output = run(&all);
    assert!(output.status.success(), "{words:?} by {way}: {output:?}");
    text(&output.stdout)
}

/// The lines of `numactl --hardware`, without sizes.
fn hardware(way: &str, machine: &str) -> Vec<String> {
    let said = say(way, machine, &["numactl", "--hardware"]);
    let lines = said.lines().filter(|line| !line.contains(" size: ") && !line.contains(" free: "));
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn numactl_prints_the_nodes_and_distances_of_the_machine() {
    for way in WAYS {
        let lines = hardware(way, "two-socket");
        let expected = [
            "available: 2 nodes (0-1)",
            "node 0 cpus: 0 1",
            "node 1 cpus: 2 3",
            "node distances:",
            "node   0   1",
            "  0:  10  21",
            "  1:  21  10",
        ];
        assert_eq!(lines, expected, "by {way}");
    }
}

#[test]
fn numactl_finds_four_sockets_and_a_memory_only_node() {
    for way in WAYS {
        let four = hardware(way, "four-socket");
        assert_eq!(four[0], "available: 4 nodes (0-3)", "by {way}");
        assert_eq!(four[4], "node 3 cpus: 3", "by {way}");
        let cxl = hardware(way, "dram-cxl");
        assert_eq!(cxl[3], "node 2 cpus:", "by {way}");
        assert_eq!(cxl.last().unwrap(), "  2:  24  34  10", "by {way}");
    }
}

#[test]
fn numactl_shows_the_policy_and_the_cpus_that_it_set() {
    for way in WAYS {
        let words = ["numactl", "--cpunodebind=1", "--interleave=0,1", "numactl", "--show"];
        let said = say(way, "two-socket", &words);
        for line in ["policy: interleave", "physcpubind: 2 3", "cpubind: 1", "membind: 0 1"] {
            assert!(said.lines().any(|said| said.trim_end() == line), "{line} by {way}: {said}");
        }
    }
}

#[test]
fn numastat_counts_the_stack_of_a_program_where_it_was_bound() {
    for way in WAYS {
        // The stack is the shell's own; pages of files may lie where numactl had them.
        let script = "numastat -p $$ | grep ^Stack";
        let words = ["numactl", "--membind=1", "sh", "-c", script];
        let said = say(way, "two-socket", &words);
        let fields: Vec<f64> = said.split_whitespace().skip(1).flat_map(str::parse).collect();
        assert_eq!(fields.len(), 3, "by {way}: {said}");
        assert!(fields[1] > fields[0], "by {way}: {said}");
    }
}

#[test]
fn a_file_that_changes_is_fresh_at_each_open() {
    for way in WAYS {
        let script = "f=/sys/devices/system/node/node1/meminfo; g=/proc/self/status; \
                      a=$(cat $f); b=$(numactl --membind=1 sh -c \"cat $f\"); \
                      test \"$a\" != \"$b\" && taskset -c 3 grep Cpus_allowed_list $g && \
                      grep Cpus_allowed_list $g";
        let said = say(way, "two-socket", &["sh", "-c", script]);
        let expected = "Cpus_allowed_list:\t3\nCpus_allowed_list:\t0-3\n";
        assert_eq!(said, expected, "by {way}");
    }
}

#[test]
fn lscpu_and_hwloc_find_the_sockets() {
    for way in WAYS {
        let said = say(way, "four-socket", &["lscpu", "-p=CPU,SOCKET,NODE"]);
        let cpus: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(cpus, ["0,0,0", "1,1,1", "2,2,2", "3,3,3"], "by {way}");
        assert_eq!(say(way, "four-socket", &["nproc"]), "4\n", "by {way}");
    }
    let words = ["lstopo-no-graphics", "--of", "console", "--only", "numanode", "--no-caches"];
    let said = say("mounts", "four-socket", &words);
    assert_eq!(said.matches("NUMANode").count(), 4, "{said}");
}

#[test]
fn what_is_listed_can_be_opened_and_asked_about() {
    for way in WAYS {
        let script = "cd / && for f in /sys/devices/system/node/node1/* /sys/bus/node/devices/*; do \
                      test -e $f || echo no $f; done; \
                      ls /sys/devices/system/node | grep -c '^node'; \
                      readlink /sys/devices/system/node/node1/cpu2; \
                      stat -c %F /sys/devices/system/node/node1; \
                      test -e /sys/devices/system/node/node2 || echo two";
        let said = say(way, "two-socket", &["sh", "-c", script]);
        assert_eq!(said, "2\n../../cpu/cpu2\ndirectory\ntwo\n", "by {way}");
    }
}

#[test]
fn what_asks_of_a_descriptor_and_realpath_make_no_calls_of_ours_where_files_are_injected() {
    let script = "import ctypes, os\n\
                  room = ctypes.create_string_buffer(4096)\n\
                  for _ in range(1000): ctypes.CDLL(None).realpath(b'/usr/bin/env', room); os.fstat(1)\n\
                  for _ in range(3000): os.stat('/usr'); os.readlink('/proc/self/exe')";
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("run.json");
    let options = ["--files", "injected", "--report", report.to_str().unwrap(), "--"];
    let output = run(&[&options[..], &["/usr/bin/python3", "-c", script]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    // Of each of the last two kinds as many as were made, and those of python itself.
    let named = report["calls"]["others"]["calls"].as_u64().unwrap();
    assert!((6000..7000).contains(&named), "{}", report["calls"]);
}

/// As user nobody, from a copy of the binary that everybody may read; `$P` is that copy.
pub(super) fn as_nobody(words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("pagetide");
    std::fs::copy(pagetide(), &binary).unwrap();
    let opened = Command::new("chmod").args(["755"]).arg(folder.path()).status().unwrap();
    assert!(opened.success());
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "setpriv"]).args(user).arg(&binary).arg("run");
    command.args(words).env("P", &binary).current_dir("/").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn an_ordinary_user_sees_the_same_and_stays_itself() {
    if !is_root() {
        return; // The other tests have shown it already.
    }
    for way in WAYS {
        let script =
            "id -u; numactl --hardware | head -1; grep Mems_allowed_list /proc/self/status";
        let output = as_nobody(&["--files", way, "--", "sh", "-c", script]);
        let expected = "65534\navailable: 2 nodes (0-1)\nMems_allowed_list:\t0-1\n";
        assert_eq!(text(&output.stdout), expected, "by {way}: {output:?}");
    }
}

pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    })
}

#[test]
fn nothing_is_left_mounted_or_running() {
    let before = std::fs::read_to_string("/proc/self/mounts").unwrap();
    say("mounts", "two-socket", &["sh", "-c", "for i in 1 2 3; do cat /proc/self/status; done"]);
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), before);
}

#[test]
fn a_zombie_is_shown_as_one_where_it_may_run_and_without_mappings() {
    let number = tempfile::NamedTempFile::new().unwrap();
    // Its parent becomes a program that waits for nobody.
    let script = format!(
        "(sh -c 'echo $$ >$0; exec {} \"run-on 2-3; die 9\"' $0 & exec sleep 60) & S=$!; \
         until [ -s $0 ]; do :; done; P=/proc/$(cat $0); \
         until grep -q 'State:.Z' $P/status; do :; done; \
         grep -E 'Cpus_allowed_list|VmRSS' $P/status; cat $P/numa_maps; kill $S",
        subject()
    );
    let words = ["--machine", "two-socket", "--", "sh", "-c", &script];
    let output = run(&[&words[..], &[number.path().to_str().unwrap()]].concat());
    assert_eq!(text(&output.stdout), "ok\nCpus_allowed_list:\t2-3\n", "{output:?}");
}

#[test]
fn each_mapping_has_a_line_of_numa_maps() {
    for way in WAYS {
        let script = "cat /proc/$$/maps; echo; cat /proc/$$/numa_maps";
        let said = say(way, "two-socket", &["sh", "-c", script]);
        let (maps, numa_maps) = said.split_once("\n\n").unwrap();
        // The kernel itself knows nothing of this one.
        let maps = maps.lines().filter(|line| !line.ends_with("[vsyscall]"));
        let mapped: Vec<&str> = maps.filter_map(|line| line.split('-').next()).collect();
        let shown: Vec<&str> = numa_maps.lines().filter_map(|it| it.split(' ').next()).collect();
        assert_eq!(shown, mapped, "by {way}: {said}");
    }
}

#[test]
fn numa_maps_has_the_names_that_files_have_now() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    let script = format!(
        r"
import os
def map_file(name):
    descriptor = os.open(f'{folder}/{{name}}', os.O_CREAT | os.O_RDWR)
    os.ftruncate(descriptor, 4096)
    at = call(9, 0, 4096, 3, 1, descriptor, 0)
    touch(at)
    return at
def show(at):
    assert node_of(at) == 0
    lines = [line.split() for line in open('/proc/self/numa_maps')]
    print(*[line[2] for line in lines if int(line[0], 16) == at])
def path(name):
    return f'{folder}/{{name}}'
at = map_file('x=[heap]'); show(at)
os.rename(path('x=[heap]'), path('a b')); show(at)
os.link(path('a b'), path('c')); other = map_file('c'); show(other); show(at)
os.unlink(path('a b')); show(at); show(other)
os.unlink(path('c'))"
    );
    let names = [r"x\075[heap]", r"a\040b", "c", r"a\040b", r"a\040b\040(deleted)", "c"];
    let expected: String = names.map(|name| format!("file={folder}/{name}\n")).concat();
    for way in WAYS {
        let script = [CALLS, &script].concat();
        let said = say(way, "two-socket", &["/usr/bin/python3", "-c", &script]);
        assert_eq!(said, expected, "by {way}");
    }
}

#[test]
fn a_program_starts_in_its_folder_also_where_no_path_leads_or_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("pagetide");
    std::fs::copy(pagetide(), &binary).unwrap();
    let script = "chmod 755 . && mkdir -p w/in && cd w/in && pwd && chmod $0 . && chmod 0 .. && \"$@\"; \
                  chmod 755 ..";
    let in_closed = |mode: &str| {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", "sh", "-c", script, mode]);
        if is_root() {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(&binary).args(["run", "--files", "mounts", "--", "/bin/pwd"]);
        let output = command.current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stdout);
        let [before, inside] = said.lines().collect::<Vec<_>>()[..] else { panic!("{output:?}") };
        (before == inside, text(&output.stderr))
    };
    assert_eq!(in_closed("755"), (true, String::new()));
    if is_root() {
        let (is_there, said) = in_closed("700");
        assert!(!is_there && said.contains("starts in /") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn folders_and_files_are_open_to_everybody_whatever_the_umask() {
    let node = "/sys/devices/system/node";
    for way in WAYS {
        let output = Command::new("timeout")
            .args(["--kill-after=5", "120", "sh", "-c", "umask 077; exec \"$@\"", "sh"])
            .arg(pagetide())
            .args(["run", "--files", way, "--", "stat", "-c", "%a", node])
            .args(["node1", "node1/meminfo", "node1/cpulist"].map(|it| format!("{node}/{it}")))
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "755\n755\n444\n444\n", "by {way}: {output:?}");
    }
}

#[test]
fn who_mounts_a_proc_of_its_own_is_told_what_it_shows_and_sees_the_machine_with_injected_files() {
    let words = ["unshare", "-Urpf", "--mount-proc", "grep", "-c", "^cpu[0-9]", "/proc/stat"];
    let run = |way| run(&[&["--machine", "snc-4", "--files", way, "--"], &words[..]].concat());
    let told = "mounts a /proc of its own: it shows this computer";
    let (covered, injected) = (run("mounts"), run("injected"));
    assert!(text(&covered.stderr).contains(told), "{covered:?}");
    assert_eq!(text(&injected.stdout), "4\n", "{injected:?}");
    assert_eq!(text(&injected.stderr), "");
}
