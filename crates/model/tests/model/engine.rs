//! The engine where the conformance cases do not look: tries, splits, huge pages, moved mappings.

use pagetide_model::{
    Advice, Counter, Errno, Event, FileKind, KernelVersion, Machine, MapKind, Options, PinKind,
    Protection, explain,
};

use crate::world::{BASE, PAGE, World, node_id, three_nodes};

const HUGE_1G: u8 = 18;

fn entries_set(events: &[Event]) -> usize {
    events.iter().filter(|event| event.name() == "set_migration_pte").count()
}

#[test]
fn a_page_in_a_pipe_is_tried_ten_times_by_6_1_and_twice_by_later_kernels() {
    for (version, tries) in
        [(KernelVersion::V6_1, 10), (KernelVersion::V6_12, 2), (KernelVersion::V7_3, 2)]
    {
        let mut world = World::new(version);
        world.map(1);
        world.write(0..1);
        world.machine.pin(world.task, BASE, PinKind::Reference).unwrap();
        world.machine.trace_on();
        let hits = world.machine.numa_stats(node_id(1)).unwrap().hit;
        assert_eq!(world.move_pages(0..1, 1), Ok(1));
        assert_eq!(entries_set(&world.machine.take_events()), tries);
        assert_eq!(world.machine.numa_stats(node_id(1)).unwrap().hit - hits, tries as u64);
    }
}

#[test]
fn a_registered_buffer_is_never_unmapped() {
    for version in KernelVersion::ALL {
        let mut world = World::new(version);
        world.map(1);
        world.write(0..1);
        world.machine.pin(world.task, BASE, PinKind::Buffer).unwrap();
        world.machine.trace_on();
        let hits = world.machine.numa_stats(node_id(1)).unwrap().hit;
        assert_eq!(world.move_pages(0..1, 1), Ok(1));
        assert_eq!(entries_set(&world.machine.take_events()), 0);
        assert_eq!(world.machine.numa_stats(node_id(1)).unwrap().hit - hits, 10);
    }
}

fn world_with_thp(version: KernelVersion) -> World {
    let mut world = World::new(version);
    world.map(512);
    world.machine.madvise(world.task, BASE, 512 * PAGE, Advice::HugePage).unwrap();
    world.write(0..512);
    assert_eq!(world.machine.huge_units(world.task, BASE, 512 * PAGE), (1, 1));
    world
}

/// Fills a node from an area of its own, down to its last page.
fn fill_node(world: &mut World, node: i32) {
    let pages = 16_384;
    let hog = 0x20_0000_0000;
    let anon = MapKind::Anon;
    world.machine.mmap(world.task, hog, pages, anon, Protection::READ_WRITE).unwrap();
    world.machine.madvise(world.task, hog, pages * PAGE, Advice::NoHugePage).unwrap();
    let mut page = hog;
    world.on_cpu(if node == 1 { 2 } else { 0 });
    while world.machine.write(world.task, page, 1).is_ok() {
        if world.machine.node_of(world.task, page).map(|node| node.as_raw()) != Some(node) {
            break;
        }
        page += PAGE;
    }
    world.on_cpu(0);
}

#[test]
fn a_thp_towards_a_full_node_is_enomem_on_6_1_and_one_folio_later() {
    for (version, result) in [
        (KernelVersion::V6_1, Err(Errno::ENOMEM)),
        (KernelVersion::V6_12, Ok(1)),
        (KernelVersion::V7_3, Ok(1)),
    ] {
        let mut world = world_with_thp(version);
        fill_node(&mut world, 1);
        // What is left above the minimum watermark goes to base pages first.
        world
            .machine
            .mmap(world.task, BASE + (1 << 30), 4096, MapKind::Anon, Protection::READ_WRITE)
            .unwrap();
        let spare = BASE + (1 << 30);
        let mut page = 0;
        let earlier = world.counters();
        loop {
            world.machine.write(world.task, spare + page * PAGE, 1).unwrap();
            let moved = world.move_pages((1 << 18) + page..(1 << 18) + page + 1, 1);
            page += 1;
            if moved.is_err() {
                break;
            }
        }
        assert_eq!(world.since(&earlier, Counter::PgmigrateFail), 1);
        let earlier = world.counters();
        assert_eq!(world.move_pages(0..1, 1), result);
        assert_eq!(world.since(&earlier, Counter::ThpMigrationFail), 1);
        assert_eq!(world.since(&earlier, Counter::ThpMigrationSplit), 1);
        assert_eq!(world.since(&earlier, Counter::PgmigrateFail), 1);
        assert_eq!(world.pages_on(0, 0..512), 512);
        world.machine.check().unwrap();
    }
}

