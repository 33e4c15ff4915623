//! What is interrupted, or has read all of its input, ends, and leaves the computer as it was.

use lab::{Command, WindowSize};

use crate::host::Host;

on_each_kernel! {
    two_socket {
        a_shell_on_a_terminal_ends_with_its_input
        an_actor_that_a_signal_ends_puts_everything_back
    }
}

fn a_shell_on_a_terminal_ends_with_its_input(host: &Host) {
    for typed in ["uname -r; echo h''i\n", "uname -r; echo h''i"] {
        let terminal = Some(WindowSize { rows: 24, columns: 80 });
        let command = Command { terminal, ..Command::new(["sh"]) };
        let mut running = host.guest.start(command).unwrap();
        let mut input = running.take_input().unwrap();
        std::io::Write::write_all(&mut input, typed.as_bytes()).unwrap();
        drop(input);
        let mut out = Vec::new();
        assert_eq!(running.wait(&mut out, &mut Vec::new()).unwrap(), 0);
        let out = String::from_utf8_lossy(&out).into_owned();
        assert!(out.contains(host.guest.kernel()) && out.contains("hi"), "{out}");
    }
}

fn an_actor_that_a_signal_ends_puts_everything_back(host: &Host) {
    const SLEEP: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
    let state = || {
        host.sh(&format!(
            "cat {SLEEP} /proc/sys/kernel/numa_balancing \
             /sys/kernel/mm/transparent_hugepage/enabled /proc/mounts; ls /tmp"
        ))
    };
    host.write("/proc/sys/kernel/numa_balancing", "1");
    let before = state();
    for signal in ["TERM", "INT", "HUP"] {
        // Cases from an input that does not end, and one case that would wait for a minute.
        for (start, code) in
            [("pagetide actor <>/root/cases", 0), ("pagetide actor 'fork Q; wait Q'", 2)]
        {
            let ended = host.sh(&format!(
                "[ -p /root/cases ] || mkfifo /root/cases; {start} 2>/dev/null & actor=$!; \
                 until grep -q 4294967295 {SLEEP}; do :; done; \
                 kill -{signal} $actor; wait $actor; echo $?"
            ));
            assert_eq!(
                ended.lines().last(),
                Some(&*code.to_string()),
                "{signal}: {start}: {ended}"
            );
            assert_eq!(state(), before, "{signal}: {start}");
        }
    }
    host.write("/proc/sys/kernel/numa_balancing", "0");
}
