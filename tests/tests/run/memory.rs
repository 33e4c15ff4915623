//! What becomes of places when mappings change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::files::{as_nobody, is_root};
use super::python::{CALLS, python_on};
use super::{expect, run, text};

#[test]
fn memory_mapped_anew_at_the_same_address_has_no_past() {
    for change in ["again a", "unmap a; again a", "drop a"] {
        let script =
            format!("map a 2; write a 0 2; move a 1; {change}; where a; write a 0 1; where a");
        expect("two-socket", &script, &["0: 1*2", "a: -*2", "a: 0*1 -*1"]);
    }
}

#[test]
fn pages_that_mremap_moves_keep_their_place() {
    let script = "map a 4; write a 0 4; move a 1; stretch a 5000; write a 4 5; where a";
    expect("two-socket", script, &["0: 1*4", "a: 1*4 0*1 -*4995"]);
}

#[test]
fn a_mapping_that_is_unmapped_takes_its_policy_along() {
    let script = "map a 2; bind a bind 1; again a; write a 0 2; where a";
    expect("two-socket", script, &["ok", "a: 0*2"]);
}

#[test]
fn asking_by_address_touches_the_page_as_the_kernel_does() {
    let script = "map a 2; write a 0 1; node a 0; node a 1";
    expect("two-socket", script, &["node 0", "node 0"]);
}

#[test]
fn a_question_by_address_that_is_refused_touches_no_page() {
    let said = python_on(
        "two-socket",
        "p, word, mask = map_page(), ctypes.c_int(), (ctypes.c_ulong * 16)()
def ask_with(bits):
    return call(GET_MEMPOLICY, ctypes.byref(word), mask, bits, p, 3)
print(node_of(p), ask_with(0), ask_with(1), node_of(p), ask_with(2), word.value)",
    );
    assert_eq!(said, "-2 -1 -1 -2 0 0\n");
}

#[test]
fn what_later_kernels_keep_apart_from_vvar_is_mapped_and_can_be_bound() {
    // None before 6.13.
    let said = python_on(
        "two-socket",
        "for line in open('/proc/self/maps'):
    if '[vvar_' in line:
        start, end = [int(it, 16) for it in line.split()[0].split('-')]
        print(mode(start), node_of(start), mbind(start, 0, end - start))",
    );
    assert!(said.lines().all(|line| line == "0 -2 0"), "{said}");
}

#[test]
fn shared_memory_has_one_place_whoever_touches_it() {
    let script = "map a 4 shared; child set bind 1, write a 0 2; write a 0 4; where a";
    expect("two-socket", script, &["ok", "a: 1*2 0*2"]);
}

#[test]
fn a_policy_on_shared_memory_holds_for_the_child_too() {
    let script = "map a 2 shared; bind a bind 1; child write a 0 2; read a 0 2; where a";
    expect("two-socket", script, &["ok", "a: 1*2"]);
}

#[test]
fn the_tail_that_mremap_cuts_off_has_no_past_when_it_is_mapped_again() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8 * MIB); on_node(p, 8 * MIB, 1)
assert remap(p, 8 * MIB, 4 * MIB, 0) == p
assert map(p + 4 * MIB, 4 * MIB) == p + 4 * MIB
touch(p + 4 * MIB, 1)
print(mode(p), node(p), mode(p + 4 * MIB), node(p + 4 * MIB))",
    );
    assert_eq!(said, "2 1 0 0\n");
}

#[test]
fn nothing_is_left_of_the_tail_or_the_target_of_an_mremap_to_a_fixed_place() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8 * MIB); on_node(p, 8 * MIB, 1)
to = map(0, 8 * MIB); on_node(to, 8 * MIB, 0)
assert remap(p, 8 * MIB, 4 * MIB, 3, to) == to
assert map(p + 4 * MIB, 4 * MIB) == p + 4 * MIB
touch(p + 4 * MIB, 1)
print(mode(to), node(to), mode(p + 4 * MIB), node(p + 4 * MIB))
p = map(0, 4 * MIB); touch(p, 4 * MIB); assert node(p) == 0
to = map(0, 8 * MIB); on_node(to, 8 * MIB, 1)
assert remap(p, 4 * MIB, 8 * MIB, 3, to) == to
touch(to + 4 * MIB, 1)
print(mode(to), node(to), mode(to + 4 * MIB), node(to + 4 * MIB))
p = map(0, 4 * MIB)
to = map(0, 4 * MIB); on_node(to, 4 * MIB, 1)
assert remap(p, 4 * MIB, 4 * MIB, 3, to) == to
touch(to, 1)
print(mode(to), node(to))",
    );
    assert_eq!(said, "2 1 0 0\n0 0 0 0\n0 0\n");
}

