//! Compaction, and memory that goes offline or bad.

use pagetide_model::{
    Advice, Counter, Errno, KernelVersion, Machine, Options, PMD_PAGES, Pfn, PinKind, ThpMode,
    explain,
};

use crate::world::{BASE, PAGE, World, node_id, three_nodes};

/// First frame of node 0, and how many it has.
fn blocks_of_node_0(world: &World) -> (Pfn, u32) {
    world.machine.frames_of(node_id(0)).unwrap()
}

#[test]
fn offline_memory_is_emptied_to_the_nearest_node_whatever_the_policy() {
    for version in KernelVersion::ALL {
        let mut world = World::new(version);
        world.map(1024);
        world.write(0..1024);
        let (first, pages) = blocks_of_node_0(&world);
        // The kernel's own pages lie in the first block, and cannot move.
        let busy = world.machine.offline(world.task, first, PMD_PAGES);
        assert_eq!(busy, Err(Errno::EBUSY));
        world.machine.trace_on();
        let rest = world.machine.first_block_behind(first);
        world.machine.offline(world.task, rest, pages - PMD_PAGES).unwrap();
        assert_eq!(world.pages_on(1, 0..1024), 1024, "node 1 is the nearest of node 0");
        let paths = explain(&world.machine.take_events());
        let path = "memory_subsys_offline > offline_pages > do_migrate_range > migrate_pages";
        assert_eq!(paths[0].path.to_string(), path);
        world.machine.check().unwrap();
        world.machine.online(rest, pages - PMD_PAGES);
        world.machine.check().unwrap();
        assert_eq!(world.machine.withdrawn_frames(), 0);
    }
}

#[test]
fn a_page_in_a_pipe_keeps_its_block_online() {
    let mut world = World::new(KernelVersion::V6_12);
    world.map(1024);
    world.write(0..1024);
    world.machine.pin(world.task, BASE + 900 * PAGE, PinKind::Reference).unwrap();
    let (first, pages) = blocks_of_node_0(&world);
    let rest = world.machine.first_block_behind(first);
    let offline = world.machine.offline(world.task, rest, pages - PMD_PAGES);
    assert_eq!(offline, Err(Errno::EBUSY));
    assert_eq!(world.pages_on(0, 900..901), 1);
    world.machine.check().unwrap();
}

#[test]
fn compaction_makes_whole_blocks_and_never_changes_the_node() {
    let mut world = World::new(KernelVersion::V6_12);
    let pages = 14_000;
    world.map(pages);
    world.write(0..pages);
    for page in (0..pages).step_by(2) {
        let address = BASE + page * PAGE;
        world.machine.madvise(world.task, address, PAGE, Advice::DontNeed).unwrap();
    }
    let before = world.machine.free_blocks(node_id(0));
    let earlier = world.counters();
    let moved = world.machine.compact_node(node_id(0));
    assert!(moved > 0, "fragmented memory has something to move");
    assert_eq!(world.since(&earlier, Counter::PgmigrateSuccess), moved);
    assert!(world.machine.free_blocks(node_id(0)) > before + 8);
    let left = (0..pages).filter(|page| page % 2 == 1);
    assert!(left.clone().all(|page| {
        world.machine.read(world.task, BASE + page * PAGE) == Ok(u32::try_from(page).unwrap() + 1)
    }));
    world.machine.check().unwrap();
}

#[test]
fn a_bad_page_of_a_thp_leaves_the_other_511_where_they_were() {
    for version in [KernelVersion::V6_12, KernelVersion::V7_3] {
        let options = Options { thp: ThpMode::Always, ..Options::default() };
        let mut world = World::of(Machine::boot(three_nodes(64), version, options));
        world.map(512);
        world.write(0..512);
        let earlier = world.counters();
        world.machine.soft_offline(world.task, BASE + 5 * PAGE).unwrap();
        assert_eq!(world.since(&earlier, Counter::PgmigrateSuccess), 1);
        assert_eq!(world.since(&earlier, Counter::ThpSplitPage), 1);
        assert_eq!(world.machine.withdrawn_frames(), 1);
        assert_eq!(world.machine.read(world.task, BASE + 5 * PAGE), Ok(6));
        assert_eq!(world.pages_on(0, 0..512), 512);
        world.machine.check().unwrap();
    }
}

#[test]
fn a_bad_page_in_a_pipe_is_busy() {
    let mut world = World::new(KernelVersion::V7_3);
    world.map(1);
    world.write(0..1);
    world.machine.pin(world.task, BASE, PinKind::Reference).unwrap();
    assert_eq!(world.machine.soft_offline(world.task, BASE), Err(Errno::EBUSY));
    world.machine.check().unwrap();
}

#[test]
fn a_long_term_pin_moves_the_page_out_of_movable_memory_first() {
    let options = Options { thp: ThpMode::Never, movable_pages: 8192 };
    let mut world = World::of(Machine::boot(three_nodes(64), KernelVersion::V6_12, options));
    world.map(8);
    world.write(0..8);
    let earlier = world.counters();
    world.machine.trace_on();
    for page in 0..8 {
        world.machine.pin(world.task, BASE + page * PAGE, PinKind::Buffer).unwrap();
    }
    assert_eq!(world.since(&earlier, Counter::PgmigrateSuccess), 8);
    assert_eq!(world.pages_on(0, 0..8), 8, "the own node is preferred");
    let calls = explain(&world.machine.take_events());
    assert!(calls.iter().all(|call| call.reason.name() == "longterm_pin"));
    // Now they are pinned, and nothing moves them any more.
    assert_eq!(world.move_pages(0..8, 1), Ok(8));
}
