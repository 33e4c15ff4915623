//! A JVM with `-XX:+UseNUMA`, in a guest and under `pagetide run` on the same machine: it must find the
//! same nodes, lay out its heap alike, and its pages must lie where its policies say.
//!
//! A guest of its own, for Java takes 160 MB of it.

use std::path::{Path, PathBuf};

use lab::{Guest, Output};

use crate::host::{Starter, boot, built_in, emulated};

/// Debian's Java, from openjdk-17-jre-headless.
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64";
/// What Java opens while it runs, below its folder.
const JAVA_FILES: [&str; 12] = [
    "bin/java",
    "conf/security/java.security",
    "lib/jvm.cfg",
    "lib/modules",
    "lib/server/libjvm.so",
    "lib/libjava.so",
    "lib/libjimage.so",
    "lib/libjli.so",
    "lib/libnet.so",
    "lib/libnio.so",
    "lib/libverify.so",
    "lib/libzip.so",
];
/// What no program names that the guest has.
const LIBRARIES: [&str; 5] =
    ["libgcc_s.so.1", "libm.so.6", "libnuma.so.1", "libstdc++.so.6", "libz.so.1"];

/// Java that waits for a password, with a heap of 64 MiB below 4 GiB, all touched: what it says of NUMA,
/// its heap in numa_maps, and its spaces as it ends.
///
/// How many pages a mapping has on each node hangs on the CPUs that its threads drew and on whether huge
/// pages were to be had, so numbers are cut off: what stays of a mapping is its policy and its nodes, and
/// of one with a preferred node only those that are not that node.
const SCRIPT: &str = r#"
cd $HOME; rm -f password said; mkfifo password; sleep 100 >password & WRITER=$!
JAVA/bin/java -Xint -XX:+UseNUMA -XX:+UseParallelGC -Xms64m -Xmx64m -XX:+AlwaysPreTouch \
    -Xlog:os,gc+init,gc+heap+exit -m java.base/sun.security.tools.keytool.Main \
    -importpass -alias a -keystore keys <password >said 2>&1 &
JVM=$!
for N in $(seq 400); do grep -q password: said && break; sleep 0.2; done
grep '^f[0-9a-f]\{7\} ' /proc/$JVM/numa_maps | sed -E \
    -e 's/ (anon|dirty|active|huge|swapcache|kernelpagesize_kB)=[0-9]+//g' \
    -e 's/(prefer[^:]*:([0-9]+)) N\2=[0-9]+/\1/' -e 's/ (N[0-9]+)=[0-9]+/ \1/g'
grep NUMA said | sed 's/^[^]]*]//'
kill $JVM; wait $JVM
grep ' space ' said | sed -E -e 's/^[^]]*]//' -e 's/, .*//' | grep -v class
kill $WRITER; rm -f password said
"#;

#[test]
fn java_finds_on_two_sockets_what_it_finds_on_a_real_kernel() {
    compare("two_socket");
}

#[test]
fn java_finds_on_four_sockets_what_it_finds_on_a_real_kernel() {
    compare("four_socket");
}

#[test]
fn java_finds_on_clustered_sockets_what_it_finds_on_a_real_kernel() {
    compare("snc_4");
}

#[test]
fn java_finds_beside_a_memory_only_node_what_it_finds_on_a_real_kernel() {
    compare("dram_cxl");
}

fn compare(machine: &'static str) {
    let real = boot(built_in(machine), "6.12", &files(), "");
    let expected = heap(&real);
    real.power_off().unwrap();
    assert!(expected.contains("NUMA Support: Enabled"), "{expected}");
    assert!(expected.contains("fc000000 interleave:0"), "{expected}");
    for starter in Starter::ALL {
        let said = heap(emulated(machine, starter).guest);
        assert_eq!(expected, said, "left: a real kernel; right: pagetide run, {starter:?}");
    }
}

fn files() -> Vec<PathBuf> {
    let java = JAVA_FILES.iter().map(|name| Path::new(JAVA).join(name));
    let libraries = LIBRARIES.iter().map(|name| Path::new("/lib/x86_64-linux-gnu").join(name));
    java.chain(libraries).collect()
}

/// What the script says.
fn heap(guest: &Guest) -> String {
    let output: Output = guest.run(["sh", "-c", &SCRIPT.replace("JAVA", JAVA)]).unwrap();
    assert_eq!(output.stderr_text().replace("Terminated\n", ""), "");
    output.stdout_text().into_owned()
}
