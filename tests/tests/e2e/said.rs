//! What a command that refuses must say: one line, and no more.

use lab::Output;

/// The line on stderr of a command that ended with `code` and said nothing else.
pub(crate) fn refusal(output: &Output, code: u8) -> String {
    let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
    assert_eq!(output.code, code, "exit code: {output:?}");
    assert_one_line(&stdout, &stderr);
    stderr.into_owned()
}

/// One line on stderr, from pagetide, that is no panic; nothing on stdout.
pub(crate) fn assert_one_line(stdout: &str, stderr: &str) {
    assert_eq!(stdout, "", "stderr: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("pagetide: ") && stderr.ends_with('\n'), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}
