//! Tests of adoption.

use super::*;
use crate::mm::fault::Fault;
use crate::mm::file::FileKind;
use crate::mm::mapping::{MapKind, PAGE_BYTES};
use crate::mm::vma::Protection;
use crate::{Credentials, KernelVersion, Options};
use machine::{CpuId, Topology};

const BASE: u64 = 0x7000_0000_0000;
const MIB: u64 = 1 << 20;

fn machine() -> Machine {
    let topology: Topology = machine::load("two-socket").unwrap();
    Machine::boot(topology, KernelVersion::V6_12, Options::default())
}

/// A process with an empty address space, on this CPU.
fn adopted(machine: &mut Machine, number: i32, cpu: u32) -> TaskId {
    machine.set_last_task(number - 1);
    let task = machine.spawn(Credentials::ROOT, CpuId::new(cpu).unwrap());
    machine.exec(task, task);
    task
}

fn anon(start: u64, end: u64) -> Mirrored {
    Mirrored { start, end, kind: MapKind::Anon, protection: Protection::READ_WRITE }
}

fn nodes(machine: &Machine, task: TaskId, start: u64, pages: u64) -> Vec<Option<u16>> {
    let node = |page| machine.node_of(task, start + page * PAGE_BYTES).map(|node| node.get());
    (0..pages).map(node).collect()
}

#[test]
fn an_adopted_task_has_the_number_that_was_asked_for() {
    let mut machine = machine();
    let task = adopted(&mut machine, 4711, 0);
    assert_eq!((task.get(), machine.task(4711)), (4711, Some(task)));
    assert_eq!(machine.fork(task).unwrap().get(), 4712);
    machine.check().unwrap();
}

#[test]
fn pages_are_placed_where_a_first_touch_would_put_them_and_placed_ones_stay() {
    let mut machine = machine();
    let task = adopted(&mut machine, 9, 0);
    machine.mirror(task, &[anon(BASE, BASE + MIB)]);
    machine.place(task, BASE, BASE + 2 * PAGE_BYTES, Found::Anon).unwrap();
    machine.set_cpu(task, CpuId::new(2).unwrap()).unwrap();
    machine.place(task, BASE, BASE + 4 * PAGE_BYTES, Found::Anon).unwrap();
    let placed = [Some(0), Some(0), Some(1), Some(1), None];
    assert_eq!(nodes(&machine, task, BASE, 5), placed);
    machine.check().unwrap();
}

#[test]
fn threads_place_alike_as_long_as_policy_and_node_are_the_same() {
    let mut machine = machine();
    let one = adopted(&mut machine, 9, 0);
    let other = machine.clone_thread(one).unwrap();
    machine.set_cpu(other, CpuId::new(1).unwrap()).unwrap();
    assert!(machine.places_alike(one, other));
    machine.set_cpu(other, CpuId::new(2).unwrap()).unwrap();
    assert!(!machine.places_alike(one, other));
}

#[test]
fn mirroring_keeps_what_is_alike_and_drops_what_is_gone() {
    let mut machine = machine();
    let task = adopted(&mut machine, 9, 0);
    machine.mirror(task, &[anon(BASE, BASE + MIB)]);
    machine.place(task, BASE, BASE + MIB, Found::Anon).unwrap();
    let free = machine.free_pages(machine::NodeId::new(0).unwrap());
    let hole = [anon(BASE, BASE + MIB / 4), anon(BASE + MIB / 2, BASE + 2 * MIB)];
    machine.mirror(task, &hole);
    let freed = machine.free_pages(machine::NodeId::new(0).unwrap()) - free;
    assert_eq!(freed, MIB / 4 / PAGE_BYTES);
    assert_eq!(
        machine.unplaced(task, BASE + MIB / 2, BASE + 2 * MIB, Found::Anon),
        [(BASE + MIB, BASE + 2 * MIB)]
    );
    assert!(machine.unmirrored(task, &hole).is_empty());
    machine.check().unwrap();
}

#[test]
fn a_huge_page_is_placed_whole_and_a_part_of_it_can_be_forgotten() {
    let mut machine = machine();
    let task = adopted(&mut machine, 9, 0);
    machine.mirror(task, &[anon(BASE, BASE + 4 * MIB)]);
    machine.place(task, BASE, BASE + 4 * MIB, Found::Huge).unwrap();
    assert_eq!(machine.huge_units(task, BASE, 4 * MIB), (2, 2));
    machine.forget(task, BASE, BASE + PAGE_BYTES);
    assert_eq!(nodes(&machine, task, BASE, 2), [None, Some(0)]);
    machine.check().unwrap();
}

