//! mremap(2): pages that move to another address keep their place and their policy.
//!
//! Where the kernel moves them is known only after the call, and nothing tells us then. At the next
//! look at the mappings, the old range is gone, and a place of the new size has appeared.

use model::{Machine, Mirrored, TaskId};

use crate::process::Known;
use crate::world::World;

const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;
const PAGE: u64 = 4096;

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remap {
    from: u64,
    length: u64,
    new_length: u64,
    leaves_mapping: bool,
}

/// Called before the kernel makes the call. Cheap where nothing is known of the pages.
pub(crate) fn before(world: &mut World, pid: u32, args: [u64; 6]) {
    let [from, length, new_length, flags, to, _] = args;
    let whole = |bytes: u64| bytes.checked_next_multiple_of(PAGE);
    let (Some(length), Some(new_length)) = (whole(length), whole(new_length)) else { return };
    let Some(task) = world.task(pid) else { return };
    let Some(end) = from.checked_add(length) else { return };
    let Some(process) = world.processes.get(&pid) else { return };
    if process.first_touch.overlaps(from, end) {
        world.settle(pid);
    }
    let Some(process) = world.processes.get_mut(&pid) else { return };
    let is_known = process.known == Known::InModel && world.machine.knows(task, from, end);
    if !is_known || !from.is_multiple_of(PAGE) {
        return;
    }
    if flags & MREMAP_FIXED != 0 {
        world.machine.relocate(task, from, length.min(new_length), to);
    } else if new_length > length || flags & MREMAP_DONTUNMAP != 0 {
        let leaves_mapping = flags & MREMAP_DONTUNMAP != 0;
        process.remaps.push(Remap { from, length, new_length, leaves_mapping });
    }
}

/// Makes the model follow what has become of the calls, before it mirrors `mappings`.
pub(crate) fn follow(
    machine: &mut Machine,
    task: TaskId,
    remaps: &mut Vec<Remap>,
    mappings: &[Mirrored],
) {
    for Remap { from, length, new_length, leaves_mapping } in remaps.drain(..) {
        let stayed = mappings.iter().any(|it| it.start <= from && from < it.end);
        if stayed && !leaves_mapping {
            continue;
        }
        let free = machine.unmirrored(task, mappings);
        let size = |place: &(u64, u64)| place.1 - place.0;
        // A neighbour may have grown onto it: then the smallest that has room.
        let fitting = free.iter().filter(|place| size(place) >= new_length);
        if let Some(&(to, _)) = fitting.min_by_key(|place| size(place)) {
            machine.relocate(task, from, length, to);
        }
    }
}
