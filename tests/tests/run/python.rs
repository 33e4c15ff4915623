//! Programs in Python, which make raw system calls: for what the subject has no word for.

use super::{run, text};

/// Calls of the tests. `mode` and `node` ask get_mempolicy about a page, and `node_of` move_pages.
pub(crate) const CALLS: &str = r"
import ctypes, os, threading, time
libc = ctypes.CDLL(None)
libc.syscall.restype = ctypes.c_long
FORK, EXIT, MBIND, SET_MEMPOLICY, GET_MEMPOLICY, MOVE_PAGES = 57, 60, 237, 238, 239, 279
MIB = 1 << 20
def as_word(it):
    return ctypes.c_ulong(it % (1 << 64)) if type(it) is int else it
def call(*words):
    return libc.syscall(*[as_word(it) for it in words])
def map(at, length, flags=0x22):
    return call(9, at, length, 3, flags, -1, 0)
def remap(at, length, new_length, flags, to=0):
    return call(25, at, length, new_length, flags, to)
def map_page():
    return map(0, 4096)
def touch(at, length=1):
    ctypes.memset(at, 1, length)
def mbind(at, node, length=4096):
    return call(MBIND, at, length, 2, ctypes.byref(ctypes.c_ulong(1 << node)), 65, 0)
def bind(node):
    assert call(SET_MEMPOLICY, 2, ctypes.byref(ctypes.c_ulong(1 << node)), 65) == 0
def policy():
    mode, nodes = ctypes.c_int(-1), (ctypes.c_ulong * 16)()
    call(GET_MEMPOLICY, ctypes.byref(mode), nodes, 1025, 0, 0)
    return mode.value, nodes[0]
def ask(at, flags):
    answer = ctypes.c_int()
    assert call(GET_MEMPOLICY, ctypes.byref(answer), 0, 0, at, flags) == 0
    return answer.value
def node(at):
    return ask(at, 3)
def mode(at):
    return ask(at, 2)
def node_of(at):
    status, page = ctypes.c_int(-99), ctypes.c_void_p(at)
    call(MOVE_PAGES, 0, 1, ctypes.byref(page), 0, ctypes.byref(status), 0)
    return status.value
def on_node(at, length, number):
    assert mbind(at, number, length) == 0
    touch(at, length)
    assert node(at) == number
";

/// What a script prints that may make these calls.
pub(crate) fn python_on(machine: &str, script: &str) -> String {
    let script = [CALLS, script].concat();
    let output = run(&["--machine", machine, "--", "/usr/bin/python3", "-c", &script]);
    assert!(output.status.success(), "{script}: {output:?}");
    text(&output.stdout)
}
