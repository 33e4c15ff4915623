//! Names as they may be shown. A user may call a process, a file or a cgroup as they like, also by a command to the
//! terminal of whoever looks; and a line break would tear a table.

use std::borrow::Cow;

/// A name of a process, a mapping or a cgroup with a `?` for each control character, as ps(1) shows it, and for the two
/// characters that no XML may hold. For text; JSON has escapes of its own.
#[must_use]
pub fn printable(name: &str) -> Cow<'_, str> {
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    if name.contains(is_odd) { name.replace(is_odd, "?").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_commands_no_terminal_and_breaks_no_line() {
        assert_eq!(printable("a\x1b[2Jb\nc\r\t\x7f\u{9b}d\u{ffff}"), "a?[2Jb?c????d?");
        assert!(matches!(printable("kworker/0:1 \u{e9}"), Cow::Borrowed(_)));
    }
}
