//! Whether frame numbers tell nodes here: tried on a few pages of our own.
//!
//! They do on a real kernel. Under `pagetide run` the frames are this computer's and the nodes those
//! of another machine; only calls tell where a page lies there, and who goes by frames would be wrong
//! without a sign of it.

use machine::{AddrRange, BASE_PAGE_BYTES, Bytes, NodeId};

use crate::calls::{self, BindFlags};
use crate::proc::pagemap::{Pagemap, PagemapEntry};
use crate::sys::{Backing, OwnMemory};
use crate::sysfs::frame_map::FrameMap;
use crate::{MemPolicy, PageStatus, PolicyMode, Root};

/// Pages that are tried. Each would agree by chance once in two times.
const PAGES: u64 = 32;

/// Whether the frames of pages of ours lie on the nodes that the kernel names when it is asked. The
/// pages are asked for on the first and the last node in turn.
pub fn tell_nodes(root: &Root, frames: &FrameMap) -> bool {
    let nodes = frames.nodes();
    let (Some(first), Some(last)) = (nodes.iter().next(), nodes.iter().last()) else {
        return false;
    };
    // Where there is but one node, every page is on it.
    first == last || pages_agree(root, frames, [first, last]).unwrap_or(false)
}

/// `None`: it could not be tried.
fn pages_agree(root: &Root, frames: &FrameMap, nodes: [NodeId; 2]) -> Option<bool> {
    let mut memory = OwnMemory::map(Bytes::from_pages(PAGES), Backing::BasePages).ok()?;
    let start = memory.range().start();
    let half_bytes = PAGES / 2 * BASE_PAGE_BYTES;
    for (half, node) in (0..).zip(nodes) {
        let policy = MemPolicy::new(PolicyMode::Preferred, [node].into_iter().collect());
        let first = start + half * half_bytes;
        // A node that our cpuset excludes: the pages go elsewhere, which is as good.
        let _ = calls::bind(AddrRange::new(first, first + half_bytes)?, &policy, BindFlags::NONE);
    }
    let pages: Vec<u64> = (0..PAGES).map(|page| start + page * BASE_PAGE_BYTES).collect();
    pages.iter().for_each(|&page| memory.write(page, 1));
    let mut status = vec![crate::UNWRITTEN; pages.len()];
    calls::query_pages(std::process::id(), &pages, &mut status).ok()?;
    let mut words = vec![0; pages.len()];
    Pagemap::open(root, std::process::id())
        .ok()?
        .read_entries(start / BASE_PAGE_BYTES, &mut words)
        .ok()?;
    let agrees = |(word, status)| agree(frames, PagemapEntry(word), PageStatus::from_word(status));
    let agreed: Vec<bool> = words.into_iter().zip(status).filter_map(agrees).collect();
    Some(!agreed.is_empty() && !agreed.contains(&false))
}

/// `None` for a page without a frame or a node.
fn agree(frames: &FrameMap, entry: PagemapEntry, status: PageStatus) -> Option<bool> {
    let PageStatus::On(node) = status else { return None };
    let by_frame = frames.node_of(entry.frame()?)?;
    Some(by_frame == node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::zoneinfo::Zone;
    use crate::sysfs::frame_map;

    /// Whether this caller sees frames at all.
    fn sees_frames() -> bool {
        let mut memory = OwnMemory::map(Bytes::from_pages(1), Backing::BasePages).unwrap();
        let page = memory.range().start();
        memory.write(page, 1);
        let mut word = [0];
        let pagemap = Pagemap::open(&Root::default(), std::process::id()).unwrap();
        pagemap.read_entries(page / BASE_PAGE_BYTES, &mut word).unwrap();
        PagemapEntry(word[0]).frame().is_some()
    }

    #[test]
    fn frames_are_believed_on_a_real_kernel() {
        if sees_frames() {
            let map = frame_map::read(&Root::default()).unwrap();
            assert!(tell_nodes(&Root::default(), &map));
        }
    }

    #[test]
    fn frames_are_not_believed_by_the_map_of_another_machine() {
        // Two nodes that share out all frames of this computer by a rule of their own.
        let zone = |node, first, spanned| Zone {
            node: NodeId::new(node).unwrap(),
            name: "Normal".to_owned(),
            free: spanned,
            min: 0,
            low: 0,
            high: 0,
            spanned,
            present: spanned,
            managed: spanned,
            first_frame: Some(first),
        };
        let zones = [zone(0, 1, 1), zone(1, 2, 1 << 40)];
        let map = FrameMap::new(&zones, None);
        if sees_frames() {
            assert!(!tell_nodes(&Root::default(), &map));
        }
    }
}
