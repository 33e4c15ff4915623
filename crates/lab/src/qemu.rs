//! QEMU's command line for a machine: pure, so that it can be read in a test.
//!
//! Rules of QEMU that the topology must meet, checked here because its own messages name its
//! options and not the user's file: CPUs and nodes are numbered from 0 without gaps, and node 0
//! has CPUs and room for the kernel. A node's memory is rounded down to 2 MiB.
//!
//! QEMU is given three open files, and nothing else that has a name: the agent's port as standard
//! input, the initramfs as standard output (nothing is written there), and as standard error the
//! log that takes the console and QEMU's complaints. See [`crate::guest`].
//!
//! Source: qemu(1), QEMU 7.2 and newer; kernel, drivers/acpi/numa/hmat.c.

use std::ffi::OsString;
use std::path::Path;

use machine::{Bytes, Node, NodeId, Topology};

use crate::kernels::Port;

/// The program, from the Debian package qemu-system-x86.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What the guest's CPUs are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// QEMU translates the guest's code: slow, and works everywhere. The guest's CPUs take turns on one
    /// thread of this computer, which is quickest where few of its own are free.
    #[default]
    Tcg,
    /// As `Tcg`, and the guest's clock counts instructions: timings repeat from run to run.
    TcgIcount,
    /// As `Tcg`, each CPU on a thread of its own. QEMU before 8.1 translates wrongly now and then what a
    /// kernel is patching meanwhile (tracepoints, sysctls with a static key): it keeps the breakpoint
    /// that stands there for a moment. Linux 6.1 hangs when it meets that again, later kernels die.
    ///
    /// Source: QEMU, deba78709ae8 "accel/tcg: Always lock pages before translation"; kernel,
    /// 8e791f7eba4c "x86/kprobes: Drop removed INT3 handling code" (6.3).
    TcgParallel,
    /// The CPU's own virtualisation. Only where a probe boot has succeeded: [`crate::kvm`].
    Kvm,
}

/// Why QEMU cannot be this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A gap in the numbers of CPUs.
    #[error("machine {machine} has no CPU {cpu}: in the lab CPUs are numbered from 0 without gaps")]
    CpuGap {
        /// The machine's name.
        machine: String,
        /// The first number that is missing.
        cpu: u32,
    },
    /// A gap in the numbers of nodes.
    #[error(
        "machine {machine} has no node {node}: in the lab nodes are numbered from 0 without gaps"
    )]
    NodeGap {
        /// The machine's name.
        machine: String,
        /// The first number that is missing.
        node: usize,
    },
    /// The first CPU boots the kernel.
    #[error("CPU 0 of machine {machine} must be on node 0: the lab boots there")]
    BootNode {
        /// The machine's name.
        machine: String,
    },
    /// Kernel and programs lie on node 0.
    #[error(
        "node 0 of machine {machine} has {memory} of memory: kernel and programs of the guest need {needed}"
    )]
    Memory {
        /// The machine's name.
        machine: String,
        /// What the node has.
        memory: Bytes,
        /// What it should have.
        needed: Bytes,
    },
    /// Memory comes in whole pages of QEMU's backends.
    #[error(
        "node {node} of machine {machine} has {memory} of memory: the lab gives memory by 2MiB, so a node needs that"
    )]
    LittleMemory {
        /// The machine's name.
        machine: String,
        /// The node.
        node: NodeId,
        /// What it has.
        memory: Bytes,
    },
}

const MIB: u64 = 1 << 20;
/// What the size of a memory backend must be a multiple of.
const BACKEND_BYTES: u64 = 2 * MIB;
/// A kernel with its tables and per-CPU areas, and some memory to run anything at all.
const KERNEL_BYTES: u64 = 160 * MIB;

