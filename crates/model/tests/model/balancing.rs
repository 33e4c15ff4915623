//! Automatic balancing, tiering and demotion, against what real kernels were seen to do
//! (behaviour spec, section 10).

use machine::CpuId;
use pagetide_model::{
    Advice, BALANCE_NORMAL, BALANCE_TIERING, BalancingSettings, Buffers, Counter, FileKind,
    KernelVersion, MapKind, MbindArgs, Protection, Reclaimer, TaskId, explain, mode_flag,
};

use crate::world::{BASE, PAGE, World, node_id};

const BIND: i32 = 2;
const MASK: u64 = 0x1000;

fn balancing_world(version: KernelVersion, mode: u8) -> World {
    let mut world = World::new(version);
    let settings = BalancingSettings { mode, ..world.machine.balancing() };
    world.machine.set_balancing(settings).unwrap();
    world
}

/// 64 pages on node 0 that have left the per-CPU batch.
fn with_pages(version: KernelVersion, mode: u8) -> World {
    let mut world = balancing_world(version, mode);
    world.map(64);
    world.write(0..64);
    drain(&mut world);
    world
}

/// A call that moves nothing and empties the batches.
fn drain(world: &mut World) {
    world.move_pages(0..0, 0).unwrap();
}

/// Lets the thread burn CPU until it has scanned once more.
fn scan(world: &mut World, task: TaskId) {
    let updates = world.machine.counters().get(Counter::NumaPteUpdates);
    for _ in 0..700 {
        world.machine.run(task, 100);
        if world.machine.counters().get(Counter::NumaPteUpdates) > updates {
            return;
        }
    }
}

fn bind(world: &mut World, nodes: u64, flags: u16) {
    let mut user = Buffers::default();
    user.put(MASK, nodes.to_le_bytes().to_vec());
    let args = MbindArgs {
        start: BASE,
        length: 64 * PAGE,
        mode: BIND | i32::from(flags),
        mask: MASK,
        maxnode: 65,
        flags: 0,
    };
    world.machine.mbind(&user, world.task, args).unwrap();
}

#[test]
fn pages_of_another_node_come_at_the_first_hint_fault() {
    for version in KernelVersion::ALL {
        let mut world = with_pages(version, BALANCE_NORMAL);
        world.on_cpu(2);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        assert_eq!(world.since(&earlier, Counter::NumaPteUpdates), 64);
        world.machine.trace_on();
        world.read(0..64);
        assert_eq!(world.since(&earlier, Counter::NumaHintFaults), 64);
        assert_eq!(world.since(&earlier, Counter::NumaPagesMigrated), 64);
        assert_eq!(world.pages_on(1, 0..64), 64);
        let calls = explain(&world.machine.take_events());
        assert_eq!(calls.len(), 64, "one folio a call");
        let function = if version == KernelVersion::V6_1 { "page" } else { "folio" };
        assert_eq!(
            calls[0].path.to_string(),
            format!(
                "handle_mm_fault > __handle_mm_fault > migrate_misplaced_{function} > migrate_pages"
            )
        );
        world.machine.check().unwrap();
    }
}

#[test]
fn a_single_thread_takes_no_hint_faults_for_local_pages() {
    for version in KernelVersion::ALL {
        let mut world = with_pages(version, BALANCE_NORMAL);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        world.read(0..64);
        assert_eq!(world.since(&earlier, Counter::NumaPteUpdates), 0);
        assert_eq!(world.since(&earlier, Counter::NumaHintFaults), 0);
    }
}

#[test]
fn a_policy_without_the_balancing_flag_switches_balancing_off() {
    for version in KernelVersion::ALL {
        let mut world = with_pages(version, BALANCE_NORMAL);
        bind(&mut world, 0b11, 0);
        world.on_cpu(2);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        assert_eq!(world.since(&earlier, Counter::NumaPteUpdates), 0);
    }
}

#[test]
fn a_policy_with_the_balancing_flag_moves_pages_within_its_nodes() {
    for (nodes, moved) in [(0b11, 64), (0b01, 0)] {
        let mut world = with_pages(KernelVersion::V6_12, BALANCE_NORMAL);
        bind(&mut world, nodes, mode_flag::BALANCING);
        world.on_cpu(2);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        world.read(0..64);
        assert_eq!(world.since(&earlier, Counter::NumaPteUpdates), 64);
        assert_eq!(world.since(&earlier, Counter::NumaHintFaults), 64);
        assert_eq!(world.pages_on(1, 0..64), moved);
    }
}

