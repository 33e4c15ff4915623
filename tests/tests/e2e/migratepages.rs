//! The drop-in for numactl's tool, beside numactl's tool.

use crate::host::Host;
use crate::target::Target;

on_each_kernel! {
    two_socket {
        every_golden_line_gives_what_numactls_tool_gives
        what_moved_is_silent_and_what_stayed_is_one_line
    }
}

fn every_golden_line_gives_what_numactls_tool_gives(host: &Host) {
    let files = [
        ("play.sh", include_bytes!("../../golden/play.sh").as_slice()),
        ("lines", include_bytes!("../../golden/migratepages.txt")),
    ];
    for (name, bytes) in files {
        host.guest.put(&format!("/root/golden/{name}"), 0o755, bytes).unwrap();
    }
    let words = ["sh", "/root/golden/play.sh", "/root/golden/lines", "/root/theirs", "/root/ours"];
    let output = host.run(&words);
    let said = output.stdout_text();
    assert_eq!(output.code, 0, "{said}{}", output.stderr_text());
    assert!(said.trim_end().ends_with(" lines played, 0 differences"), "{said}");
}

fn what_moved_is_silent_and_what_stayed_is_one_line(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:4M");
    let pid = target.pid();
    let output = host.run(&["migratepages", &pid, "0", "1"]);
    assert_eq!(
        (output.code, output.stdout_text().as_ref(), output.stderr_text().as_ref()),
        (0, "", "")
    );
    assert_eq!(target.where_is("a"), "1*1024");
    target.check();

    let mut pinned = Target::start(host, "--on-node 0 a=anon:4M,pin=9");
    let output = host.run(&["migratepages", &pinned.pid(), "0", "1"]);
    let line = output.stderr_text();
    assert_eq!((output.code, output.stdout_text().as_ref()), (0, ""), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("migratepages: 9 of ") && line.contains("pinned"), "{line}");
    assert_eq!(pinned.where_is("a"), "0*9 1*1015");
    pinned.check();
}
