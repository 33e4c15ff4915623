//! `pagetide show` and `explain`: a process of this computer.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::{pagetide, text};

/// A process that exits when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has exited cannot be killed; it is waited for either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process whose first thread has exited, while another holds 30 MiB.
fn without_first_thread() -> Process {
    let script = "\
import ctypes, sys, threading
ready = threading.Event()
def hold():
    held = b'\\1' * (30 << 20)
    ready.set()
    sys.stdin.read()
threading.Thread(target=hold).start()
ready.wait()
print(flush=True)
ctypes.CDLL(None).syscall(60, 0)
";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process(python.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let status = format!("/proc/{}/status", process.0.id());
    while !fs::read_to_string(&status).unwrap().contains("State:\tZ") {
        std::thread::yield_now();
    }
    process
}

#[test]
fn the_memory_of_a_process_whose_first_thread_has_exited_is_shown() {
    let process = without_first_thread();
    let pid = process.0.id().to_string();
    let output = pagetide(&["show", &pid, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = &document["processes"][0];
    assert_eq!(shown["pid"].to_string(), pid);
    let node = &shown["tally"][0]["node"];
    let pages = shown["tally"].as_array().unwrap().iter().map(|line| line["pages"].as_u64());
    assert!(pages.map(Option::unwrap).sum::<u64>() >= 30 << 8, "{shown}");
    let mappings = shown["mappings"].as_array().unwrap();
    assert!(mappings.iter().any(|mapping| mapping["policy"].is_string()), "{shown}");
    let output = pagetide(&["explain", &pid, "[heap]+0", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!([&page["state"], &page["node"]], [&"present".into(), node], "{page}");
}

#[test]
fn no_page_is_announced_where_the_kernel_maps_something_of_its_own() {
    let pid = std::process::id().to_string();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for name in ["[vvar]", "[vdso]", "[vsyscall]"] {
        let Some(line) = maps.lines().find(|line| line.ends_with(name)) else { continue };
        let output = pagetide(&["explain", &pid, line.split('-').next().unwrap()]);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(said.contains("the kernel's own"), "{name}: {said}");
        assert!(!said.contains("next access") && !said.contains("touches"), "{name}: {said}");
    }
}
