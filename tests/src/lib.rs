//! End-to-end tests. What more than one of them needs is here.

use std::process::Command;

/// The words that start a command as root of a container: without a capability, and without the right to
/// make a namespace of any kind.
///
/// That is in a user namespace that may have no other below it. Where even that one may not be had, this
/// computer is such a place once the capabilities are gone.
#[must_use]
pub fn contained() -> Vec<&'static str> {
    const FORBID: &str = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let is_had = Command::new("unshare").args(["-Ur", "true"]).output();
    let mut words = vec![];
    if is_had.is_ok_and(|output| output.status.success()) {
        words.extend(["unshare", "-Ur", "sh", "-c", FORBID, "contained"]);
    }
    words.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]);
    words
}