/// Thread Y on node 1 takes the pages; then thread X on node 0 uses them twice, a scan apart.
/// How many had come to X after its first and after its second pass.
fn second_thread(version: KernelVersion, by_writes: bool) -> (u64, u64) {
    let mut world = with_pages(version, BALANCE_NORMAL);
    let x = world.task;
    let y = world.machine.clone_thread(x).unwrap();
    world.machine.set_cpu(y, CpuId::new(2).unwrap()).unwrap();
    let touch = |world: &mut World, task: TaskId| {
        world.task = task;
        if by_writes {
            world.write(0..64)
        } else {
            world.read(0..64)
        }
        world.task = x;
    };
    scan(&mut world, y);
    touch(&mut world, y);
    assert_eq!(world.pages_on(1, 0..64), 64);
    scan(&mut world, x);
    touch(&mut world, x);
    let first = world.pages_on(0, 0..64);
    scan(&mut world, x);
    touch(&mut world, x);
    (first, world.pages_on(0, 0..64))
}

#[test]
fn the_two_stage_filter_wants_two_faults_from_the_same_node() {
    for version in KernelVersion::ALL {
        assert_eq!(second_thread(version, false), (0, 64));
    }
}

#[test]
fn a_page_that_was_moved_by_a_store_forgets_its_thread_since_6_12() {
    assert_eq!(second_thread(KernelVersion::V6_1, true), (0, 64));
    assert_eq!(second_thread(KernelVersion::V6_12, true), (64, 64));
    assert_eq!(second_thread(KernelVersion::V7_3, true), (64, 64));
}

#[test]
fn pages_that_wait_in_a_cpu_batch_stay_behind() {
    let mut world = balancing_world(KernelVersion::V6_12, BALANCE_NORMAL);
    world.map(64);
    world.write(0..64);
    world.on_cpu(2);
    let task = world.task;
    scan(&mut world, task);
    world.read(0..64);
    let stayed = world.pages_on(0, 0..64);
    assert!((1..15).contains(&stayed), "{stayed} of 64 were still in the batch");
}

#[test]
fn a_thp_is_one_hint_fault_and_512_pages() {
    for version in KernelVersion::ALL {
        let mut world = balancing_world(version, BALANCE_NORMAL);
        world.map(512);
        world.machine.madvise(world.task, BASE, 512 * PAGE, Advice::HugePage).unwrap();
        world.write(0..1);
        world.on_cpu(2);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        world.read(5..6);
        assert_eq!(world.since(&earlier, Counter::NumaHugePteUpdates), 1);
        assert_eq!(world.since(&earlier, Counter::NumaHintFaults), 1);
        assert_eq!(world.since(&earlier, Counter::NumaPagesMigrated), 512);
        assert_eq!(world.since(&earlier, Counter::ThpMigrationSuccess), 1);
        assert_eq!(world.machine.huge_units(world.task, BASE, 512 * PAGE), (1, 1));
    }
}

#[test]
fn shared_memory_is_balanced_since_6_12() {
    for version in KernelVersion::ALL {
        let mut world = balancing_world(version, BALANCE_NORMAL);
        let file = world.machine.create_file(FileKind::Memfd, "/memfd:b (deleted)");
        let how = MapKind::Shared(file, 0);
        world.machine.mmap(world.task, BASE, 64, how, Protection::READ_WRITE).unwrap();
        world.write(0..64);
        drain(&mut world);
        world.on_cpu(2);
        let task = world.task;
        scan(&mut world, task);
        world.read(0..64);
        let moved = if version == KernelVersion::V6_1 { 0 } else { 64 };
        assert_eq!(world.pages_on(1, 0..64), moved);
    }
}

#[test]
fn a_task_whose_cpuset_has_one_node_is_scanned_in_vain_before_7_3() {
    for version in KernelVersion::ALL {
        let mut world = with_pages(version, BALANCE_NORMAL);
        let group = world.machine.make_cpuset(pagetide_model::CpusetId::ROOT);
        world.machine.set_mems(group, "0".parse().unwrap()).unwrap();
        world.machine.join_cpuset(group, world.task).unwrap();
        world.on_cpu(2);
        let (earlier, task) = (world.counters(), world.task);
        scan(&mut world, task);
        world.read(0..64);
        let tried = if version == KernelVersion::V7_3 { 0 } else { 64 };
        assert_eq!(world.since(&earlier, Counter::NumaPteUpdates), tried);
        assert_eq!(world.since(&earlier, Counter::PgmigrateFail), tried);
        assert_eq!(world.pages_on(0, 0..64), 64);
    }
}