#[test]
fn an_mremap_that_the_kernel_refuses_changes_nothing() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8 * MIB); on_node(p, 8 * MIB, 1)
to = map(0, 8 * MIB); on_node(to, 8 * MIB, 1)
for words in [(p, 8 * MIB, 0, 0), (p + 1, 8 * MIB, 4 * MIB, 0), (p, 8 * MIB, 4 * MIB, 2, to),
        (p, 8 * MIB, 4 * MIB, 3, to + 1), (p, 8 * MIB, 4 * MIB, 5), (p, 8 * MIB, 4 * MIB, 8),
        (p, 8 * MIB, 8 * MIB, 3, p + 4 * MIB)]:
    assert remap(*words) == -1, words
print(mode(p + 4 * MIB), node(p + 4 * MIB), mode(to), node(to))",
    );
    assert_eq!(said, "2 1 2 1\n");
}

#[test]
fn an_mremap_of_what_is_not_mapped_changes_nothing() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8 * MIB); on_node(p, 8 * MIB, 1)
to = map(0, 8 * MIB); on_node(to, 8 * MIB, 1)
assert call(11, p, 2 * MIB) == 0
for words in [(p, 8 * MIB, 4 * MIB, 0), (p, 6 * MIB, 6 * MIB, 3, to), (p, MIB, MIB, 3, to),
        (p, 4 * MIB, 8 * MIB, 1)]:
    assert remap(*words) == -1, words
    print(mode(p + 6 * MIB), node(p + 6 * MIB), mode(to), node(to))",
    );
    assert_eq!(said, "2 1 2 1\n".repeat(4));
}

#[test]
fn memory_that_moved_keeps_its_place_when_the_hole_that_it_left_is_mapped_at_once() {
    for flags in ["0x22", "0x32"] {
        let said = python_on(
            "two-socket",
            &format!(
                "p = map(0, 8 * MIB); on_node(p, 4 * MIB, 1)
q = remap(p, 4 * MIB, 8 * MIB, 1)
assert q not in (-1, p)
assert map(p, 4 * MIB, {flags}) == p
touch(p, 1)
print(mode(q), node(q), mode(p), node(p))"
            ),
        );
        assert_eq!(said, "2 1 0 0\n", "{flags}");
    }
}

#[test]
fn memory_that_grows_in_place_keeps_its_place() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8 * MIB); on_node(p, 4 * MIB, 1)
assert call(11, p + 4 * MIB, 4 * MIB) == 0
assert remap(p, 4 * MIB, 8 * MIB, 1) == p
other = map(0, 8 * MIB); touch(other, 1)
print(mode(p), node(p), node(other))",
    );
    assert_eq!(said, "2 1 0\n");
}

#[test]
fn what_mremap_adds_to_bound_memory_is_bound_too() {
    let said = python_on(
        "two-socket",
        "def grown(q):
    touch(q + 7 * MIB, 1)
    return mode(q + 7 * MIB), node(q + 7 * MIB)
p = map(0, 8 * MIB); on_node(p, 4 * MIB, 1)
q = remap(p, 4 * MIB, 8 * MIB, 1)
assert q not in (-1, p)
print(*grown(q))
p = map(0, 8 * MIB); on_node(p, 4 * MIB, 1)
assert call(11, p + 4 * MIB, 4 * MIB) == 0
assert remap(p, 4 * MIB, 8 * MIB, 1) == p
print(*grown(p))
to = map(0, 8 * MIB); p = map(0, 8 * MIB); on_node(p, 4 * MIB, 1)
assert call(25, p, 4 * MIB, 8 * MIB, 3, to) == to
print(*grown(to))",
    );
    assert_eq!(said, "2 1\n2 1\n2 1\n");
}

#[test]
fn shared_memory_that_was_removed_comes_back_as_a_first_touch_does() {
    let said = python_on(
        "two-socket",
        "p = map(0, 8192, 0x21); touch(p, 8192); print(node(p))
assert call(28, p, 4096, 9) == 0
bind(1); touch(p, 8192); print(node(p), node(p + 4096))",
    );
    assert_eq!(said, "0\n1 0\n");
}

#[test]
fn what_one_process_removes_from_shared_memory_is_gone_for_its_child_too() {
    let said = python_on(
        "two-socket",
        "import os
p = map(0, 8192, 0x21); touch(p, 8192); assert node(p) == 0
(asked, ask_end), (told, tell) = os.pipe(), os.pipe()
if os.fork() == 0:
    bind(1)
    assert node(p) == 0
    os.write(ask_end, b'x'); os.read(told, 1)
    touch(p, 8192); print(node(p), node(p + 4096), flush=True)
    os._exit(0)
os.read(asked, 1)
assert call(28, p, 4096, 9) == 0
os.write(tell, b'x'); os.wait()
print(node(p), node(p + 4096))",
    );
    assert_eq!(said, "1 0\n1 0\n");
}