#[test]
fn shared_pages_have_one_place_for_all_who_map_them() {
    let mut machine = machine();
    let file = machine.create_file(FileKind::Memfd, "/memfd:x");
    let kind = MapKind::Shared(file, 0);
    let mapping = Mirrored { kind, ..anon(BASE, BASE + MIB) };
    let (one, two) = (adopted(&mut machine, 9, 2), adopted(&mut machine, 11, 0));
    for task in [one, two] {
        machine.mirror(task, &[mapping]);
        machine.place(task, BASE, BASE + PAGE_BYTES, Found::File).unwrap();
    }
    assert_eq!(nodes(&machine, two, BASE, 1), [Some(1)]);
    machine.check().unwrap();
}

#[test]
fn pages_shared_after_fork_are_known_as_such_until_one_side_writes() {
    let mut machine = machine();
    let parent = adopted(&mut machine, 9, 0);
    machine.mirror(parent, &[anon(BASE, BASE + MIB)]);
    machine.place(parent, BASE, BASE + 2 * PAGE_BYTES, Found::Anon).unwrap();
    assert!(machine.copy_on_write_runs(parent).is_empty());
    let child = machine.fork(parent).unwrap();
    machine.set_cpu(child, CpuId::new(2).unwrap()).unwrap();
    assert_eq!(machine.copy_on_write_runs(child), [(BASE, BASE + 2 * PAGE_BYTES)]);
    machine.unshare(child, BASE).unwrap();
    assert_eq!(nodes(&machine, child, BASE, 2), [Some(1), Some(0)]);
    assert_eq!(nodes(&machine, parent, BASE, 2), [Some(0), Some(0)]);
    machine.check().unwrap();
}

#[test]
fn relocated_pages_keep_their_place_also_where_huge_pages_must_be_cut() {
    for shift in [2 * MIB, 2 * MIB + 4 * PAGE_BYTES] {
        let mut machine = machine();
        let task = adopted(&mut machine, 9, 2);
        machine.mirror(task, &[anon(BASE, BASE + 2 * MIB)]);
        machine.place(task, BASE, BASE + 2 * MIB, Found::Huge).unwrap();
        machine.set_cpu(task, CpuId::new(0).unwrap()).unwrap();
        let to = BASE + 2 * MIB + shift;
        machine.relocate(task, BASE, 2 * MIB, to, false);
        machine.mirror(task, &[anon(to, to + 4 * MIB)]);
        assert_eq!(nodes(&machine, task, BASE, 1), [None]);
        assert_eq!(nodes(&machine, task, to, 512), vec![Some(1); 512]);
        machine.check().unwrap();
    }
}

#[test]
fn a_machine_without_room_says_so_and_keeps_its_promises() {
    let mut machine = machine();
    let task = adopted(&mut machine, 9, 0);
    let end = BASE + (4 << 30);
    machine.mirror(task, &[anon(BASE, end)]);
    assert_eq!(machine.place(task, BASE, end, Found::Anon), Err(Fault::OutOfMemory));
    machine.check().unwrap();
    machine.exec(task, task);
    machine.check().unwrap();
}

#[test]
fn shared_pages_of_a_task_are_known_once_there_are_some() {
    let mut machine = machine();
    let file = machine.create_file(FileKind::SharedAnon, "/dev/zero");
    let task = adopted(&mut machine, 9, 0);
    let private = anon(BASE + MIB, BASE + 2 * MIB);
    let shared = Mirrored { kind: MapKind::Shared(file, 0), ..anon(BASE, BASE + MIB) };
    machine.mirror(task, &[shared, private]);
    machine.place(task, BASE + MIB, BASE + 2 * MIB, Found::Anon).unwrap();
    assert!(!machine.maps_shared_pages(task));
    machine.place(task, BASE, BASE + PAGE_BYTES, Found::File).unwrap();
    assert!(machine.maps_shared_pages(task));
}

#[test]
fn pages_of_memory_files_are_taken_for_written_and_those_of_disks_are_not() {
    for (kind, dirty) in [(FileKind::Tmpfs, true), (FileKind::Disk, false)] {
        let mut machine = machine();
        let file = machine.create_file(kind, "/f");
        let task = adopted(&mut machine, 9, 0);
        let mapping = Mirrored { kind: MapKind::Shared(file, 0), ..anon(BASE, BASE + MIB) };
        machine.mirror(task, &[mapping]);
        machine.place(task, BASE, BASE + 2 * PAGE_BYTES, Found::File).unwrap();
        let text = machine.numa_maps(task);
        assert_eq!(text.contains(" dirty=2 "), dirty, "{text}");
    }
}

