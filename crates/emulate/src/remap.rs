//! mremap(2): pages that move to another address keep their place and their policy.
//!
//! Where the kernel moves them is known only after the call, and nothing tells us then. At the next
//! look at the mappings, the old range is gone or is another mapping, and a place of the new size has
//! appeared.

use model::{Machine, Mirrored, TaskId};

use crate::calls;
use crate::process::Known;
use crate::world::World;

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;
const PAGE: u64 = 4096;

/// What a call asks for; lengths are whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    from: u64,
    length: u64,
    new_length: u64,
    may_move: bool,
    /// Where the caller wants it.
    to: Option<u64>,
    leaves_mapping: bool,
}

impl Request {
    /// `None`: the kernel refuses such arguments, whatever is mapped.
    fn new([from, length, new_length, flags, to, _]: [u64; 6]) -> Option<Self> {
        const ALL: u64 = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        let whole = |bytes: u64| bytes.checked_next_multiple_of(PAGE);
        let (length, new_length) = (whole(length)?, whole(new_length)?);
        let has = |flag| flags & flag != 0;
        let (may_move, leaves_mapping) = (has(MREMAP_MAYMOVE), has(MREMAP_DONTUNMAP));
        let to = has(MREMAP_FIXED).then_some(to);
        let end = |start: u64, length: u64| {
            let end = start.is_multiple_of(PAGE).then(|| start.checked_add(length)).flatten();
            end.filter(|&end| end <= model::USER_LIMIT)
        };
        let from_end = end(from, length)?;
        if let Some(to) = to {
            let to_end = end(to, new_length)?;
            let overlaps = from < to_end && to < from_end;
            if overlaps || !may_move {
                return None;
            }
        }
        let leaves_wrongly = leaves_mapping && !(may_move && length == new_length);
        let is_refused = flags & !ALL != 0 || new_length == 0 || leaves_wrongly;
        (!is_refused).then_some(Self { from, length, new_length, may_move, to, leaves_mapping })
    }
}

/// A call that was let through, and may have moved pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remap {
    from: u64,
    length: u64,
    new_length: u64,
    leaves_mapping: bool,
    /// Something was mapped where it would have grown: it did not grow in place.
    is_hemmed: bool,
}

impl Remap {
    /// Whether what it moved was in `[start, end)`.
    pub(crate) const fn overlaps(&self, start: u64, end: u64) -> bool {
        self.from < end && start < self.from + self.length
    }
}

/// Called before the kernel makes the call. Cheap where nothing is known of the pages.
pub(crate) fn before(world: &mut World, pid: u32, args: [u64; 6]) {
    let Some(request) = Request::new(args) else { return };
    let Request { from, length, new_length, may_move, to, leaves_mapping } = request;
    let end = from + length;
    if starts_in_a_hole(world, pid, &request) {
        return;
    }
    if to.is_none() && !leaves_mapping && new_length <= length {
        return calls::drops(world, pid, from + new_length, length - new_length);
    }
    let Some(task) = world.task(pid) else { return };
    let Some(process) = world.processes.get(&pid) else { return };
    let is_moved_at_once = to.is_some() && process.remaps.iter().any(|it| it.overlaps(from, end));
    if is_moved_at_once || process.first_touch.overlaps(from, end) {
        world.settle(pid);
    }
    if let Some(to) = to {
        calls::drops(world, pid, to, new_length);
        calls::drops(world, pid, from + new_length, length.saturating_sub(new_length));
    }
    let Some(process) = world.processes.get_mut(&pid) else { return };
    let is_known = process.known == Known::InModel && world.machine.knows(task, from, end);
    // Of no length: shared memory is mapped a second time, and stays.
    if !is_known || length == 0 {
        return;
    }
    if let Some(to) = to {
        let kept = length.min(new_length);
        world.machine.relocate(task, from, kept, to, leaves_mapping);
        world.machine.grow(task, to + kept, to + new_length);
    } else if may_move {
        let grown = from + new_length;
        let is_left = process.remaps.iter().any(|it| it.overlaps(end, grown));
        let is_hemmed = !is_left && world.machine.is_mapped(task, end, grown);
        process.remaps.push(Remap { from, length, new_length, leaves_mapping, is_hemmed });
    }
}

