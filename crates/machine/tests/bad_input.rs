//! Every `tests/bad-input/machine-*.toml` is refused with exactly the line that it expects.
//!
//! A case is a file: its first line is `# expect: ` and the message, in which the file has its
//! name without folders. Adding a case needs no Rust.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its cases must fail")]

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bad-input")
}

/// The cases, in order of name.
fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("machine-") && name.ends_with(".toml")
        })
        .collect();
    cases.sort();
    cases
}

/// What the first line of a case expects to be said.
fn expected(case: &Path) -> String {
    let bytes = fs::read(case).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("# expect: ").unwrap_or_else(|| panic!("{case:?} expects nothing")).into()
}

#[test]
fn a_garbage_machine_file_is_refused_with_the_one_line_that_it_expects() {
    let cases = cases();
    assert!(cases.len() >= 25, "the folder of cases is not where this test looks: {:?}", folder());
    let prefix = format!("{}/", folder().display());
    let mut wrong = String::new();
    for case in cases {
        let said = match pagetide_machine::load(case.to_str().unwrap()) {
            Ok(machine) => format!("accepted as `{}`", machine.name),
            Err(error) => error.to_string().replace(&prefix, ""),
        };
        let expected = expected(&case);
        if said != expected {
            let name = case.file_name().unwrap().display();
            wrong += &format!("\n{name}\n  expects {expected}\n  but got {said}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