#[test]
fn removed_pages_of_shared_memory_are_gone_for_all_and_private_copies_stay() {
    let mut machine = machine();
    let file = machine.create_file(FileKind::Memfd, "/memfd:x");
    let (one, two) = (adopted(&mut machine, 9, 0), adopted(&mut machine, 11, 0));
    let shared = Mirrored { kind: MapKind::Shared(file, 0), ..anon(BASE, BASE + MIB) };
    // The same pages, one further on in the file.
    let private = Mirrored { kind: MapKind::Private(file, 1), ..shared };
    for (task, mapping) in [(one, shared), (two, private)] {
        machine.mirror(task, &[mapping]);
        machine.place(task, BASE, BASE + 4 * PAGE_BYTES, Found::File).unwrap();
    }
    machine.place(two, BASE, BASE + PAGE_BYTES, Found::Anon).unwrap();
    let free = machine.free_pages(machine::NodeId::new(0).unwrap());
    machine.remove_pages(two, BASE, BASE + MIB);
    assert_eq!(nodes(&machine, one, BASE, 4), [Some(0); 4], "a private mapping removes nothing");
    machine.remove_pages(one, BASE + PAGE_BYTES, BASE + 3 * PAGE_BYTES);
    assert_eq!(nodes(&machine, one, BASE, 4), [Some(0), None, None, Some(0)]);
    assert_eq!(nodes(&machine, two, BASE, 4), [Some(0), None, Some(0), Some(0)]);
    assert_eq!(machine.free_pages(machine::NodeId::new(0).unwrap()) - free, 2);
    machine.set_cpu(two, CpuId::new(2).unwrap()).unwrap();
    machine.place(two, BASE, BASE + 2 * PAGE_BYTES, Found::File).unwrap();
    assert_eq!(nodes(&machine, two, BASE, 2), [Some(0), Some(1)]);
    machine.check().unwrap();
}

#[test]
fn a_file_in_memory_keeps_its_pages_until_it_is_deleted_and_those_that_are_mapped_then_too() {
    let mut machine = machine();
    let file = machine.create_file(FileKind::Tmpfs, "/dev/shm/x");
    let task = adopted(&mut machine, 9, 0);
    let mapping = Mirrored { kind: MapKind::Shared(file, 0), ..anon(BASE, BASE + MIB) };
    machine.mirror(task, &[mapping]);
    machine.place(task, BASE, BASE + 2 * PAGE_BYTES, Found::File).unwrap();
    assert_eq!((machine.pages_without_mapping(file), machine.delete_file(file)), (0, 0));
    assert!(machine.is_mapped(task, BASE, BASE + MIB));
    machine.mirror(task, &[]);
    assert!(!machine.is_mapped(task, BASE, BASE + MIB));
    let free = machine.free_pages(machine::NodeId::new(0).unwrap());
    assert_eq!((machine.pages_without_mapping(file), machine.delete_file(file)), (2, 2));
    assert_eq!(machine.free_pages(machine::NodeId::new(0).unwrap()) - free, 2);
    assert_eq!(machine.pages_without_mapping(file), 0);
    machine.check().unwrap();
}

#[test]
fn a_page_that_was_the_zero_page_or_of_a_file_has_no_place_yet_when_it_is_anonymous() {
    let mut machine = machine();
    let task = adopted(&mut machine, 9, 0);
    let file = machine.create_file(FileKind::Disk, "/bin/x");
    let private = Mirrored { kind: MapKind::Private(file, 0), ..anon(BASE + MIB, BASE + 2 * MIB) };
    machine.mirror(task, &[anon(BASE, BASE + MIB), private]);
    let two_pages = [(BASE, Found::Zero), (BASE + MIB, Found::File)];
    for (start, found) in two_pages {
        let end = start + 2 * PAGE_BYTES;
        machine.place(task, start, end, found).unwrap();
        assert_eq!(machine.unplaced(task, start, end, found), []);
        assert_eq!(machine.unplaced(task, start, end, Found::Anon), [(start, end)]);
        machine.place(task, start, start + PAGE_BYTES, Found::Anon).unwrap();
        let left = [(start + PAGE_BYTES, end)];
        assert_eq!(machine.unplaced(task, start, end, Found::Anon), left);
    }
    machine.check().unwrap();
}
