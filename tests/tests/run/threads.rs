//! Threads: policies and CPUs of their own in one address space.

use super::expect;
use super::python::python_on;

#[test]
fn each_thread_places_its_pages_by_its_own_policy() {
    let script = "map a 40; thread set bind 1, write a 0 20; write a 20 40; where a; policy";
    expect("two-socket", script, &["ok", "a: 1*20 0*20", "default"]);
}

#[test]
fn each_thread_places_its_pages_where_it_runs() {
    let script = "map a 8; thread run-on 2, write a 0 4; thread run-on 0, write a 4 8; where a";
    expect("two-socket", script, &["ok", "ok", "a: 1*4 0*4"]);
}

#[test]
fn pages_of_a_thread_that_has_ended_stay_where_it_ran_when_the_first_is_bound_elsewhere() {
    let script = "map a 40; thread write a 0 20; set bind 1; write a 20 40; where a";
    expect("two-socket", script, &["ok", "a: 0*20 1*20"]);
}

#[test]
fn what_the_first_thread_had_touched_is_found_on_its_node_by_the_second() {
    let script = "map a 20; write a 0 10; thread run-on 2, write a 10 20, where a; where a";
    expect("two-socket", script, &["ok", "a: 0*10 1*10", "a: 0*10 1*10"]);
    let script = "map a 20; read a 0 20; thread run-on 2, write a 0 20, where a";
    expect("two-socket", script, &["ok", "a: 1*20"]);
}

#[test]
fn pages_of_the_first_thread_that_the_second_drops_and_touches_are_its_own() {
    for drops in ["drop a", "again a"] {
        let script =
            format!("map a 20; write a 0 20; thread run-on 2, {drops}, write a 0 20, where a");
        expect("two-socket", &script, &["ok", "a: 1*20"]);
    }
}

#[test]
fn pages_of_the_first_thread_stay_its_own_where_the_second_stretches_their_mapping() {
    let script = "map a 20; write a 0 20; thread run-on 2, stretch a 5000, write a 20 30, where a";
    expect("two-socket", script, &["ok", "a: 0*20 1*10 -*4970"]);
}

#[test]
fn shared_pages_of_the_first_thread_stay_its_own_when_another_ends_the_process() {
    for ends in ["exit 0", "exec say there"] {
        let script = format!(
            "map a 8 shared; child run-on 2, write a 0 4, thread {ends}; read a 0 4; where a"
        );
        let said = super::on("two-socket", &script);
        assert_eq!(said.lines().last(), Some("a: 1*4 -*4"), "{script}: {said}");
    }
}

#[test]
fn a_thread_inherits_the_policy_and_the_affinity_of_the_first() {
    let script = "set bind 2; run-on 2-3; thread policy, may-run-on";
    expect("four-socket", script, &["ok", "ok", "bind 2", "2-3"]);
}

#[test]
fn threads_are_spread_over_the_cpus() {
    let script = "cpu; thread cpu; thread cpu; thread cpu";
    let lines = ["cpu 0 node 0, cpu 0", "cpu 1 node 0, cpu 1", "cpu 2 node 1, cpu 2"];
    let said = super::on("two-socket", script);
    assert_eq!(said.lines().take(3).collect::<Vec<_>>(), lines, "{said}");
}

#[test]
fn memory_is_known_and_can_be_bound_after_the_first_thread_has_ended() {
    let script = r#"
def rest():
    while "zombie" not in open(f"/proc/{os.getpid()}/status").read(): time.sleep(0.01)
    print(node_of(old))
    new = map_page()
    print(mbind(new, 1))
    touch(new)
    print(node_of(new), node_of(old), flush=True)
    os._exit(0)
old = map_page()
mbind(old, 1)
touch(old)
threading.Thread(target=rest).start()
call(EXIT, 0)
"#;
    assert_eq!(python_on("two-socket", script), "1\n0\n1 1\n");
}

#[test]
fn a_thread_that_has_not_called_yet_begins_as_its_creator_was_when_it_began() {
    // Threads without a C library of their own, which make no call that is handed over.
    let script = r#"
def thread():
    return libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), ctypes.c_void_p(map_page() + 4032), 0x50f00, None)
os.sched_setaffinity(0, {1})
one = thread()
os.sched_setaffinity(0, {2})
other = thread()
os.sched_setaffinity(0, {3})
print(*(os.sched_getaffinity(thread) for thread in [one, other, 0]), flush=True)
os._exit(0)
"#;
    assert_eq!(python_on("two-socket", script), "{1} {2} {3}\n");
}

#[test]
fn the_first_call_of_a_process_is_answered_also_when_its_second_thread_makes_it() {
    let script = r#"
import mmap
code = mmap.mmap(-1, 4096, prot=7)
# get_mempolicy(mode, 0, 0, 0, 0) and exit, of a function that is given `mode`.
code.write(bytes.fromhex("31f6 31d2 4531d2 4531c0 b8ef000000 0f05 b83c000000 0f05"))
thread = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(code)))
bind(1)
child = call(FORK)
if not child:
    mode = ctypes.c_int(-1)
    libc.clone(thread, ctypes.c_void_p(map_page() + 4032), 0x50f00, ctypes.byref(mode))
    while len(os.listdir("/proc/self/task")) > 1: time.sleep(0.01)
    print(mode.value, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"#;
    assert_eq!(python_on("two-socket", script), "2\n");
}

#[test]
fn a_thread_that_has_ended_by_a_call_that_is_not_handed_over_is_forgotten_at_the_next_change() {
    let script = r#"
import mmap
code = mmap.mmap(-1, 4096, prot=7)
# Waits until the word that it is given is not 0, and makes the exit of 32-bit programs.
code.write(bytes.fromhex("8b07 85c0 74fa 31db b801000000 cd80"))
function = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(code)))
word = ctypes.c_int(0)
thread = libc.clone(function, ctypes.c_void_p(map_page() + 4032), 0x50f00, ctypes.byref(word))
os.sched_setaffinity(0, {3})
print(os.sched_getaffinity(thread))
word.value = 1
while len(os.listdir("/proc/self/task")) > 1: time.sleep(0.01)
os.sched_setaffinity(0, {2})
try: print(os.sched_getaffinity(thread))
except ProcessLookupError: print("none", flush=True)
"#;
    assert_eq!(python_on("two-socket", script), "{0, 1, 2, 3}\nnone\n");
}
