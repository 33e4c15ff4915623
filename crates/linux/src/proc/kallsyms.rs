//! Reads `/proc/kallsyms`: the names of the kernel's functions, for kernel stacks.
//!
//! ```text
//! ffffffffa5b54850 T migrate_pages
//! ffffffffc0401000 t ext4_sync_fs  [ext4]
//! ```
//!
//! Without the right to see them all addresses are 0 (`kernel.kptr_restrict`); that is no error for
//! the kernel, and [`read`] says it.
//!
//! Source: kernel, kernel/kallsyms.c.

use crate::{Errno, Malformed, ReadError, Root};

/// The functions of the running kernel and its modules, in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    text: String,
    /// Address, and where in `text` the name lies.
    functions: Vec<(u64, std::ops::Range<usize>)>,
}

impl Symbols {
    /// The function in which `address` lies.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(start, _)| *start <= address);
        let (_, name) = self.functions.get(after.checked_sub(1)?)?;
        self.text.get(name.clone())
    }
}

/// Reads the text of kallsyms.
///
/// # Errors
///
/// When a line is not an address, a letter and a name.
pub fn parse(text: String) -> Result<Symbols, Malformed> {
    let mut functions = Vec::new();
    let mut start = 0;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let bad = || Malformed::new(at + 1, "not `ADDRESS LETTER NAME`");
        let (address, rest) = line.split_once(' ').ok_or_else(bad)?;
        let (kind, name) = rest.split_once(' ').ok_or_else(bad)?;
        let name_start = start + line.len() - name.len();
        let name = name.split(['\t', '\n']).next().unwrap_or_default();
        if matches!(kind, "t" | "T" | "w" | "W") {
            let address = u64::from_str_radix(address, 16).map_err(|_| bad())?;
            functions.push((address, name_start..name_start + name.len()));
        }
        start += line.len();
    }
    functions.sort_by_key(|(address, _)| *address);
    Ok(Symbols { text, functions })
}

/// The functions of the running kernel.
///
/// # Errors
///
/// [`ReadError`]; `NotPermitted` when the kernel hides the addresses.
pub fn read(root: &Root) -> Result<Symbols, ReadError> {
    let path = root.path("proc/kallsyms");
    let symbols = parse(root.read("proc/kallsyms")?)
        .map_err(|malformed| ReadError::Malformed { path: path.clone(), malformed })?;
    if symbols.functions.iter().all(|(address, _)| *address == 0) {
        let needs = "CAP_SYSLOG (and kernel.kptr_restrict below 2)";
        return Err(ReadError::NotPermitted { path, errno: Errno::EPERM, needs });
    }
    Ok(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "ffffffffa5b54850 T migrate_pages\n\
        ffffffffc0401000 t ext4_sync_fs\t[ext4]\n\
        ffffffffa5b54900 d some_data\n\
        ffffffffa5b3fa20 T do_migrate_pages\n";

    #[test]
    fn an_address_is_named_by_the_function_that_begins_before_it() {
        let symbols = parse(TEXT.to_owned()).unwrap();
        assert_eq!(symbols.function(0xffff_ffff_a5b5_4850), Some("migrate_pages"));
        assert_eq!(symbols.function(0xffff_ffff_a5b5_4fff), Some("migrate_pages"));
        assert_eq!(symbols.function(0xffff_ffff_a5b3_fa21), Some("do_migrate_pages"));
        assert_eq!(symbols.function(0xffff_ffff_c040_1001), Some("ext4_sync_fs"));
        assert_eq!(symbols.function(0xffff_ffff_a5b3_fa1f), None);
    }

    #[test]
    fn hidden_addresses_are_a_missing_right() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        std::fs::write(folder.path().join("proc/kallsyms"), "0000000000000000 T a\n").unwrap();
        let error = read(&Root::new(folder.path())).unwrap_err();
        assert!(error.to_string().contains("CAP_SYSLOG"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([0-9a-f]{0,17} [tTdW] [ -~]{0,10}(\t\\[[a-z]\\])?\n){0,4}|[ -~\n]{0,100}",
            address in any::<u64>(),
        ) {
            if let Ok(symbols) = parse(text) {
                let _ = symbols.function(address);
            }
        }
    }
}
