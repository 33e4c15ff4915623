//! What moving one page costs on this host, found out on a little memory of our own.
//!
//! So that `plan` can name a time that was measured here and now, not one from a book.

use std::time::{Duration, Instant};

use linux::calls::{self, MoveError};
use linux::sys::{Backing, MoveFlags, OwnMemory};
use machine::{BASE_PAGE_BYTES, Bytes, NodeId};

/// Base pages that are moved there and back: 8 MiB.
const PAGES: u64 = 2048;

/// The time of one base page in ns from `from` to `to`; `None` where our own memory may not lie on
/// both (a cpuset, no room).
pub(crate) fn page_ns(from: NodeId, to: NodeId) -> Option<u64> {
    let mut memory = OwnMemory::map(Bytes::from_pages(PAGES), Backing::BasePages).ok()?;
    let start = memory.range().start();
    let addresses: Vec<u64> = (0..PAGES).map(|page| start + page * BASE_PAGE_BYTES).collect();
    addresses.iter().for_each(|&address| memory.write(address, 1));
    move_all(&addresses, from).ok()?;
    let took = move_all(&addresses, to).ok()?;
    u64::try_from(took.as_nanos()).ok().map(|ns| ns / PAGES)
}

fn move_all(addresses: &[u64], to: NodeId) -> Result<Duration, MoveError> {
    let nodes = vec![to.as_raw(); addresses.len()];
    let mut status = vec![0; addresses.len()];
    let began = Instant::now();
    calls::move_pages(std::process::id(), addresses, &nodes, &mut status, MoveFlags::MOVE)?;
    Ok(began.elapsed())
}
