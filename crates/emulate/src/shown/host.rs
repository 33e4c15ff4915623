//! The files of this computer, of which those that are shown keep what the machine does not say.

/// The text of a file of this computer; nothing where it has none.
pub(crate) fn host(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
