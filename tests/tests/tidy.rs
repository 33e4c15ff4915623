//! The house rules that no linter knows, as tests. Each says what it wants and where it is not so.

#![expect(clippy::unwrap_used, reason = "a test may fail with a panic")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `folder`, but for what the build leaves behind.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "without a module comment: {silent:?}");
}

#[test]
fn unsafe_code_lives_in_sys_modules_alone() {
    let elsewhere: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| {
            let in_sys =
                path.components().any(|part| part.as_os_str() == "sys") || path.ends_with("sys.rs");
            let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
            let is_unsafe = |line: &str| {
                ["{", "fn ", "impl ", "extern "]
                    .iter()
                    .any(|next| line.contains(&format!("{}safe {next}", "un")))
            };
            !in_sys && code.into_iter().any(is_unsafe)
        })
        .map(|(path, _)| path)
        .collect();
    assert!(elsewhere.is_empty(), "unsafe code outside sys: {elsewhere:?}");
}

#[test]
fn no_error_says_twice_what_it_comes_from() {
    // `main` prints the whole chain, and a field `source` is the next link of it.
    let attribute = ["#[", "error("].concat();
    let twice: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| {
            let messages = text.split(&attribute).skip(1);
            messages.filter_map(|rest| rest.split(")]").next()).any(|it| it.contains("{source"))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(twice.is_empty(), "the text of an error holds its source: {twice:?}");
}

/// Crates from the lowest layer up; strangers of one layer may not use each other.
const LAYERS: [&[&str]; 5] = [
    &["machine"],
    &["linux", "model", "scenario"],
    &["engine", "trace", "policy", "report", "agent", "conformance"],
    &["lab", "emulate", "sim"],
    &["cli"],
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[test]
fn a_crate_uses_lower_layers_only() {
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let own = layer(&name).unwrap_or_else(|| panic!("crates/{name} has no layer"));
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if let Some(theirs) = layer(used) {
                assert!(theirs < own, "crates/{name} uses {used}, which is not in a lower layer");
            }
        }
        if name == "model" {
            assert!(!dependencies.contains("linux"), "model must not know the kernel");
        }
    }
}

#[test]
fn no_program_has_a_model_with_planted_faults() {
    let mut paths = Vec::new();
    files(&root(), &mut paths);
    for path in paths.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(path).unwrap();
        let (shipped, for_tests) = text.split_once("[dev-dependencies]").unwrap_or((&text, ""));
        assert!(!shipped.contains("\"faults\""), "{} turns faults on", path.display());
        assert!(
            !for_tests.contains("\"faults\"") || text.contains("pagetide-conformance"),
            "{}: the conformance crate alone plants faults",
            path.display()
        );
    }
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    let mut manifests = Vec::new();
    files(&root(), &mut manifests);
    for path in manifests.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(path).unwrap();
        let is_package = text.contains("[package]");
        assert!(
            !is_package || text.contains("[lints]\nworkspace = true"),
            "{} does not take the lints of the workspace",
            path.display()
        );
    }
}

#[test]
fn no_file_is_so_long_that_it_must_be_about_two_things() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 800)
        .collect();
    assert!(long.is_empty(), "split by noun: {long:?}");
}

#[test]
fn the_readme_names_every_subcommand_and_its_two_setup_commands() {
    let readme = read("README.md");
    let main = read("crates/cli/src/main.rs");
    let commands = main.split("enum Command {").nth(1).and_then(|rest| rest.split('}').next());
    for line in commands.expect("main.rs has an enum Command").lines().map(str::trim) {
        let Some((name, _)) = line.split_once('(') else { continue };
        let name = name.to_lowercase();
        assert!(readme.contains(&format!("pagetide {name}")), "README.md does not show {name}");
    }
    for command in ["./demo", "./test"] {
        assert!(readme.contains(command), "README.md does not name {command}");
        assert!(root().join(command).is_file(), "{command} is missing");
    }
}

#[test]
fn the_readme_quotes_the_exit_statuses_of_the_code() {
    let readme = read("README.md");
    let exit = read("crates/cli/src/exit.rs");
    for line in exit.lines().map(str::trim).filter(|line| line.starts_with("Self::")) {
        let Some((_, meaning)) = line.split_once("=> \"") else { continue };
        let meaning = meaning.trim_end_matches("\",");
        assert!(readme.contains(meaning), "README.md does not say `{meaning}`");
    }
}

#[test]
fn architecture_gives_a_reason_for_each_crate_of_others() {
    let architecture = read("ARCHITECTURE.md");
    let manifest = read("Cargo.toml");
    let others = manifest.split("# Others'.").nth(1).and_then(|rest| rest.split("\n[").next());
    for line in others.expect("Cargo.toml lists the crates of others").lines().skip(1) {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        assert!(
            architecture.contains(&format!("`{name}`")),
            "ARCHITECTURE.md does not say why {name}"
        );
    }
}