/// A thread on node 1 whose 64 pages of shared memory on node 0 are marked in each scan.
fn with_shared_memory(version: KernelVersion) -> World {
    let mut world = balancing_world(version, BALANCE_NORMAL);
    let file = world.machine.create_file(FileKind::Memfd, "/memfd:b (deleted)");
    let how = MapKind::Shared(file, 0);
    world.machine.mmap(world.task, BASE, 64, how, Protection::READ_WRITE).unwrap();
    world.write(0..64);
    drain(&mut world);
    world.on_cpu(2);
    world
}

#[test]
fn a_page_that_came_at_its_fault_counts_as_remote() {
    let mut world = with_shared_memory(KernelVersion::V6_12);
    let task = world.task;
    let mut periods = Vec::new();
    for _ in 0..3 {
        scan(&mut world, task);
        world.read(0..64);
        periods.push(world.machine.scan_period_ms(task).unwrap());
    }
    // Before the first faults nothing is known, and those that followed were all remote: it doubles
    // twice. Then the pages had come.
    assert_eq!(periods, [2000, 4000, 5200]);
}

#[test]
fn the_longest_scan_period_is_shared_among_the_windows_of_an_address_space() {
    let mut world = with_pages(KernelVersion::V6_12, BALANCE_NORMAL);
    let settings = BalancingSettings { scan_size_mib: 1, ..world.machine.balancing() };
    world.machine.set_balancing(settings).unwrap();
    let far = BASE + 1024 * PAGE;
    let task = world.task;
    world.machine.mmap(task, far, 1024, MapKind::Anon, Protection::READ_WRITE).unwrap();
    world.machine.populate(task, far, 1024 * PAGE, None).unwrap();
    world.on_cpu(2);
    for _ in 0..100 {
        scan(&mut world, task);
        world.read(0..64);
    }
    // 1088 pages are five windows of 256.
    assert!(world.machine.scan_period_ms(task).unwrap() <= 60_000 / 5);
}

#[test]
fn a_thread_takes_back_what_it_used_last_while_it_is_young() {
    for version in KernelVersion::ALL {
        let mut world = with_pages(version, BALANCE_NORMAL);
        let task = world.task;
        // Another thread, so that local pages are marked too and a preferred node is found.
        world.machine.clone_thread(task).unwrap();
        world.on_cpu(2);
        for _ in 0..2 {
            scan(&mut world, task);
            world.read(0..64);
        }
        assert_eq!(world.machine.preferred_node(task), Some(node_id(1)));
        world.on_cpu(0);
        scan(&mut world, task);
        world.read(0..64);
        assert_eq!(world.pages_on(0, 0..64), 64);
    }
}

#[test]
fn a_new_thread_has_a_scan_time_of_its_own() {
    let mut world = with_pages(KernelVersion::V6_12, BALANCE_NORMAL);
    let task = world.task;
    world.on_cpu(2);
    scan(&mut world, task);
    world.read(0..64);
    assert_eq!(world.machine.scan_period_ms(task), Some(2000));
    let thread = world.machine.clone_thread(task).unwrap();
    let child = world.machine.fork(task).unwrap();
    assert_eq!(world.machine.scan_period_ms(thread), Some(1000), "the delay of a first scan");
    assert_eq!(world.machine.scan_period_ms(child), Some(0), "not run yet");
}

#[test]
fn time_that_a_thread_ran_before_balancing_was_on_counts() {
    let mut world = balancing_world(KernelVersion::V6_12, 0);
    let task = world.task;
    world.machine.run(task, 3000);
    let settings = BalancingSettings {
        mode: BALANCE_NORMAL,
        scan_period_min_ms: 100,
        ..world.machine.balancing()
    };
    world.machine.set_balancing(settings).unwrap();
    world.machine.run(task, 4);
    assert_eq!(world.machine.scan_period_ms(task), Some(100), "its first scan is due");
}

#[test]
fn a_second_thread_puts_the_first_scan_off() {
    let mut world = with_pages(KernelVersion::V6_12, BALANCE_NORMAL);
    let task = world.task;
    world.on_cpu(2);
    world.machine.run(task, 1990);
    world.machine.clone_thread(task).unwrap();
    world.machine.run(task, 990);
    assert_eq!(world.machine.counters().get(Counter::NumaPteUpdates), 0);
    world.machine.run(task, 1100);
    assert_eq!(world.machine.counters().get(Counter::NumaPteUpdates), 64);
}

