//! Cpusets, policies and automatic balancing: what forbids a move, and what would undo it.

use crate::host::Host;
use crate::moves::{About, move_pages, outcome_of};
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_cpuset_that_excludes_the_destination_refuses_and_says_how_to_widen_it
        numa_balancing_is_a_warning_with_the_lines_that_mend_it
        under_numa_balancing_the_accounts_add_up_and_the_contents_hold
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        a_policy_that_binds_elsewhere_is_a_warning
    }
}

fn a_cpuset_that_excludes_the_destination_refuses_and_says_how_to_widen_it(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M");
    host.write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset");
    host.sh("mkdir -p /sys/fs/cgroup/bound");
    host.write("/sys/fs/cgroup/bound/cpuset.mems", "0");
    host.write("/sys/fs/cgroup/bound/cgroup.procs", &target.pid());
    let words = format!("--to 1 --range {}", target.range("a", 0..512));

    let output = host.pagetide(&format!("move {} {words}", target.pid));
    let said = output.stderr_text().into_owned();
    assert_eq!((output.code, output.stdout_text().as_ref()), (1, ""), "{said}");
    assert!(said.contains("nothing was moved") && said.contains("cpuset"), "{said}");
    assert_eq!(target.where_is("a"), "0*512");

    let widen = said.lines().map(str::trim).find(|line| line.starts_with("echo ")).unwrap();
    assert_eq!(widen, "echo 0-1 > /sys/fs/cgroup/bound/cpuset.mems");
    host.sh(widen);
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.moved_pages, 512, "what it advised works");
    target.kill();
    host.sh("rmdir /sys/fs/cgroup/bound");
}

/// What `plan` says of moving an area to node 1.
fn plan_says(host: &Host, target: &Target, pages: u64) -> String {
    let range = target.range("a", 0..pages);
    let output = host.pagetide(&format!("plan {} --to 1 --range {range}", target.pid));
    assert_eq!((output.code, output.stderr_text().as_ref()), (0, ""), "{output:?}");
    output.stdout_text().into_owned()
}

fn a_policy_that_binds_elsewhere_is_a_warning(host: &Host) {
    let mut target = Target::start(host, "a=anon:1M,bind=0");
    let said = plan_says(host, &target, 256);
    assert!(said.contains("bind:0"), "{said}");
    let words = format!("--to 1 --range {}", target.range("a", 0..256));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.moved_pages, 256, "a policy is about new pages");

    assert_eq!(target.ask("rebind a 1"), "ok");
    let said = plan_says(host, &target, 256);
    assert!(!said.contains("bind:"), "{said}");
}

fn numa_balancing_is_a_warning_with_the_lines_that_mend_it(host: &Host) {
    let target = Target::start(host, "--cpu 0 --on-node 0 a=anon:1M");
    assert!(!plan_says(host, &target, 256).contains("numa_balancing"), "it is off");
    host.write("/proc/sys/kernel/numa_balancing", "1");
    let said = plan_says(host, &target, 256);
    host.write("/proc/sys/kernel/numa_balancing", "0");
    assert!(said.contains("numa_balancing is on and threads may run on node 0"), "{said}");
    assert!(said.contains("sysctl kernel.numa_balancing=0"), "{said}");
    assert!(said.contains(&format!("taskset -a -p -c CPUS {}", target.pid)), "{said}");
}

fn under_numa_balancing_the_accounts_add_up_and_the_contents_hold(host: &Host) {
    // Its CPUs are on node 0, so that the kernel works against a move to node 1 all the time.
    let mut target = Target::start(host, "--cpu 0 --on-node 0 a=anon:2M,touch");
    host.write("/proc/sys/kernel/numa_balancing", "1");
    for node in [1, 0, 1] {
        let range = target.range("a", 0..512);
        let outcome = outcome_of(host, &target, &format!("--to {node} --range {range}"));
        // The kernel may have brought all of it there before, and then there is nothing to place.
        let placed: u64 = outcome.placement.iter().flat_map(|nodes| nodes.values()).sum();
        assert!(placed == 512 || outcome.found_pages == 0, "{outcome:?}");
        target.check();
    }
    host.write("/proc/sys/kernel/numa_balancing", "0");
}
