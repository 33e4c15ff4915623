//! NUMA balancing and tiering in the large: the loops of `conformance::balancing` on real kernels, and
//! on the model.
//!
//! One test a kernel; each boots a guest for each machine, with a clock that counts instructions: what a
//! loop leads to does not depend on how fast this computer is. `cargo test -p pagetide-tests --test
//! balancing -- --nocapture` prints the tables of docs/balancing.md; `--features newest-kernel` adds 6.1
//! and the newest kernel of Debian. It needs `cargo build -p pagetide-cli` of the same profile before it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use conformance::balancing::{LOOPS, Loop, Row, Seen, compare};
use lab::{Accel, Guest, GuestConfig, Image, KernelStore};
use model::KernelVersion;

/// Far above what the loops of a machine take.
const TIME_LIMIT: Duration = Duration::from_secs(1200);
const TARGET: &str = env!("CARGO_BIN_EXE_pagetide-target");

#[test]
fn the_model_balances_as_linux_6_12_does() {
    hold_against("6.12", KernelVersion::V6_12);
}

#[cfg(feature = "newest-kernel")]
#[test]
fn the_model_balances_as_linux_6_1_does() {
    hold_against("6.1", KernelVersion::V6_1);
}

#[cfg(feature = "newest-kernel")]
#[test]
fn the_model_balances_as_the_newest_linux_does() {
    hold_against("newest", KernelVersion::V7_3);
}

/// Plays every loop on both, each machine's beside the other's, and fails after all of them when a number
/// is out of its bound.
fn hold_against(kernel: &str, version: KernelVersion) {
    let machines: BTreeSet<&str> = LOOPS.iter().map(|wanted| wanted.machine).collect();
    let differing: Vec<String> = thread::scope(|scope| {
        let play = |machine| scope.spawn(move || differing_on(machine, kernel, version));
        let playing: Vec<_> = machines.into_iter().map(play).collect();
        playing.into_iter().flat_map(|machine| machine.join().unwrap()).collect()
    });
    assert!(differing.is_empty(), "kernel {kernel}, then model: {differing:#?}");
}

fn differing_on(machine: &str, kernel: &str, version: KernelVersion) -> Vec<String> {
    let guest = boot(machine, kernel);
    let mut differing = Vec::new();
    for wanted in LOOPS.iter().filter(|wanted| wanted.machine == machine) {
        let rows = compare(wanted, &on_kernel(&guest, wanted), &on_model(wanted, version));
        print(kernel, wanted, &rows);
        let bad = rows.into_iter().filter(|row| !row.holds());
        differing.extend(bad.map(|row| format!("{}: {row}", wanted.name)));
    }
    differing
}

/// Two CPUs are enough, and are brought up one after the other: under such a clock 6.1 hangs when it
/// brings all up while it boots.
fn boot(machine: &str, kernel: &str) -> Guest {
    let store = KernelStore::of_this_user().unwrap();
    let kernel = store.get(&kernel.parse().unwrap(), &mut |_| ()).unwrap();
    let pagetide = Path::new(TARGET).with_file_name("pagetide");
    assert!(pagetide.is_file(), "run `cargo build -p pagetide-cli` first");
    let mut image = Image::new(&pagetide).unwrap();
    for (number, module) in kernel.modules.iter().enumerate() {
        image.add_module(number, module).unwrap();
    }
    image.add(TARGET.as_ref()).unwrap();
    let config = GuestConfig {
        topology: machine::load(machine).unwrap(),
        kernel,
        image,
        accel: Accel::TcgIcount,
        time_limit: TIME_LIMIT,
        extra_cmdline: "maxcpus=1".to_owned(),
    };
    let guest = Guest::boot(&config).unwrap_or_else(|error| panic!("{error}"));
    sh(&guest, "echo 1 > /sys/devices/system/cpu/cpu2/online");
    sh(&guest, "echo 0 > /proc/sys/kernel/numa_balancing");
    sh(&guest, "mount -t debugfs none /sys/kernel/debug || [ -d /sys/kernel/debug/sched ]");
    sh(&guest, "mount -t tracefs none /sys/kernel/tracing || [ -d /sys/kernel/tracing/events ]");
    guest
}

fn sh(guest: &Guest, line: &str) -> String {
    let output = guest.run(["sh", "-c", line]).unwrap();
    assert_eq!(output.code, 0, "{line}: {}", output.stderr_text());
    output.stdout_text().into_owned()
}

fn on_kernel(guest: &Guest, wanted: &Loop) -> Seen {
    for (file, value) in wanted.switches() {
        sh(guest, &format!("echo {value} > {file}"));
    }
    let words = [TARGET.to_owned()].into_iter().chain(wanted.words());
    let output = guest.run(words).unwrap();
    assert_eq!(output.code, 0, "{}: {}", wanted.name, output.stderr_text());
    Seen::parse(&output.stdout_text()).unwrap()
}

fn on_model(wanted: &Loop, version: KernelVersion) -> Seen {
    wanted.play(version, |machine| machine.check().unwrap()).unwrap()
}

fn print(kernel: &str, wanted: &Loop, rows: &[Row]) {
    let mut text = format!("\n{} ({}) | {kernel} | model\n", wanted.name, wanted.shows);
    for row in rows {
        text += &format!("{row}\n");
    }
    // Nobody is left to be told when stderr is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
