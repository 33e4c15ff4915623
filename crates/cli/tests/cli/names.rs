//! Names that processes and files may have, as text shows them.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::{pagetide, text};

/// A process and its program that would clear the screen and break a line.
const NAME: &str = "a\x1b[2Jb\nc";

#[test]
fn a_name_reaches_the_terminal_as_text_and_breaks_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(NAME);
    fs::copy("/bin/sh", &program).unwrap();
    let mut command = Command::new(&program);
    command.arg0("sh").args(["-c", "echo; read go"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut odd = command.spawn().unwrap();
    // It has its name by then.
    odd.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = odd.id().to_string();
    let shown = ["show", "plan", "explain"].map(|word| {
        let more = match word {
            "show" => &[][..],
            "plan" => &["--to", "0"],
            _ => &["[stack]+0"],
        };
        (word, pagetide(&[&[word, &pid], more].concat()))
    });
    drop(odd.stdin.take());
    odd.wait().unwrap();
    for (word, output) in shown {
        let said = text(&output.stdout);
        assert!(said.starts_with(&format!("a?[2Jb?c (pid {pid})")), "{word}: {output:?}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{word}: {said:?}");
        if word == "show" {
            // The mapping of its program; the kernel has an escape of its own for a line's end there.
            assert!(said.contains("a?[2Jb\\012c"), "{said}");
        }
    }
}
