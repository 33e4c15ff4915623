//! Unmodified programs, in a guest and under `pagetide run` on the same machine: what they print must
//! be equal, line by line, but for what [`masked`] hides.

use lab::Output;

use crate::host::{Host, Starter, emulated, host};
use crate::target::Target;

/// What is run on every machine, as lines of shell. `THEIRS` is numactl's migratepages.
const LINES: &[&str] = &[
    "numactl -H",
    "numactl --show",
    "numactl --membind=1 numactl --show",
    "numactl --membind=0,1 numactl --show",
    "numactl --interleave=all numactl --show",
    "numactl --weighted-interleave=0,1 numactl --show",
    "numactl --preferred=1 numactl --show",
    "numactl --preferred-many=0,1 numactl --show",
    "numactl --localalloc numactl --show",
    "numactl --cpunodebind=1 numactl --show",
    "numactl --physcpubind=1 numactl --show",
    "numactl --cpunodebind=1 --membind=0 numactl --show",
    "numactl --membind=2 numactl --show",
    "numactl --cpunodebind=2 numactl --show",
    "numactl --preferred=2 numactl --show",
    "numactl --membind=9 true",
    "numactl --membind=nonsense true",
    "numactl --cpunodebind=9 true",
    "numactl --preferred=0,1 true",
    "numactl --physcpubind=99 true",
    "numastat",
    "numactl --membind=1 memhog 20M",
    "/usr/bin/taskset -p $$",
    "/usr/bin/taskset -cp $$",
    "/usr/bin/taskset -c 1 sh -c '/usr/bin/taskset -p $$'",
    "/usr/bin/taskset -c 1-3 numactl --show",
    "lscpu | grep -e NUMA -e '^CPU(s)' -e On-line",
    "lscpu -p=cpu,node",
    "lstopo-no-graphics --no-io --no-caches --no-smt --of console --filter core:none --filter misc:none",
    "hwloc-bind --get",
    "hwloc-bind --membind --get",
    "hwloc-bind node:1 -- hwloc-bind --get",
    "hwloc-bind --membind node:1 -- hwloc-bind --membind --get",
    "hwloc-calc -N numanode all",
    "migspeed -p 100 0 1",
    "PYTHONHOME=/usr /usr/bin/python3 -Sc \
     'import posix; print(posix.cpu_count(), posix.sched_getaffinity(0))'",
    "PYTHONHOME=/usr /usr/bin/taskset -c 1 \
     /usr/bin/python3 -Sc 'import posix; print(posix.sched_getaffinity(0))'",
    "cat /sys/devices/system/node/online /sys/devices/system/node/has_memory \
     /sys/devices/system/node/has_cpu",
    "cat /sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/distance",
    "grep _allowed_list /proc/self/status",
];

/// Lines about a process that is there already: `PID` holds 32 MiB on node 0.
const ABOUT_A_PROCESS: &[&str] = &[
    "numastat -p PID",
    "grep 'N[0-9]=8192' /proc/PID/numa_maps",
    "THEIRS PID 0 1",
    "numastat -p PID",
    "grep 'N[0-9]=8192' /proc/PID/numa_maps",
    "THEIRS PID 1 9",
    "THEIRS 999999 0 1",
];

/// A server and stress, on two sockets only, since a guest takes long over them. What they say is too
/// much of their own: what became of them is compared.
/// The server ends by itself, so that a line that is given up leaves nothing behind.
const OUTCOMES: &[&str] = &[
    "stress-ng --numa 1 --numa-ops 1 --timeout 60 --quiet",
    "timeout 60 numactl --membind=1 redis-server --port 0 --save '' --unixsocket $HOME/redis.sock --pidfile $HOME/redis.pid \
     >redis.log 2>&1 & \
     for N in $(seq 100); do grep -q 'ready to accept' redis.log && break; sleep 0.2; done; \
     P=$(cat redis.pid); \
     cut -d ' ' -f 2 /proc/$P/numa_maps | sort -u; \
     grep anon= /proc/$P/numa_maps | grep -v file= | tr ' ' '\\n' | grep '^N' | cut -d = -f 1 \
     | sort -u; \
     grep _allowed_list /proc/$P/status; kill $P; wait",
];

#[test]
fn programs_print_on_two_sockets_what_they_print_on_a_real_kernel() {
    compare("two_socket");
}

#[test]
fn programs_print_on_four_sockets_what_they_print_on_a_real_kernel() {
    compare("four_socket");
}

#[test]
fn programs_print_on_clustered_sockets_what_they_print_on_a_real_kernel() {
    compare("snc_4");
}

