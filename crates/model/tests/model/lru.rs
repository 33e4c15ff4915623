//! What empties the batch of a CPU, seen by where a store after a fork finds its page: taken over
//! where it is, or copied to the node of the writer because the batch still holds it. The table is
//! what real kernels gave.

use machine::CpuId;
use pagetide_model::{Advice, KernelVersion, MapKind, Protection};

use crate::world::{BASE, PAGE, World, node_id};

const OTHER: u64 = BASE + (1 << 30);
const HUGE: u64 = 512;

/// Does something on CPU 0, with memory at [`OTHER`].
type Deed = fn(&mut World);

/// Whether the batch of CPU 0 is empty after `deed`.
fn empties(version: KernelVersion, deed: Deed) -> bool {
    let mut world = World::new(version);
    let other = world.machine.mmap(world.task, OTHER, HUGE, MapKind::Anon, Protection::READ_WRITE);
    other.unwrap();
    world.map(1);
    world.write(0..1);
    let child = world.machine.fork(world.task).unwrap();
    world.machine.set_cpu(child, CpuId::new(3).unwrap()).unwrap();
    world.machine.munmap(child, BASE, PAGE).unwrap();
    deed(&mut world);
    world.on_cpu(2);
    world.write(0..1);
    world.machine.node_of(world.task, BASE) == Some(node_id(0))
}

#[test]
fn the_calls_that_empty_a_batch_are_those_of_the_kernel() {
    let deeds: [(&str, Deed, [bool; 3]); 9] = [
        ("nothing", |_| {}, [false; 3]),
        ("a store", |world| world.machine.write(world.task, OTHER, 1).unwrap(), [false; 3]),
        (
            "munmap",
            |world| world.machine.munmap(world.task, OTHER, PAGE).unwrap(),
            [true, true, false],
        ),
        ("MADV_DONTNEED", |world| advised(world, Advice::DontNeed), [true, true, false]),
        ("MADV_COLD", |world| advised(world, Advice::Cold), [true; 3]),
        ("MADV_PAGEOUT", |world| advised(world, Advice::PageOut), [true; 3]),
        ("MADV_POPULATE_WRITE", |world| advised(world, Advice::PopulateWrite), [true; 3]),
        (
            "mlock2 with MLOCK_ONFAULT",
            |world| world.machine.mlock(world.task, OTHER, PAGE, true).unwrap(),
            [true; 3],
        ),
        ("the first touch of a THP", first_thp, [true; 3]),
    ];
    for (name, deed, expected) in deeds {
        let found = KernelVersion::ALL.map(|version| empties(version, deed));
        assert_eq!(found, expected, "{name} on 6.1, 6.12 and 7.3");
    }
}

fn advised(world: &mut World, advice: Advice) {
    world.machine.madvise(world.task, OTHER, PAGE, advice).unwrap();
}

fn first_thp(world: &mut World) {
    world.machine.madvise(world.task, OTHER, HUGE * PAGE, Advice::HugePage).unwrap();
    world.machine.write(world.task, OTHER, 1).unwrap();
}

#[test]
fn a_page_that_was_made_cold_is_copied_until_its_batch_is_emptied_since_6_12() {
    let copied = |version, drains: bool| {
        let mut world = World::new(version);
        world.map(1);
        world.write(0..1);
        let child = world.machine.fork(world.task).unwrap();
        world.machine.drain_lru_batch(child);
        world.machine.munmap(child, BASE, PAGE).unwrap();
        world.machine.madvise(world.task, BASE, PAGE, Advice::Cold).unwrap();
        if drains {
            world.machine.drain_lru_batch(world.task);
        }
        world.on_cpu(2);
        world.write(0..1);
        world.machine.check().unwrap();
        world.machine.node_of(world.task, BASE) == Some(node_id(1))
    };
    let found = KernelVersion::ALL.map(|version| (copied(version, false), copied(version, true)));
    assert_eq!(found, [(false, false), (true, false), (true, false)]);
}
