//! `pagetide machine`.

use std::fs;
use std::path::Path;

use super::{pagetide, text};

#[test]
fn this_computer_is_shown_with_its_nodes_and_distances() {
    let output = pagetide(&["machine"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("this-computer: "), "{shown}");
    assert!(shown.contains("\ndistances\nnode"), "{shown}");
}

#[test]
fn what_is_exported_of_this_computer_is_a_machine_that_can_be_read() {
    let output = pagetide(&["machine", "--export"]);
    let exported = machine::Topology::from_toml(text(&output.stdout), "exported").unwrap();
    assert!(!exported.memory_nodes().is_empty());
    assert!(exported.nodes().iter().all(|node| node.free.is_none()));
}

#[test]
fn an_exported_file_is_exported_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snc-4.toml");
    let first = pagetide(&["machine", "--export", "snc-4"]).stdout;
    fs::write(&file, &first).unwrap();
    let second = pagetide(&["machine", "--export", file.to_str().unwrap()]).stdout;
    assert_eq!(text(&first), text(&second));
}

#[test]
fn json_is_one_document_with_a_schema_and_sizes_in_bytes() {
    let output = pagetide(&["machine", "--json", "dram-cxl"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["name"], "dram-cxl");
    assert_eq!(document["nodes"][2]["memory"], 512 << 20);
    assert_eq!(document["nodes"][2]["cpus"], "");
    assert_eq!(document["distances"][0], serde_json::json!([10, 21, 24]));
}

#[test]
fn a_machine_that_is_not_there_is_named_in_one_line_with_status_2() {
    let output = pagetide(&["machine", "tow-socket"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "pagetide: no machine `tow-socket`: it is not a file, and not one of the built-in machines \
         two-socket, four-socket, snc-4, dram-cxl\n"
    );
}

#[test]
fn a_garbage_machine_file_is_told_in_one_line_with_status_2() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bad-input");
    let file = folder.join("machine-bad-size.toml");
    let output = pagetide(&["machine", file.to_str().unwrap()]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("machine-bad-size.toml:5: node[0].memory: `lots`"), "{said}");
}