#[test]
fn programs_print_beside_a_memory_only_node_what_they_print_on_a_real_kernel() {
    compare("dram_cxl");
}

fn compare(machine: &'static str) {
    let on_two_sockets = machine == "two_socket";
    let real = host(machine, "6.12");
    let real = all(&real, "/root/theirs/migratepages", on_two_sockets);
    if on_two_sockets {
        // What fails alike on both sides would agree too.
        let (line, said) = real.last().unwrap();
        let its_memory = ["bind:1", "N1", "exit code 0"].map(str::to_owned);
        assert!(its_memory.iter().all(|word| said.contains(word)), "$ {line}\n{said:?}");
    }
    let mut differences = String::new();
    for starter in Starter::ALL {
        let emulated = all(&emulated(machine, starter), "/usr/bin/migratepages", on_two_sockets);
        for ((line, real), (_, emulated)) in real.iter().zip(&emulated) {
            if real != emulated {
                let difference = difference(real, emulated);
                differences.push_str(&format!("$ {line} # {starter:?}\n{difference}"));
            }
        }
    }
    assert!(differences.is_empty(), "- is a real kernel, + is pagetide run\n{differences}");
}

/// Every line with what it printed, masked.
fn all(host: &Host, theirs: &str, on_two_sockets: bool) -> Vec<(String, Vec<String>)> {
    // In the guest a user plays, who may do no more than the least of those who start `pagetide run`.
    let (starts, becomes) =
        if host.is_emulated { (vec![], "") } else { (host.as_user().to_vec(), "as-user 1000") };
    let play = |line: &str| {
        let line = line.replace("THEIRS", theirs);
        let script = format!("cd $HOME; {line}");
        let words = [&["timeout", "120"], &*starts, &["sh", "-c", &script]].concat();
        (line.replace(theirs, "migratepages"), lines(&host.run(&words)))
    };
    let mut played: Vec<_> = LINES.iter().map(|line| play(line)).collect();
    let mut target = Target::start_by(host, becomes, "--on-node 0 a=anon:32M");
    for line in ABOUT_A_PROCESS {
        let (_, said) = play(&line.replace("PID", &target.pid()));
        let pid = target.pid();
        let said = said.iter().map(|line| line.replace(&pid, "PID")).collect();
        played.push(((*line).to_owned(), said));
    }
    target.check();
    if on_two_sockets {
        played.extend(OUTCOMES.iter().map(|line| play(line)));
    }
    played
}

/// What was printed on stdout and stderr, and the exit code.
fn lines(output: &Output) -> Vec<String> {
    let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
    let printed = stdout.lines().chain(stderr.lines()).map(masked);
    printed.chain([format!("exit code {}", output.code)]).collect()
}

/// A line without what no two computers have alike, and with one blank between its words.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let hidden: Vec<String> = match words[..] {
        // Starting a program takes pages of its own, and interleaving goes on from there.
        ["preferred", "node:", _, "(interleave", "next)"] | ["interleavenode:", _]
        // How many pages were placed since the machine started.
        | ["numa_hit" | "numa_miss" | "numa_foreign" | "interleave_hit", ..]
        | ["local_node" | "other_node", ..]
        // How fast the computer is.
        | [.., "Mbytes/second"] => words.iter().map(|word| without_number(word)).collect(),
        // The number of the process that asks about itself.
        ["pid", _, "current", "affinity", ..] => {
            let rest = words[2..].iter().map(|word| (*word).to_owned());
            ["pid".to_owned(), "#".to_owned()].into_iter().chain(rest).collect()
        }
        [address, ..] if is_address(address) => without_address(&words),
        _ => without_sizes(&words),
    };
    hidden.join(" ")
}

/// A word, or `#` for a number.
fn without_number(word: &str) -> String {
    if word.parse::<f64>().is_ok() { "#".to_owned() } else { word.to_owned() }
}

/// numa_maps begins its lines with where a mapping of a 64-bit program is.
fn is_address(word: &str) -> bool {
    word.len() == 12 && word.chars().all(|letter| letter.is_ascii_hexdigit())
}

/// A line of numa_maps but for the address and `active=`: how many pages wait to join a node's list
/// hangs on how many CPUs were busy.
fn without_address(words: &[&str]) -> Vec<String> {
    let rest = words[1..].iter().filter(|word| !word.starts_with("active="));
    ["#"].iter().chain(rest).map(|word| (*word).to_owned()).collect()
}

