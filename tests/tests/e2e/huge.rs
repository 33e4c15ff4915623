//! Huge pages stay huge.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::target::Target;

on_each_kernel! {
    two_socket {
        a_thp_that_is_unmapped_in_part_moves_with_what_is_left
        hugetlb_pages_move_into_the_pool_of_the_destination
        without_a_pool_on_the_destination_the_pool_moves_along
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        thps_move_and_stay_thps
        a_range_within_a_thp_moves_the_whole_thp
    }
}

/// Bytes of THPs in the mapping that starts with an area, as smaps has it.
fn thp_bytes(host: &Host, target: &Target, area: &str) -> u64 {
    let smaps = host.sh(&format!("cat /proc/{}/smaps", target.pid));
    let head = format!("{:x}-", target.area(area).start);
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
    let line = lines.find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// Sets the pools of 2 MiB pages, by node.
fn set_pools(host: &Host, pages: [u64; 2]) {
    for (node, pages) in pages.iter().enumerate() {
        host.write(&pool_file(node, "nr_hugepages"), &pages.to_string());
    }
    assert_eq!(pools(host), pages, "the kernel found room for the pools");
}

fn pools(host: &Host) -> [u64; 2] {
    let pages = |node| host.sh(&format!("cat {}", pool_file(node, "nr_hugepages")));
    [0, 1].map(|node| pages(node).trim().parse().unwrap())
}

fn pool_file(node: usize, name: &str) -> String {
    format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/{name}")
}

fn thps_move_and_stay_thps(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 t=thp:16M");
    let words = format!("--to 1 --range {}", target.range("t", 0..4096));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["t"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (4096, 0), "{outcome:?}");
    assert_eq!(target.where_is("t"), "1*4096");
    assert_eq!(thp_bytes(host, &target, "t"), 16 << 20);
}

fn a_range_within_a_thp_moves_the_whole_thp(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 t=thp:6M");
    let words = format!("--to 1 --range {}", target.range("t", 600..700));
    let outcome = move_pages(host, &mut target, &words, About::PartOf(&["t"]));
    assert_eq!((outcome.moved_pages, outcome.placement), (512, Some([(1, 512)].into())));
    assert_eq!(target.where_is("t"), "0*512 1*512 0*512");
    assert_eq!(thp_bytes(host, &target, "t"), 6 << 20);
}

fn a_thp_that_is_unmapped_in_part_moves_with_what_is_left(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 t=thp:4M");
    assert_eq!(target.ask("cut t 1M"), "ok");
    let words = format!("--to 1 --range {}", target.range("t", 0..1024));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["t"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (768, 0), "{outcome:?}");
    assert_eq!(target.where_is("t"), "1*768");
}

fn hugetlb_pages_move_into_the_pool_of_the_destination(host: &Host) {
    set_pools(host, [4, 4]);
    let mut target = Target::start(host, "--on-node 0 g=hugetlb:8M");
    let words = format!("--to 1 --range {}", target.range("g", 0..2048));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["g"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (2048, 0), "{outcome:?}");
    assert_eq!(target.where_is("g"), "1*2048");
    assert_eq!(pools(host), [4, 4]);
    drop(target);
    set_pools(host, [0, 0]);
}

fn without_a_pool_on_the_destination_the_pool_moves_along(host: &Host) {
    set_pools(host, [4, 0]);
    let mut target = Target::start(host, "--on-node 0 g=hugetlb:8M");
    let words = format!("--to 1 --range {}", target.range("g", 0..2048));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["g"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (2048, 0), "{outcome:?}");
    assert_eq!(pools(host), [0, 4]);
    drop(target);
    set_pools(host, [0, 0]);
}
