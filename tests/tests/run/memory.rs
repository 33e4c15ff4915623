//! What becomes of places when mappings change.

use super::expect;

#[test]
fn memory_mapped_anew_at_the_same_address_has_no_past() {
    for change in ["again a", "unmap a; again a", "drop a"] {
        let script =
            format!("map a 2; write a 0 2; move a 1; {change}; where a; write a 0 1; where a");
        expect("two-socket", &script, &["0: 1*2", "a: -*2", "a: 0*1 -*1"]);
    }
}

#[test]
fn pages_that_mremap_moves_keep_their_place() {
    let script = "map a 4; write a 0 4; move a 1; stretch a 5000; write a 4 5; where a";
    expect("two-socket", script, &["0: 1*4", "a: 1*4 0*1 -*4995"]);
}

#[test]
fn a_mapping_that_is_unmapped_takes_its_policy_along() {
    let script = "map a 2; bind a bind 1; again a; write a 0 2; where a";
    expect("two-socket", script, &["ok", "a: 0*2"]);
}

#[test]
fn asking_by_address_touches_the_page_as_the_kernel_does() {
    let script = "map a 2; write a 0 1; node a 0; node a 1";
    expect("two-socket", script, &["node 0", "node 0"]);
}

#[test]
fn shared_memory_has_one_place_whoever_touches_it() {
    let script = "map a 4 shared; child set bind 1, write a 0 2; write a 0 4; where a";
    expect("two-socket", script, &["ok", "a: 1*2 0*2"]);
}

#[test]
fn a_policy_on_shared_memory_holds_for_the_child_too() {
    let script = "map a 2 shared; bind a bind 1; child write a 0 2; read a 0 2; where a";
    expect("two-socket", script, &["ok", "a: 1*2"]);
}
