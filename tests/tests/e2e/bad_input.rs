//! Bad input on this computer: one line that names it, the documented exit code, never a panic.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::host::pagetide_binary;
use crate::said::assert_one_line;

/// The line with which `pagetide` refuses these words.
fn refusal(words: &[&str], code: i32) -> String {
    let output = Command::new(pagetide_binary()).args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stdout}{stderr}");
    assert_one_line(&stdout, &stderr);
    stderr
}

#[test]
fn a_target_that_is_not_there_ends_with_status_4() {
    for target in ["4194305", "0", "no-such-process"] {
        for words in
            [&["show", target][..], &["plan", target, "--to", "0"], &["move", target, "--to", "0"]]
        {
            let line = refusal(words, 4);
            assert!(line.contains(target), "{line}");
        }
    }
}

#[test]
fn a_wrong_argument_is_named() {
    let wrong = [
        ["--to", "99"],
        ["--to", "0,x"],
        ["--to", ""],
        ["--to", "0-"],
        ["--interleave", "0=0"],
        ["--interleave", "0=x"],
        ["--interleave", "99"],
        ["--range", "zz"],
        ["--range", "2000-1000"],
        ["--kind", "text"],
        ["--page-size", "3M"],
        ["--limit", "much"],
        ["--rate", "0"],
        ["--rate", "fast"],
        ["--max-stall", "5"],
        ["--max-stall", "0ms"],
        ["--threads", "0"],
        ["--threads", "65"],
        ["--plan", "/"],
    ];
    let own = std::process::id().to_string();
    for [option, value] in wrong {
        let mut words = vec!["move"];
        if option != "--plan" {
            words.push(&own);
        }
        if !["--to", "--interleave", "--plan"].contains(&option) {
            words.extend(["--to", "0"]);
        }
        words.extend([option, value]);
        let line = refusal(&words, 2);
        assert!(line.contains(option) || line.contains(value), "{words:?}: {line}");
    }
}

#[test]
fn a_page_that_cannot_be_named_or_is_nowhere_is_told_in_one_line() {
    let own = std::process::id().to_string();
    for place in ["", "zz", "0x", "10000000000000000", "[heap]", "[heap]+", "[heap]+zz"] {
        let line = refusal(&["explain", &own, place], 2);
        assert!(line.contains(place), "{line}");
    }
    for place in ["0", "10", "ffffffffffffffff", "no-such-mapping+0"] {
        let line = refusal(&["explain", &own, place], 2);
        assert!(line.contains(&own), "{line}");
    }
    refusal(&["explain", "4194305", "0"], 4);
    refusal(&["explain", &own, "[heap]+0", "--to", "0"], 2);
    refusal(&["explain", &own, "[heap]+0", "--try", "--to", "1024"], 2);
}

#[test]
fn a_wrong_interval_and_wrong_forms_of_stat_are_refused() {
    let wrong: [&[&str]; 9] = [
        &["stat", "0"],
        &["stat", "x"],
        &["stat", "1", "--count", "0"],
        &["stat", "--count", "1"],
        &["stat", "--json", "--wide"],
        &["stat", "--json", "--prometheus"],
        &["stat", "--output", "x.prom"],
        &["stat", "--prometheus", "1"],
        &["stat", "--prometheus", "--output", "/no/such/folder/x.prom"],
    ];
    for words in wrong {
        refusal(words, 2);
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let wrong: [&[&str]; 8] = [
        &["move"],
        &["move", "1"],
        &["move", "1", "--from", "0"],
        &["move", "1", "--to", "0", "--near-cpus"],
        &["move", "1", "--to", "0", "--interleave", "0"],
        &["move", "1", "--undo", "--to", "0"],
        &["move", "1", "--plan", "x.json"],
        &["show", "1", "--cgroup", "/"],
    ];
    for words in wrong {
        refusal(words, 2);
    }
}

#[test]
fn a_file_that_is_no_plan_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let plans: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("text", b"move everything\n"),
        ("binary", b"\xff\xfe\0\x80"),
        ("other-schema", br#"{"schema": 99, "plans": []}"#),
        ("no-plans", br#"{"schema": 1}"#),
        ("torn", br#"{"schema": 1, "plans": [{"target": {"pid": 7"#),
    ];
    for (name, bytes) in plans {
        fs::write(path(name), bytes).unwrap();
    }
    for name in ["empty", "text", "binary", "other-schema", "no-plans", "torn", "absent"] {
        let line = refusal(&["move", "--plan", &path(name)], 2);
        assert!(line.contains(&path(name)), "{line}");
    }
}

#[test]
fn every_bad_machine_file_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bad-input");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("machine-"));
    assert!(files.len() >= 30, "{files:?}");
    for file in files {
        let file = file.to_string_lossy();
        for words in [&["machine", &*file][..], &["lab", "--machine", &*file, "--", "true"]] {
            let line = refusal(words, 2);
            assert!(line.contains(&*file), "{line}");
        }
    }
}
