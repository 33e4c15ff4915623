//! Pinned pages: exactly those stay, and they move once they are let go.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::target::Target;

on_each_kernel! {
    two_socket {
        exactly_the_pinned_pages_stay_until_they_are_let_go
        exactly_the_pinned_thps_stay_until_they_are_let_go
        exactly_the_pinned_pages_of_shared_memory_stay
        a_pinned_page_of_a_file_stays_as_busy_with_io
    }
}

fn stays_until_let_go(host: &Host, area: &str, cause: &str, pinned: u64, pages: u64) {
    let mut target = Target::start(host, &format!("--on-node 0 a={area}"));
    let words = format!("--to 1 --range {}", target.range("a", 0..pages));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(outcome.stayed_only(cause), pinned, "{outcome:?}");
    assert_eq!(outcome.moved_pages, pages - pinned);
    assert_eq!(target.where_is("a"), format!("0*{pinned} 1*{}", pages - pinned));

    assert_eq!(target.ask("unpin"), "ok");
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (pinned, 0), "{outcome:?}");
    assert_eq!(target.where_is("a"), format!("1*{pages}"));
}

fn exactly_the_pinned_pages_stay_until_they_are_let_go(host: &Host) {
    stays_until_let_go(host, "anon:2M,pin=100", "pinned_or_busy", 100, 512);
}

fn exactly_the_pinned_thps_stay_until_they_are_let_go(host: &Host) {
    stays_until_let_go(host, "thp:8M,pin=1", "pinned_or_busy", 512, 2048);
}

fn exactly_the_pinned_pages_of_shared_memory_stay(host: &Host) {
    stays_until_let_go(host, "memfd:1M,pin=7", "pinned_or_busy", 7, 256);
}

fn a_pinned_page_of_a_file_stays_as_busy_with_io(host: &Host) {
    stays_until_let_go(host, "file:1M,path=/root/pinned,pin=7", "file_busy", 7, 256);
}