#[test]
fn a_thp_that_is_mapped_by_entries_moves_whole_once_and_is_split_the_second_time() {
    for version in KernelVersion::ALL {
        let mut world = world_with_thp(version);
        world.machine.mprotect(world.task, BASE, PAGE, Protection::READ).unwrap();
        world.machine.mprotect(world.task, BASE, PAGE, Protection::READ_WRITE).unwrap();
        let earlier = world.counters();
        assert_eq!(world.move_pages(0..1, 1), Ok(0));
        assert_eq!(world.since(&earlier, Counter::ThpMigrationSuccess), 1);
        assert_eq!(world.pages_on(1, 0..512), 512);
        let earlier = world.counters();
        assert_eq!(world.move_pages(0..1, 0), Ok(0));
        let split = u64::from(version != KernelVersion::V6_1);
        assert_eq!(world.since(&earlier, Counter::ThpMigrationSplit), split);
        assert_eq!(world.since(&earlier, Counter::PgmigrateSuccess), 512);
        assert_eq!(world.pages_on(0, 0..512), 512);
        world.machine.check().unwrap();
    }
}

#[test]
fn a_1_gib_page_moves_only_onto_a_free_page_of_the_pool() {
    for version in KernelVersion::ALL {
        let machine = Machine::boot(three_nodes(4096), version, Options::default());
        let mut world = World::of(machine);
        let pool = |world: &mut World, node, pages| {
            world.machine.set_hugetlb_pool(node_id(node), HUGE_1G, pages).unwrap()
        };
        assert_eq!(pool(&mut world, 0, 1), 1);
        let file =
            world.machine.create_file(FileKind::Hugetlb(HUGE_1G), "/anon_hugepage (deleted)");
        let how = MapKind::Private(file, 0);
        let pages = 1 << HUGE_1G;
        world.machine.mmap(world.task, BASE, pages, how, Protection::READ_WRITE).unwrap();
        world.machine.write(world.task, BASE + 7 * PAGE, 77).unwrap();
        let earlier = world.counters();
        assert_eq!(world.move_pages(0..1, 1), Err(Errno::ENOMEM));
        assert_eq!(world.since(&earlier, Counter::PgmigrateFail), 262_144);
        pool(&mut world, 1, 1);
        let earlier = world.counters();
        assert_eq!(world.move_pages(0..1, 1), Ok(0));
        assert_eq!(world.since(&earlier, Counter::PgmigrateSuccess), 262_144);
        assert_eq!(world.machine.read(world.task, BASE + 7 * PAGE), Ok(77));
        assert_eq!(world.machine.hugetlb_pool(node_id(0), HUGE_1G), (1, 1));
        assert_eq!(world.machine.hugetlb_pool(node_id(1), HUGE_1G), (1, 0));
        world.machine.check().unwrap();
    }
}

#[test]
fn memory_that_mremap_moved_is_still_found_by_the_reverse_map() {
    let mut world = World::new(KernelVersion::V6_12);
    world.map(8);
    world.write(0..8);
    let away = BASE + (1 << 30);
    world.machine.mremap(world.task, BASE, away).unwrap();
    let first = 1 << 18;
    assert_eq!(world.move_pages(first..first + 8, 2), Ok(0));
    assert_eq!(world.pages_on(2, first..first + 8), 8);
    assert_eq!(world.machine.read(world.task, away + 3 * PAGE), Ok(4));
    world.machine.check().unwrap();
}

#[test]
fn every_migration_tells_by_which_functions_it_came() {
    for (version, path) in [
        (KernelVersion::V6_1, "kernel_move_pages > move_pages_and_store_status > migrate_pages"),
        (
            KernelVersion::V7_3,
            "kernel_move_pages > do_pages_move > move_pages_and_store_status > migrate_pages",
        ),
    ] {
        let mut world = World::new(version);
        world.map(4);
        world.write(0..4);
        world.machine.trace_on();
        world.move_pages(0..4, 1).unwrap();
        let calls = explain(&world.machine.take_events());
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].path.to_string(), path);
        assert_eq!((calls[0].counts.succeeded, calls[0].entries_set), (4, 4));
    }
}
