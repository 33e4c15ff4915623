//! The lab as any machine: eight nodes of uneven sizes, nodes without CPUs, distances of both ways;
//! and a guest that serves many runs, and is as it was after each.

use lab::{Command, Guest};
use machine::{Bytes, Node, NodeId, Topology};

use crate::host::boot;

/// Eight nodes, each 32 MiB larger than the one before; four CPUs on the first four. The distance
/// from i to j is not that from j to i.
fn eight_nodes() -> Topology {
    let node = |id: u16| Node {
        id: NodeId::new(id).unwrap(),
        cpus: if id < 4 { id.to_string().parse().unwrap() } else { machine::CpuSet::default() },
        memory: Bytes::new((if id == 0 { 512 } else { 64 + 32 * u64::from(id) }) << 20),
        free: None,
        tier: None,
        latency_ns: None,
        bandwidth_per_s: None,
    };
    let row = |from: u8| {
        (0..8).map(|to| if from == to { 10 } else { 20 + 8 * from + to }).collect::<Vec<u8>>()
    };
    Topology::new("eight", (0..8).map(node).collect(), Some((0..8).map(row).collect())).unwrap()
}

fn sh(guest: &Guest, line: &str) -> String {
    let output = guest.run(["sh", "-c", line]).unwrap();
    assert_eq!(output.code, 0, "{line}: {}", output.stderr_text());
    output.stdout_text().trim().to_owned()
}

#[test]
fn a_guest_is_the_machine_of_eight_uneven_nodes_and_is_reset_between_runs() {
    let topology = eight_nodes();
    // With KASLR the kernel's image lies on a node that is drawn at each boot, and may take a good part of
    // a small one.
    let guest = boot(topology.clone(), "6.12", &[], "nokaslr");
    the_guest_has_the_nodes_of_the_machine(&guest, &topology);
    what_a_run_left_is_gone_after_a_reset(&guest);
    a_reset_puts_pools_and_settings_back(&guest);
    guest.power_off().unwrap();
}

fn the_guest_has_the_nodes_of_the_machine(guest: &Guest, topology: &Topology) {
    let sys = "/sys/devices/system/node";
    assert_eq!(sh(guest, &format!("cat {sys}/has_memory {sys}/has_cpu")), "0-7\n0-3");
    for node in topology.nodes() {
        let read = |file: &str| sh(guest, &format!("cat {sys}/node{}/{file}", node.id));
        let distances: Vec<String> = topology
            .nodes()
            .iter()
            .map(|other| topology.distance(node.id, other.id).unwrap().to_string())
            .collect();
        assert_eq!(read("distance"), distances.join(" "), "node {}", node.id);
        assert_eq!(read("cpulist"), node.cpus.to_string(), "node {}", node.id);
        let total = read("meminfo");
        let kib = total.lines().find(|line| line.contains("MemTotal")).unwrap();
        let kib: u64 = kib.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
        let expected = node.memory.get() >> 10;
        assert!((expected * 2 / 3..=expected).contains(&kib), "node {}: {kib} KiB", node.id);
    }
    let output = guest
        .run(["pagetide", "actor", "map a 8; fill a 01234567; mp 0 {4,5,6,7} {0,1,2,3}; where a"])
        .unwrap();
    assert!(output.stdout_text().ends_with("where a -> a:01230123\n"), "{}", output.stdout_text());
}

fn what_a_run_left_is_gone_after_a_reset(guest: &Guest) {
    let left = "mkdir /sys/fs/cgroup/left /tmp/left && mount -t tmpfs left /tmp/left && \
                (setsid sleep 1000 & echo $! > /sys/fs/cgroup/left/cgroup.procs)";
    sh(guest, left);
    let running = guest.start(Command::new(["sleep", "1000"])).unwrap();
    guest.reset().unwrap();
    let code = running.wait(&mut Vec::new(), &mut Vec::new()).unwrap();
    assert_eq!(code, 137, "a run that goes on is killed");
    let after = "pidof sleep; grep -c left /proc/mounts; ls -d /sys/fs/cgroup/left; true";
    assert_eq!(sh(guest, after), "0");
}

fn a_reset_puts_pools_and_settings_back(guest: &Guest) {
    let files = [
        "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        "/proc/sys/kernel/numa_balancing",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    let read = || sh(guest, &format!("cat {}", files.join(" ")));
    let before = read();
    for (file, value) in files.iter().zip(["3", "0", "never"]) {
        sh(guest, &format!("echo {value} > {file}"));
    }
    assert_ne!(read(), before);
    guest.reset().unwrap();
    assert_eq!(read(), before);
}