/// Files in a `FOLDER` on a disk: `new` makes one, `map_file` maps it and writes its pages, and `unmap` ends
/// the mapping and prints where they were.
const DISK: &str = r"
import os
SIZE = 16384
def new(name):
    return os.open(f'{FOLDER}/{name}', os.O_CREAT | os.O_EXCL | os.O_RDWR)
def map_file(descriptor):
    os.ftruncate(descriptor, SIZE)
    at = call(9, 0, SIZE, 3, 1, descriptor, 0)
    os.close(descriptor)
    touch(at, SIZE)
    return at
def unmap(at):
    print(node_of(at), end=' ')
    assert call(11, at, SIZE) == 0
";

/// What a script says of such files, as root and as nobody.
fn with_disk_files(script: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let set = format!("FOLDER = '{}'", folder.path().display());
    let script = [&set, DISK, script].concat();
    let mut said = vec![python_on("two-socket", &script)];
    if is_root() {
        let script = [CALLS, &script].concat();
        let words = ["--machine", "two-socket", "--", "/usr/bin/python3", "-c", &script];
        let output = as_nobody(&words);
        assert!(output.status.success(), "{output:?}");
        said.push(text(&output.stdout));
    }
    said
}

#[test]
fn a_new_file_with_the_inode_number_of_a_deleted_one_has_none_of_its_pages() {
    let said = with_disk_files(
        "for name in ('a', 'b'):
    bind(0); unmap(map_file(new('a'))); os.unlink(f'{FOLDER}/a')
    bind(1); unmap(map_file(new(name))); os.unlink(f'{FOLDER}/{name}')
print()",
    );
    assert!(said.iter().all(|said| said == "0 1 0 1 \n"), "{said:?}");
}

#[test]
fn a_new_file_that_never_had_a_name_has_no_pages_of_another() {
    if !is_root() {
        return; // By its name alone, which has its inode number, it is not told from another.
    }
    let said = with_disk_files(
        "def nameless():
    return os.open(FOLDER, os.O_TMPFILE | os.O_RDWR, 0o600)
if os.getuid() == 0:
    bind(0); unmap(map_file(nameless()))
    bind(1); unmap(map_file(nameless()))",
    );
    assert_eq!(said[0], "0 1 ");
}

#[test]
fn a_file_that_nobody_maps_for_a_while_keeps_its_pages_whatever_it_is_called_then() {
    let said = with_disk_files(
        "bind(0); first = new('a'); again = os.dup(first); last = os.dup(first); unmap(map_file(first))
bind(1); os.rename(f'{FOLDER}/a', f'{FOLDER}/b'); unmap(map_file(os.open(f'{FOLDER}/b', os.O_RDWR)))
os.link(f'{FOLDER}/b', f'{FOLDER}/c'); unmap(map_file(os.open(f'{FOLDER}/c', os.O_RDWR)))
unmap(map_file(again)); os.unlink(f'{FOLDER}/b'); os.unlink(f'{FOLDER}/c')
if os.getuid() == 0: unmap(map_file(last))
print()",
    );
    assert_eq!(said[0], "0 0 0 0 0 \n");
    assert!(said[1..].iter().all(|said| said == "0 0 0 0 \n"), "{said:?}");
}

/// Files of 32 MiB in memory, of one kind: `make` gives one that is mapped, and `unmap` ends its
/// mapping; it is gone then, unless it is `kept`, whose `map_again` maps it.
const FILES: &str = r"
import os
SIZE = 32 * MIB
def map_file(descriptor):
    return call(9, 0, SIZE, 3, 1, descriptor, 0)
class Memfd:
    def __init__(self):
        self.descriptor = os.memfd_create('x')
        os.ftruncate(self.descriptor, SIZE)
        self.at = map_file(self.descriptor)
    def unmap(self, kept):
        assert call(11, self.at, SIZE) == 0
        if not kept:
            os.close(self.descriptor)
    def map_again(self):
        return map_file(self.descriptor)
class Tmpfs:
    def __init__(self):
        self.name = f'/dev/shm/pagetide-test-{os.getpid()}-{id(self)}'
        descriptor = os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.ftruncate(descriptor, SIZE)
        self.at = map_file(descriptor)
        os.close(descriptor)
    def unmap(self, kept):
        assert call(11, self.at, SIZE) == 0
        if not kept:
            os.unlink(self.name)
    def map_again(self):
        descriptor = os.open(self.name, os.O_RDWR)
        os.unlink(self.name)
        return map_file(descriptor)