/// The scan periods of a thread of two that tried in vain to bring 64 pages, then was let.
fn periods_after_a_failure(version: KernelVersion) -> Vec<u64> {
    let mut world = with_pages(version, BALANCE_NORMAL);
    let task = world.task;
    world.machine.clone_thread(task).unwrap();
    let group = world.machine.make_cpuset(pagetide_model::CpusetId::ROOT);
    world.machine.set_mems(group, "0".parse().unwrap()).unwrap();
    world.machine.join_cpuset(group, task).unwrap();
    world.on_cpu(2);
    scan(&mut world, task);
    world.read(0..64);
    world.machine.set_mems(group, "0-1".parse().unwrap()).unwrap();
    let period = |world: &mut World| {
        scan(world, task);
        world.read(0..64);
        world.machine.scan_period_ms(task).unwrap()
    };
    (0..4).map(|_| period(&mut world)).collect()
}

#[test]
fn on_6_1_a_thread_that_once_failed_to_bring_a_page_scans_ever_less() {
    assert_eq!(periods_after_a_failure(KernelVersion::V6_1), [4000, 8000, 16_000, 32_000]);
    // All pages came in the first of these scans; what it booked shows in the second, as remote.
    assert_eq!(periods_after_a_failure(KernelVersion::V6_12), [4000, 8000, 10_400, 13_520]);
}

/// 64 pages on the slower node 2, marked in tiering mode; then used `wait_ms` later.
fn promoted(version: KernelVersion, wait_ms: u64) -> (World, u64) {
    let mut world = with_pages(version, BALANCE_TIERING);
    world.move_pages(0..64, 2).unwrap();
    let (earlier, task) = (world.counters(), world.task);
    scan(&mut world, task);
    world.machine.sleep(wait_ms);
    world.read(0..64);
    let candidates = world.since(&earlier, Counter::PgpromoteCandidate);
    assert_eq!(candidates, world.since(&earlier, Counter::PgpromoteSuccess));
    (world, candidates)
}

#[test]
fn a_page_of_a_slower_tier_is_promoted_when_it_is_used_soon_after_it_was_marked() {
    for version in [KernelVersion::V6_12, KernelVersion::V7_3] {
        let (world, candidates) = promoted(version, 100);
        assert_eq!((candidates, world.pages_on(0, 0..64)), (64, 64));
        let (world, candidates) = promoted(version, 1500);
        assert_eq!((candidates, world.pages_on(2, 0..64)), (0, 64));
    }
}

#[test]
fn on_6_1_memory_that_was_there_at_boot_is_never_of_a_slower_tier() {
    let (world, candidates) = promoted(KernelVersion::V6_1, 100);
    assert_eq!((candidates, world.pages_on(2, 0..64)), (0, 64));
}

#[test]
fn reclaim_demotes_what_was_not_used_to_the_next_tier() {
    for (version, counter) in [
        (KernelVersion::V6_12, Counter::PgdemoteDirect),
        (KernelVersion::V7_3, Counter::PgdemoteProactive),
    ] {
        let mut world = with_pages(version, 0);
        world.machine.set_demotion(true);
        let moved = world.machine.demote(node_id(0), 32, Reclaimer::Proactive, None);
        assert_eq!((moved, world.pages_on(2, 0..64)), (32, 32));
        assert_eq!(world.machine.counters().get(counter), 32);
        let near = "0-1".parse().unwrap();
        let moved = world.machine.demote(node_id(0), 32, Reclaimer::Proactive, Some(&near));
        let allowed = if version == KernelVersion::V7_3 { 0 } else { 32 };
        assert_eq!(moved, allowed, "7.3 keeps to the cpuset of the memory cgroup");
        world.machine.check().unwrap();
    }
}

#[test]
fn a_page_that_is_used_is_spared_by_the_first_turn_of_the_clock() {
    let mut world = with_pages(KernelVersion::V7_3, 0);
    world.machine.set_demotion(true);
    world.machine.madvise(world.task, BASE, 32 * PAGE, Advice::Cold).unwrap();
    world.machine.demote(node_id(0), 32, Reclaimer::Kswapd, None);
    assert_eq!((world.pages_on(2, 0..32), world.pages_on(0, 32..64)), (32, 32));
}

#[test]
fn the_slowest_tier_demotes_nowhere() {
    let mut world = with_pages(KernelVersion::V6_12, 0);
    world.machine.set_demotion(true);
    let (preferred, fallback) = world.machine.demotion_targets(node_id(0));
    assert_eq!((preferred.to_string(), fallback.to_string()), ("2".into(), "2".into()));
    assert!(world.machine.demotion_targets(node_id(2)).1.is_empty());
    assert_eq!(world.machine.demote(node_id(2), 8, Reclaimer::Direct, None), 0);
}
