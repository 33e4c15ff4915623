//! Pages that others map too: left alone unless asked for.

use crate::host::Host;
use crate::moves::{About, move_pages};
use crate::numa_maps::{self, Placement};
use crate::target::Target;

on_each_kernel_and_emulated_by_root! {
    two_socket {
        pages_shared_with_a_forked_child_stay_and_move_when_asked_for
        shared_memory_of_two_processes_stays_and_moves_when_asked_for
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        shared_memory_of_one_process_is_its_own
        the_cache_of_a_mapped_file_moves
        the_plan_names_who_shares
    }
}

/// Pages of a mapping of another process, by the address at which it begins there.
fn placement_of(host: &Host, pid: u32, start: u64) -> Placement {
    let mappings = numa_maps::read(host, pid);
    let mapping = mappings.into_iter().find(|mapping| mapping.range.start == start);
    mapping.unwrap_or_else(|| panic!("no mapping of {pid} begins at {start:x}")).pages
}

fn stays_then_moves(host: &Host, area: &str) {
    let words = format!("--on-node 0 s={area},shared-with-child a=anon:1M");
    let mut target = Target::start(host, &words);
    let start = target.area("s").start;
    let child = target.child.expect("an area is shared with a child");
    let range = target.range("s", 0..512);

    let words = format!("--to 1 --range {range}");
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["s"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_only("shared")), (0, 512), "{outcome:?}");
    assert_eq!(placement_of(host, child, start), Placement::from([(0, 512)]));

    let words = format!("--to 1 --range {range} --include-shared");
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["s"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (512, 0), "{outcome:?}");
    assert_eq!(target.where_is("s"), "1*512");
    assert_eq!(placement_of(host, child, start), Placement::from([(1, 512)]));
}

fn pages_shared_with_a_forked_child_stay_and_move_when_asked_for(host: &Host) {
    stays_then_moves(host, "anon:2M");
    stays_then_moves(host, "thp:2M");
}

fn shared_memory_of_two_processes_stays_and_moves_when_asked_for(host: &Host) {
    stays_then_moves(host, "shm:2M");
    stays_then_moves(host, "memfd:2M");
    stays_then_moves(host, "file:2M,path=/dev/shm/pool");
}

fn shared_memory_of_one_process_is_its_own(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 s=shm:1M m=memfd:1M");
    for area in ["s", "m"] {
        let words = format!("--to 1 --range {}", target.range(area, 0..256));
        let outcome = move_pages(host, &mut target, &words, About::Areas(&[area]));
        assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (256, 0), "{outcome:?}");
        assert_eq!(target.where_is(area), "1*256");
    }
}

fn the_cache_of_a_mapped_file_moves(host: &Host) {
    let areas = "r=file:1M,path=/root/read,read w=file:1M,path=/root/written p=file:1M,path=/root/private,private";
    let mut target = Target::start(host, &format!("--on-node 0 {areas}"));
    for area in ["r", "w", "p"] {
        let words = format!("--to 1 --range {}", target.range(area, 0..256));
        let outcome = move_pages(host, &mut target, &words, About::Areas(&[area]));
        assert_eq!((outcome.moved_pages, outcome.stayed_pages()), (256, 0), "{area}: {outcome:?}");
        assert_eq!(target.where_is(area), "1*256");
    }
}

fn the_plan_names_who_shares(host: &Host) {
    let target = Target::start(host, "--on-node 0 pool=memfd:2M,shared-with-child");
    let range = target.range("pool", 0..512);
    let output = host.pagetide(&format!("plan {} --to 1 --range {range}", target.pid));
    let said = output.stdout_text();
    let child = target.child.expect("an area is shared with a child");
    let named = format!("pid {child}");
    assert!(said.contains(&named) && said.contains("2.0 MiB") && said.contains("pool"), "{said}");
    assert!(said.contains("--include-shared"), "{said}");
}
