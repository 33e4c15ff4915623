//! Accesses in blocks: faster, and otherwise the same as one after the other.

use pagetide_model::{Access, AccessCounts, KernelVersion, MapKind, Protection};
use proptest::prelude::*;

use crate::world::{BASE, PAGE, World, node_id};

/// Pages that are mapped; some of them on node 1, the last ones untouched.
const PAGES: u64 = 700;

fn world() -> World {
    let mut world = World::new(KernelVersion::V6_12);
    world.map(PAGES);
    world.write(0..600);
    world.move_pages(100..250, 1).unwrap();
    world.machine.mprotect(world.task, BASE + 300 * PAGE, PAGE, Protection::READ).unwrap();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_block_of_accesses_is_one_access_after_the_other(
        pages in prop::collection::vec(0u32..700, 0..600),
        writes in any::<bool>(),
    ) {
        let access = if writes { Access::Write } else { Access::Read };
        let (mut by_block, mut one_by_one) = (world(), world());
        let mut counts = AccessCounts::default();
        let task = by_block.task;
        let done = by_block.machine.access_pages(task, BASE, &pages, access, &mut counts);
        let mut expected = [0; 2];
        let mut ended = Ok(());
        for page in &pages {
            let address = BASE + u64::from(*page) * PAGE;
            ended = one_by_one.machine.access(task, address, access);
            if ended.is_err() {
                break;
            }
            let node = one_by_one.machine.node_of(task, address).map_or(0, |node| node.index());
            expected[node] += 1;
        }
        prop_assert_eq!(done, ended);
        let found = [0, 1].map(|node| by_block.machine.accesses_on(&counts, node_id(node)));
        prop_assert_eq!(found, expected);
        prop_assert!(by_block.machine == one_by_one.machine);
    }
}

#[test]
fn an_access_beyond_the_mapping_ends_the_block() {
    let mut world = world();
    let far = BASE + (1 << 30);
    world.machine.mmap(world.task, far, 4, MapKind::Anon, Protection::READ_WRITE).unwrap();
    let mut counts = AccessCounts::default();
    let pages = [0, 1, 5000, 2];
    let task = world.task;
    let ended = world.machine.access_pages(task, BASE, &pages, Access::Read, &mut counts);
    assert!(ended.is_err());
    assert_eq!(world.machine.accesses_on(&counts, node_id(0)), 2);
}