/// Hides a whole number of MB or kB, for the kernel keeps some memory of each node, and rounds one
/// with a fraction (numastat's MiB) to 16: 32 MiB of a process show, the pages that its libraries
/// share with others do not.
fn without_sizes(words: &[&str]) -> Vec<String> {
    let is_unit = |word: Option<&&str>| word.is_some_and(|word| ["MB", "kB"].contains(word));
    let hide = |(at, word): (usize, &&str)| {
        let bare = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let number = bare.trim_end_matches("MB");
        let is_size = number.parse::<u64>().is_ok()
            && (number.len() < bare.len() || is_unit(words.get(at + 1)));
        match word.parse::<f64>() {
            _ if is_size => word.replace(number, "#"),
            Ok(mib) if word.contains('.') => format!("~{}", (mib / 16.0).round() * 16.0),
            _ => (*word).to_owned(),
        }
    };
    words.iter().enumerate().map(hide).collect()
}

/// Lines that only one of them has.
fn difference(real: &[String], emulated: &[String]) -> String {
    let only = |sign: char, these: &[String], those: &[String]| {
        let missing = these.iter().filter(|line| !those.contains(line));
        missing.map(|line| format!("  {sign} {line}\n")).collect::<String>()
    };
    let text = only('-', real, emulated) + &only('+', emulated, real);
    if text.is_empty() { "  the same lines, in another order or number\n".to_owned() } else { text }
}

#[test]
fn where_interleaving_goes_on_is_masked_but_no_other_preferred_node() {
    assert_eq!(
        masked("preferred node: 1 (interleave next)"),
        "preferred node: # (interleave next)"
    );
    assert_eq!(masked("interleavenode: 1"), "interleavenode: #");
    assert_eq!(masked("preferred node: 1"), "preferred node: 1");
    assert_eq!(masked("interleavemask: 0 1 "), "interleavemask: 0 1");
}

#[test]
fn counters_of_numastat_are_masked_but_not_how_many_nodes_there_are() {
    assert_eq!(masked("numa_hit     906      166"), "numa_hit # #");
    assert_eq!(masked("other_node     906      166"), "other_node # #");
    assert_eq!(masked("node distances 906 166"), "node distances 906 166");
}

#[test]
fn speeds_are_masked_but_not_what_was_migrated_from_where() {
    let said = "0.4 Mbyte migrated in 0.00 secs. 2771.0 Mbytes/second";
    assert_eq!(masked(said), "# Mbyte migrated in # secs. # Mbytes/second");
    assert_eq!(masked("Migrating 1 to 0"), "Migrating 1 to 0");
}

#[test]
fn the_pid_of_the_process_that_asks_is_masked_but_not_its_cpus() {
    assert_eq!(masked("pid 77's current affinity list: 0-3"), "pid # current affinity list: 0-3");
    assert_eq!(masked("pid 77's current affinity mask: f"), "pid # current affinity mask: f");
    assert_eq!(masked("pid 77 is gone"), "pid 77 is gone");
}

#[test]
fn addresses_and_active_pages_are_masked_but_not_where_pages_are() {
    let line = "7f9f52c3c000 bind:1 anon=100 dirty=100 active=0 N1=100 kernelpagesize_kB=4";
    assert_eq!(masked(line), "# bind:1 anon=100 dirty=100 N1=100 kernelpagesize_kB=4");
    assert_eq!(masked("mask 7f9f52c3c000 active=0"), "mask 7f9f52c3c000 active=0");
    assert_eq!(masked("ffffffff"), "ffffffff");
}

#[test]
fn sizes_are_masked_but_no_other_numbers() {
    assert_eq!(masked("node 1 free: 1021 MB"), "node 1 free: # MB");
    assert_eq!(masked("    NUMANode L#0 (P#0 1024MB)"), "NUMANode L#0 (P#0 #MB)");
    assert_eq!(masked("Machine (2048MB total)"), "Machine (#MB total)");
    assert_eq!(masked("  0:  10  21 "), "0: 10 21");
    assert_eq!(masked("kernelpagesize_kB=4"), "kernelpagesize_kB=4");
    assert_eq!(masked("AnonPages: 12 kB"), "AnonPages: # kB");
    assert_eq!(masked("Huge 4KBs 12 MBs"), "Huge 4KBs 12 MBs");
}

#[test]
fn fractions_are_masked_by_sixteen_so_that_moved_memory_shows() {
    assert_eq!(masked("Private  33.95   0.09   34.04"), "Private ~32 ~0 ~32");
    assert_eq!(masked("Private  0.09   33.95   34.04"), "Private ~0 ~32 ~32");
    assert_eq!(masked("version 12"), "version 12");
}
