//! `hog NODE LEAVE_BYTES`: a node with next to no free memory, for moves that must find it full.
//!
//! What is left must stay above the node's min watermark: below it the kernel ends the hog (out of
//! memory under `MPOL_BIND`). Pages on the per-CPU lists are not in `MemFree`, so that a few more
//! than LEAVE_BYTES can be had.

use std::fs;
use std::io::{self, Write};
use std::process;
use std::thread;

use crate::error::{Error, Result, Tried};
use crate::spec::PAGE_BYTES;
use crate::sys::{self, Backing, Mapping};

/// Largest step between two looks at `MemFree`. Others allocate meanwhile.
const STEP_BYTES: usize = 16 << 20;

/// Fills the node, says `ready pid=PID held_bytes=N free_bytes=N`, and sleeps.
pub(crate) fn run(node: u32, leave_bytes: usize) -> Result<()> {
    let total_bytes = meminfo(node, "MemTotal")?;
    let mapping = Mapping::new(&Backing::Anon { is_shared: false }, total_bytes, PAGE_BYTES);
    let mapping = mapping.tried(|| format!("cannot map {total_bytes} bytes"))?;
    drop(mapping.advise(libc::MADV_NOHUGEPAGE)); // fails only where there are no THPs
    sys::set_thread_policy(Some(node)).tried(|| format!("cannot allocate on node {node}"))?;

    let mut held_bytes = 0;
    let free_bytes = loop {
        let free_bytes = meminfo(node, "MemFree")?;
        let room = total_bytes - held_bytes;
        let step = free_bytes.saturating_sub(leave_bytes).min(STEP_BYTES).min(room);
        let step = step - step % PAGE_BYTES;
        if step == 0 {
            break free_bytes;
        }
        let locked = mapping.lock(held_bytes, step);
        locked.tried(|| format!("cannot hold {step} more bytes of node {node}"))?;
        held_bytes += step;
    };

    let mut out = io::stdout().lock();
    let pid = process::id();
    let said = writeln!(out, "ready pid={pid} held_bytes={held_bytes} free_bytes={free_bytes}");
    said.and_then(|()| out.flush()).tried(|| "cannot write to stdout".to_owned())?;
    loop {
        thread::park();
    }
}

/// A field of the node's meminfo, in bytes.
fn meminfo(node: u32, field: &str) -> Result<usize> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs::read_to_string(&path).tried(|| format!("cannot read {path}"))?;
    field_bytes(&text, field).ok_or_else(|| Error::Unmet(format!("{path} has no {field}")))
}

/// Reads `Node 0 MemFree:  1234 kB`.
fn field_bytes(text: &str, field: &str) -> Option<usize> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(2);
        let is_field = words.next()?.strip_suffix(':') == Some(field);
        is_field.then_some(words.next()?.parse::<usize>().ok()?.checked_mul(1024)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_nodes_meminfo_is_in_bytes() {
        let text = "Node 1 MemTotal:        1031452 kB\nNode 1 MemFree:          903212 kB\n";
        assert_eq!(field_bytes(text, "MemFree"), Some(903_212 * 1024));
        assert_eq!(field_bytes(text, "MemTotal"), Some(1_031_452 * 1024));
        assert_eq!(field_bytes(text, "Mem"), None);
        assert_eq!(field_bytes("\nNode\nNode 1 MemFree:\n", "MemFree"), None);
    }
}
