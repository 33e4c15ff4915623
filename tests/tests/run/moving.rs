//! move_pages, migrate_pages and mbind with MPOL_MF_MOVE: what moves, and what is answered.

use super::expect;

#[test]
fn moved_pages_are_where_they_were_sent_and_stay_there() {
    let script = "map a 4; write a 0 4; move a 1; where a; write a 0 4; where a";
    expect("two-socket", script, &["0: 1*4", "a: 1*4", "a: 1*4"]);
}

#[test]
fn absent_pages_and_the_zero_page_have_status_words_of_their_own() {
    let script = "map a 3; write a 0 1; read a 1 2; move a 1";
    expect("two-socket", script, &["0: 1*1 errno-14*1 -*1"]);
}

#[test]
fn migrate_pages_moves_what_is_on_the_nodes_and_nothing_else() {
    let script = "map a 4; set bind 1; write a 0 2; set bind 2; write a 2 4; migrate 1 3; where a";
    expect("four-socket", script, &["ok", "ok", "0", "a: 3*2 2*2"]);
}

#[test]
fn mbind_moves_pages_that_are_there_when_it_is_asked_to() {
    let script = "map a 2; write a 0 2; bind a bind 1; where a; bind a bind 1 move; where a";
    expect("two-socket", script, &["ok", "a: 0*2", "ok", "a: 1*2"]);
}

#[test]
fn the_answer_is_that_of_the_kernel_that_was_asked_for() {
    // 6.1 takes an untouched page of anonymous memory for the zero page.
    for (kernel, word) in [("6.1", "errno-14*1"), ("6.12", "-*1"), ("newest", "-*1")] {
        let output = super::run(&["--kernel", kernel, "--", super::subject(), "map a 1; move a 1"]);
        assert_eq!(super::text(&output.stdout), format!("0: {word}\n"), "{kernel}");
    }
}

#[test]
fn a_parent_moves_pages_that_its_child_shares_only_as_the_kernel_would() {
    // A page that two processes map is left by MPOL_MF_MOVE: EACCES.
    let script = "map a 2; write a 0 2; child move a 1; move a 1";
    expect("two-socket", script, &["0: errno-13*2", "0: 1*2"]);
}