class Segment:
    def __init__(self):
        self.id = call(29, 0, SIZE, 0o600)
        self.at = call(30, self.id, 0, 0)
    def unmap(self, kept):
        assert call(67, self.at) == 0
        if not kept:
            assert call(31, self.id, 0, 0) == 0
    def map_again(self):
        at = call(30, self.id, 0, 0)
        assert call(31, self.id, 0, 0) == 0
        return at
def fill(file):
    assert call(28, file.at, SIZE, 23) == 0
";

/// What a script says that makes such files, on a machine of two nodes with 256 MiB each.
fn with_files(words: &[&str], script: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let machine = folder.path().join("small.toml");
    let node = |cpu| format!("[[node]]\ncpus = \"{cpu}\"\nmemory = \"256MiB\"\n");
    let distances = "[distance]\nrows = [[10, 21], [21, 10]]\n";
    let name = "name = \"small\"\n";
    fs::write(&machine, [name, &node(0), &node(1), distances].concat()).unwrap();
    let script = [CALLS, FILES, script].concat();
    let machine = ["--machine", machine.to_str().unwrap(), "--"];
    let output = run(&[&machine, words, &["/usr/bin/python3", "-c", &script]].concat());
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn files_in_memory_that_are_gone_leave_their_room_and_those_that_are_there_keep_their_place() {
    for kind in ["Memfd", "Tmpfs", "Segment"] {
        let (said, told) = with_files(
            &[],
            &format!(
                "kept = {kind}()
bind(1); touch(kept.at, 4096); assert node(kept.at) == 1; kept.unmap(True)
assert call(238, 0, 0, 0) == 0
for _ in range(20):
    file = {kind}(); fill(file); assert node(file.at + SIZE - 4096) == 0; file.unmap(False)
print(node(kept.map_again()))"
            ),
        );
        assert_eq!((said.as_str(), told.as_str()), ("1\n", ""), "{kind}");
    }
}

#[test]
fn files_that_programs_leave_behind_make_no_node_full() {
    let (said, told) = with_files(
        &[],
        "for _ in range(12):
    if os.fork() == 0:
        fill(Memfd())
        os._exit(0)
    os.wait()
p = map(0, 4096); touch(p, 4096); print(node(p))",
    );
    assert_eq!((said.as_str(), told.as_str()), ("0\n", ""));
}

#[test]
fn the_first_segment_of_an_ipc_namespace_is_shared_memory_although_its_inode_is_0() {
    let (said, told) = with_files(
        &["unshare", "--map-root-user", "--ipc"],
        "segment = Segment(); assert segment.id == 0
bind(1); touch(segment.at, 4096)
if os.fork() == 0:
    print(node(segment.at), flush=True)
    os._exit(0)
os.wait(); segment.unmap(False)",
    );
    assert_eq!((said.as_str(), told.as_str()), ("1\n", ""));
}

#[test]
fn a_reserve_of_terabytes_has_its_policy_also_where_nothing_is_touched() {
    // As a database makes it: all of it reserved, and a part of it usable.
    let script = "SIZE = 8 << 40
p = call(9, 0, SIZE, 0, 0x4022, -1, 0); assert p > 0
assert map(p, 64 * MIB, 0x32) == p
assert mbind(p, 1, SIZE) == 0
touch(p); touch(p + 63 * MIB)
last = p + SIZE - 4096
assert call(10, last, 4096, 3) == 0
touch(last)
def lines():
    return {int(line.split()[0], 16): line.split()[1:] for line in open('/proc/self/numa_maps')}
print(node(p), node(p + 63 * MIB), node(last), lines()[p][0], lines()[last][0], 'N1=1' in lines()[last], flush=True)
if os.fork() == 0:
    print(node(last), mode(last), flush=True); os._exit(0)
os.wait()
assert call(28, p, 64 * MIB, 4) == 0
assert call(11, p + MIB, SIZE - MIB) == 0
print(p + MIB in lines(), 'bind:1' in lines()[p])";
    let said = python_on("two-socket", script);
    assert_eq!(said, "1 1 1 bind:1 bind:1 True\n1 2\nFalse True\n");
}

#[test]
fn a_mapping_that_mremap_leaves_keeps_its_policy_and_has_no_pages() {
    // MREMAP_MAYMOVE and MREMAP_DONTUNMAP, to where the kernel likes and to a place of our own.
    let script = "for fixed in (0, 2):
    p = map(0, MIB); on_node(p, MIB, 1)
    place = map(0, MIB)
    q = remap(p, MIB, MIB, 1 | 4 | fixed, place)
    assert fixed == 0 or q == place
    print(node_of(p), mode(p), node_of(q), mode(q), end=' ')
    touch(p, MIB); print(node(p), node(q))";
    assert_eq!(python_on("two-socket", script), "-2 2 1 2 1 1\n".repeat(2));
}