/// Checks that QEMU can be this machine with `image_bytes` of files in it.
///
/// # Errors
///
/// The first rule that is broken: [`MachineError`].
pub(crate) fn check(topology: &Topology, image_bytes: u64) -> Result<(), MachineError> {
    let machine = || topology.name.clone();
    if let Some((number, _)) =
        topology.nodes().iter().enumerate().find(|(at, node)| node.id.index() != *at)
    {
        return Err(MachineError::NodeGap { machine: machine(), node: number });
    }
    if let Some((cpu, _)) = (0..).zip(topology.cpus().iter()).find(|(at, cpu)| cpu.get() != *at) {
        return Err(MachineError::CpuGap { machine: machine(), cpu });
    }
    let Some(boot) = topology.nodes().first().filter(|node| node.cpus.iter().any(|c| c.get() == 0))
    else {
        return Err(MachineError::BootNode { machine: machine() });
    };
    // The archive is in memory twice until the kernel has unpacked it.
    let needed = Bytes::new((KERNEL_BYTES + 2 * image_bytes).next_multiple_of(BACKEND_BYTES));
    if boot.memory < needed {
        return Err(MachineError::Memory { machine: machine(), memory: boot.memory, needed });
    }
    match topology.nodes().iter().find(|node| node.memory > Bytes::ZERO && memory(node) == 0) {
        Some(node) => Err(MachineError::LittleMemory {
            machine: machine(),
            node: node.id,
            memory: node.memory,
        }),
        None => Ok(()),
    }
}

/// Bytes of memory that the guest's node gets: what is whole pages of QEMU's backends. Nodes of real
/// machines have some more.
fn memory(node: &Node) -> u64 {
    node.memory.get() / BACKEND_BYTES * BACKEND_BYTES
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) accel: Accel,
    pub(crate) kernel: &'a Path,
    pub(crate) port: Port,
    /// More words for the kernel's command line.
    pub(crate) extra_cmdline: &'a str,
}

/// The arguments of QEMU for a machine that passed [`check`].
pub(crate) fn arguments(boot: &Boot<'_>) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    add(&["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"]);
    add(accelerator(boot.accel));
    add(&["-machine", if has_hmat(boot.topology) { "q35,hmat=on" } else { "q35" }]);
    for words in numa(boot.topology) {
        add(&[&words.0, &words.1]);
    }
    add(&["-initrd", "/proc/self/fd/1"]);
    add(&["-chardev", "socket,id=agent,fd=0"]);
    add(&["-chardev", "file,id=console,path=/proc/self/fd/2,append=on"]);
    add(&["-serial", "chardev:console"]);
    match boot.port {
        Port::Serial => add(&["-serial", "chardev:agent"]),
        Port::Virtio => {
            add(&["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"]);
        }
    }
    add(&["-append", &cmdline(boot)]);
    arguments.extend([OsString::from("-kernel"), boot.kernel.into()]);
    arguments
}

/// All that QEMU can translate, but for the flags by which a kernel clears and copies pages byte by
/// byte (`rep stosb`): QEMU takes a turn for each byte there, eight times as many as by words.
const TRANSLATED: &str = "max,-erms,-fsrm";

fn accelerator(accel: Accel) -> &'static [&'static str] {
    match accel {
        Accel::Tcg => &["-accel", "tcg,thread=single", "-cpu", TRANSLATED],
        Accel::TcgParallel => &["-accel", "tcg,thread=multi", "-cpu", TRANSLATED],
        Accel::TcgIcount => &["-accel", "tcg", "-cpu", TRANSLATED, "-icount", "shift=0,sleep=off"],
        Accel::Kvm => &["-accel", "kvm", "-cpu", "host"],
    }
}

/// `no_timer_check`: on a busy computer an emulated timer may tick too late for a kernel of 6.1,
/// which then panics.
fn cmdline(boot: &Boot<'_>) -> String {
    let port = format!("{}={}", agent::init::PORT_VARIABLE, boot.port.device());
    let words = ["console=ttyS0 quiet panic=-1 no_timer_check", &port, boot.extra_cmdline];
    words.join(" ").trim_end().to_owned()
}

/// Pairs of option and value for CPUs, nodes, distances and, where known, speeds.
fn numa(topology: &Topology) -> Vec<(String, String)> {
    let nodes = topology.nodes();
    let total: u64 = nodes.iter().map(memory).sum();
    let mut pairs = vec![option("-smp", cpus(topology)), option("-m", format!("{total}B"))];
    for node in nodes.iter().filter(|node| node.memory > Bytes::ZERO) {
        let (id, bytes) = (node.id, memory(node));
        pairs.push(option("-object", format!("memory-backend-ram,id=m{id},size={bytes}B")));
    }
    for node in nodes {
        pairs.push(option("-numa", node_option(topology, node)));
    }
    for (from, to) in every_pair(nodes).filter(|(from, to)| from.id != to.id) {
        let distance = distance(topology, from, to);
        pairs.push(option("-numa", format!("dist,src={},dst={},val={distance}", from.id, to.id)));
    }
    if has_hmat(topology) {
        pairs.extend(speeds(topology));
    }
    pairs
}