/// Whether nothing is mapped where a request begins: the kernel refuses it, and unmaps nothing. Asked
/// only where that makes a difference; what was mapped since the last look is not known without one.
fn starts_in_a_hole(world: &mut World, pid: u32, request: &Request) -> bool {
    let &Request { from, length, new_length, to, .. } = request;
    let Some(task) = world.task(pid) else { return false };
    let is_mapped =
        |world: &World, start, length| world.machine.is_mapped(task, start, start + length);
    let is_known_target = to.is_some_and(|to| is_mapped(world, to, new_length));
    if is_mapped(world, from, 1) || !(is_known_target || is_mapped(world, from, length)) {
        return false;
    }
    world.settle(pid);
    !is_mapped(world, from, 1)
}

/// Makes the model follow what has become of the calls, before it mirrors `mappings`.
pub(crate) fn follow(
    machine: &mut Machine,
    task: TaskId,
    remaps: &mut Vec<Remap>,
    mappings: &[Mirrored],
) {
    for Remap { from, length, new_length, leaves_mapping, is_hemmed } in remaps.drain(..) {
        // What is mapped there may be new: the hole that a move leaves is soon filled.
        let is_mapped = mappings.iter().any(|it| it.start <= from && from < it.end);
        if is_mapped && !leaves_mapping && !is_hemmed {
            if mappings.iter().any(|it| it.start <= from && from + new_length <= it.end) {
                machine.grow(task, from + length, from + new_length);
            }
            continue;
        }
        let free = machine.unmirrored(task, mappings);
        let size = |place: &(u64, u64)| place.1 - place.0;
        // A neighbour may have grown onto it: then the smallest that has room.
        let fitting = free.iter().filter(|place| size(place) >= new_length);
        if let Some(&(to, _)) = fitting.min_by_key(|place| size(place)) {
            machine.relocate(task, from, length, to, leaves_mapping);
            machine.grow(task, to + length, to + new_length);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Credentials, Found, KernelVersion, MapKind, Options, Protection};

    use super::*;

    const BASE: u64 = 0x7000_0000_0000;
    const MIB: u64 = 1 << 20;

    #[test]
    fn what_the_kernel_refuses_by_its_arguments_is_no_request() {
        let is_request = |args| Request::new(args).is_some();
        assert!(is_request([BASE, 4096, 1, 0, 0, 0]));
        assert!(is_request([BASE, 4096, 8192, 1, 1, 0]));
        assert!(is_request([BASE, 4096, 8192, 3, BASE + 4096, 0]));
        assert!(is_request([BASE, 4096, 4096, 5, 0, 0]));
        for refused in [
            [BASE + 1, 4096, 4096, 0, 0, 0],
            [BASE, 4096, 0, 0, 0, 0],
            [BASE, 4096, u64::MAX, 1, 0, 0],
            [u64::MAX - 4095, 8192, 4096, 0, 0, 0],
            [BASE, 4096, 4096, 2, BASE + MIB, 0],
            [BASE, 4096, 4096, 3, BASE + MIB + 1, 0],
            [BASE, 4096, 4096, 3, model::USER_LIMIT, 0],
            [BASE, 8192, 8192, 3, BASE + 4096, 0],
            [BASE, 4096, 8192, 5, 0, 0],
            [BASE, 4096, 4096, 4, 0, 0],
            [BASE, 4096, 4096, 8, 0, 0],
        ] {
            assert!(!is_request(refused), "{refused:?}");
        }
    }

    #[test]
    fn what_could_not_grow_in_place_has_moved_whatever_is_mapped_there_now() {
        let anon = |start, end| Mirrored {
            start,
            end,
            kind: MapKind::Anon,
            protection: Protection::READ_WRITE,
        };
        let to = BASE + 64 * MIB;
        for (is_hemmed, old, new) in [(true, None, Some(0)), (false, Some(0), None)] {
            let topology = machine::load("two-socket").unwrap();
            let mut machine = Machine::boot(topology, KernelVersion::V6_12, Options::default());
            let task = machine.spawn(Credentials::ROOT, machine::CpuId::new(0).unwrap());
            machine.mirror(task, &[anon(BASE, BASE + 2 * MIB)]);
            machine.place(task, BASE, BASE + MIB, Found::Anon).unwrap();
            let (length, new_length) = (MIB, 2 * MIB);
            let remap = Remap { from: BASE, length, new_length, leaves_mapping: false, is_hemmed };
            let mappings = [anon(BASE, BASE + 2 * MIB), anon(to, to + 2 * MIB)];
            follow(&mut machine, task, &mut vec![remap], &mappings);
            machine.mirror(task, &mappings);
            let node = |at| machine.node_of(task, at).map(machine::NodeId::get);
            assert_eq!((node(BASE), node(to)), (old, new), "{is_hemmed}");
            machine.check().unwrap();
        }
    }
}