fn option(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

fn every_pair(nodes: &[Node]) -> impl Iterator<Item = (&Node, &Node)> {
    nodes.iter().flat_map(move |from| nodes.iter().map(move |to| (from, to)))
}

fn distance(topology: &Topology, from: &Node, to: &Node) -> u8 {
    topology.distance(from.id, to.id).unwrap_or(Topology::REMOTE_DISTANCE)
}

/// A socket for each node that has CPUs, where they are alike: the kernel complains of CPUs that
/// share a cache across nodes.
fn cpus(topology: &Topology) -> String {
    let count = topology.cpus().len();
    let per_node: Vec<usize> =
        topology.nodes().iter().map(|node| node.cpus.len()).filter(|&cpus| cpus > 0).collect();
    let alike = per_node.iter().all(|&cpus| cpus == per_node[0]);
    let sockets = if alike { per_node.len() } else { count };
    format!("{count},sockets={sockets},cores={},threads=1", count / sockets)
}

fn node_option(topology: &Topology, node: &Node) -> String {
    let mut text = format!("node,nodeid={}", node.id);
    if node.memory > Bytes::ZERO {
        text.push_str(&format!(",memdev=m{}", node.id));
    }
    for run in node.cpus.to_string().split(',').filter(|run| !run.is_empty()) {
        text.push_str(&format!(",cpus={run}"));
    }
    if has_hmat(topology) {
        text.push_str(&format!(",initiator={}", initiator(topology, node)));
    }
    text
}

/// The node whose CPUs are nearest; its own, when it has any.
fn initiator(topology: &Topology, node: &Node) -> NodeId {
    let with_cpus = topology.nodes().iter().filter(|other| !other.cpus.is_empty());
    with_cpus.min_by_key(|other| distance(topology, other, node)).map_or(node.id, |other| other.id)
}

/// The HMAT tells the kernel how fast memory is; only with it does 6.12 make tiers.
fn has_hmat(topology: &Topology) -> bool {
    let known = |node: &Node| node.latency_ns.is_some() || node.bandwidth_per_s.is_some();
    topology.nodes().iter().any(known)
}

/// Latency and bandwidth from each node with CPUs to each with memory. The machine gives those of
/// the nearest CPUs; from farther ones they are worse in proportion to the distance.
///
/// The kernel makes tiers only when it is told both of every node (`mt_perf_to_adistance`), so
/// where the machine leaves one out, the node has what the first node that tells it has.
fn speeds(topology: &Topology) -> Vec<(String, String)> {
    let nodes = topology.nodes();
    let latency = nodes.iter().find_map(|node| node.latency_ns).unwrap_or(LATENCY_NS);
    let bandwidth = nodes.iter().find_map(|node| node.bandwidth_per_s).unwrap_or(BANDWIDTH_PER_S);
    let step = bandwidth_step(topology);
    let mut pairs = Vec::new();
    let mut add = |from: &Node, to: &Node, kind: &str, value: String| {
        let (from, to) = (from.id, to.id);
        let target = format!("hmat-lb,initiator={from},target={to},hierarchy=memory");
        pairs.push(option("-numa", format!("{target},data-type=access-{kind},{kind}={value}")));
    };
    let told = |(from, to): &(&Node, &Node)| !from.cpus.is_empty() && to.memory > Bytes::ZERO;
    for (from, to) in every_pair(nodes).filter(told) {
        let near = topology.distance(initiator(topology, to), to.id);
        let near = u64::from(near.unwrap_or(Topology::LOCAL_DISTANCE));
        let far = u64::from(distance(topology, from, to));
        let latency = u64::from(to.latency_ns.unwrap_or(latency)) * far / near;
        add(from, to, "latency", latency.to_string());
        let bandwidth = to.bandwidth_per_s.unwrap_or(bandwidth).get() / far * near;
        add(from, to, "bandwidth", format!("{}M", (bandwidth / step).max(1) * step / MIB));
    }
    pairs
}

/// What every node has when the machine tells only the other of the two.
const LATENCY_NS: u32 = 100;
const BANDWIDTH_PER_S: Bytes = Bytes::new(16 << 30);

/// The ACPI table holds bandwidths as 16-bit multiples of one unit, and QEMU refuses what does not
/// fit; it also takes nothing smaller than a MiB.
fn bandwidth_step(topology: &Topology) -> u64 {
    let all = topology.nodes().iter().filter_map(|node| node.bandwidth_per_s);
    let most = all.map(Bytes::get).max().unwrap_or(BANDWIDTH_PER_S.get());
    (most >> 15).next_power_of_two().max(MIB)
}

#[cfg(test)]
mod tests {
    use machine::CpuSet;

    use super::*;

    fn node(id: u16, cpus: &str, mib: u64) -> Node {
        let cpus: CpuSet = if cpus.is_empty() { CpuSet::default() } else { cpus.parse().unwrap() };
        Node {
            id: NodeId::new(id).unwrap(),
            cpus,
            memory: Bytes::new(mib * MIB),
            free: None,
            tier: None,
            latency_ns: None,
            bandwidth_per_s: None,
        }
    }

    fn topology(nodes: Vec<Node>) -> Topology {
        Topology::new("test", nodes, None).unwrap()
    }

    fn line(topology: &Topology, accel: Accel, port: Port) -> String {
        let boot =
            Boot { topology, accel, port, kernel: Path::new("/k/vmlinuz"), extra_cmdline: "" };
        arguments(&boot).join(OsStr::new(" ")).into_string().unwrap()
    }

    use std::ffi::OsStr;

    #[test]
    fn each_node_has_its_memory_its_cpus_and_its_distances() {
        let nodes = vec![node(0, "0-1", 1024), node(1, "2-3", 512)];
        let machine = Topology::new("two", nodes, Some(vec![vec![10, 21], vec![22, 10]])).unwrap();
        let line = line(&machine, Accel::Tcg, Port::Serial);
        for words in [
            "-accel tcg,thread=single -cpu max,-erms,-fsrm",
            "-smp 4,sockets=2,cores=2,threads=1 -m 1610612736B",
            "-object memory-backend-ram,id=m0,size=1073741824B",
            "-object memory-backend-ram,id=m1,size=536870912B",
            "-numa node,nodeid=0,memdev=m0,cpus=0-1 ",
            "-numa node,nodeid=1,memdev=m1,cpus=2-3 ",
            "-numa dist,src=0,dst=1,val=21 -numa dist,src=1,dst=0,val=22",
            "-serial chardev:console -serial chardev:agent",
            "-append console=ttyS0 quiet panic=-1 no_timer_check pagetide_port=/dev/ttyS1 ",
            "-kernel /k/vmlinuz",
        ] {
            assert!(line.contains(words), "{words:?} is not in {line}");
        }
        assert!(!line.contains("hmat"), "{line}");
    }

    #[test]
    fn a_memory_only_node_has_no_cpus_and_cpus_with_gaps_are_listed_run_by_run() {
        let machine = topology(vec![node(0, "0,2", 512), node(1, "1,3", 512), node(2, "", 256)]);
        let line = line(&machine, Accel::Tcg, Port::Virtio);
        assert!(line.contains("-numa node,nodeid=0,memdev=m0,cpus=0,cpus=2 "), "{line}");
        assert!(line.contains("-numa node,nodeid=2,memdev=m2 "), "{line}");
        assert!(line.contains("-device virtserialport,chardev=agent"), "{line}");
    }

    #[test]
    fn nodes_with_unlike_numbers_of_cpus_share_no_socket() {
        let machine = topology(vec![node(0, "0-2", 512), node(1, "3", 512)]);
        assert_eq!(cpus(&machine), "4,sockets=4,cores=1,threads=1");
    }

    #[test]
    fn speeds_are_told_from_every_node_with_cpus_and_worse_from_afar() {
        let mut far = node(2, "", 256);
        (far.latency_ns, far.bandwidth_per_s) = (Some(200), Some(Bytes::new(30 << 30)));
        let rows = vec![vec![10, 20, 20], vec![20, 10, 30], vec![20, 30, 10]];
        let nodes = vec![node(0, "0", 512), node(1, "1", 512), far];
        let line =
            line(&Topology::new("cxl", nodes, Some(rows)).unwrap(), Accel::Tcg, Port::Serial);
        for words in [
            "-machine q35,hmat=on",
            "nodeid=1,memdev=m1,cpus=1,initiator=1",
            "nodeid=2,memdev=m2,initiator=0",
            "initiator=0,target=2,hierarchy=memory,data-type=access-latency,latency=200",
            "initiator=1,target=2,hierarchy=memory,data-type=access-latency,latency=300",
            "initiator=0,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth=30720M",
            "initiator=1,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth=20480M",
            // Node 0 does not tell its speed, and has that of the first that does.
            "initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=200",
            "initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=30720M",
        ] {
            assert!(line.contains(words), "{words:?} is not in {line}");
        }
    }

    #[test]
    fn bandwidths_fit_the_acpi_table_whatever_their_ratio() {
        let (mut near, mut far) = (node(0, "0", 512), node(1, "", 256));
        near.bandwidth_per_s = Some(Bytes::new(100 << 30));
        far.bandwidth_per_s = Some(Bytes::new(7 * MIB + 3));
        let machine = topology(vec![near, far]);
        let line = line(&machine, Accel::Tcg, Port::Serial);
        assert!(
            line.contains("target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=102400M")
        );
        assert!(line.contains("target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=4M"));
        assert!((100_u64 << 30) / bandwidth_step(&machine) < 1 << 16);
    }

    #[test]
    fn each_cpu_has_a_thread_of_its_own_where_they_shall_run_at_once() {
        let line = line(&topology(vec![node(0, "0", 512)]), Accel::TcgParallel, Port::Serial);
        assert!(line.contains("-accel tcg,thread=multi -cpu max,-erms,-fsrm"), "{line}");
    }

    #[test]
    fn an_instruction_counting_clock_runs_without_sleep() {
        let line = line(&topology(vec![node(0, "0", 512)]), Accel::TcgIcount, Port::Serial);
        assert!(
            line.contains("-accel tcg -cpu max,-erms,-fsrm -icount shift=0,sleep=off"),
            "{line}"
        );
    }

    #[test]
    fn what_qemu_would_refuse_is_refused_in_the_words_of_the_machine_file() {
        let refused = |nodes| check(&topology(nodes), 20 * MIB).unwrap_err().to_string();
        assert_eq!(
            refused(vec![node(0, "0-1", 512), node(2, "2-3", 512)]),
            "machine test has no node 1: in the lab nodes are numbered from 0 without gaps"
        );
        assert_eq!(
            refused(vec![node(0, "0-1", 512), node(1, "3", 512)]),
            "machine test has no CPU 2: in the lab CPUs are numbered from 0 without gaps"
        );
        assert_eq!(
            refused(vec![node(0, "1", 512), node(1, "0", 512)]),
            "CPU 0 of machine test must be on node 0: the lab boots there"
        );
        assert_eq!(
            refused(vec![node(0, "0", 64), node(1, "1", 512)]),
            "node 0 of machine test has 64.0 MiB of memory: kernel and programs of the guest need 200 MiB"
        );
        assert_eq!(
            refused(vec![node(0, "0", 512), node(1, "1", 1)]),
            "node 1 of machine test has 1.0 MiB of memory: the lab gives memory by 2MiB, so a node needs that"
        );
        assert_eq!(check(&topology(vec![node(0, "0", 512), node(1, "1", 0)]), 20 * MIB), Ok(()));
    }

    #[test]
    fn a_node_of_any_size_has_as_much_as_is_whole_pages_of_the_backends() {
        let mut real = node(0, "0", 513);
        real.memory = Bytes::new(513 * MIB + 4096);
        let machine = topology(vec![real, node(1, "1", 255)]);
        assert_eq!(check(&machine, 20 * MIB), Ok(()));
        let line = line(&machine, Accel::Tcg, Port::Serial);
        for words in ["-m 803209216B", "id=m0,size=536870912B", "id=m1,size=266338304B"] {
            assert!(line.contains(words), "{words:?} is not in {line}");
        }
    }
}
