//! Who else maps a page: the mappings, of any process, that show the same frame.
//!
//! A page of a file or of shared memory is looked for at its place in the file; a page that a fork
//! left shared, at its address. Other ways to share a page (KSM, memory moved by mremap after a fork)
//! are not followed: the mapcount tells when some were not found.

use linux::proc::maps::{self, Mapping};
use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::proc::{processes, stat};
use linux::{ReadError, Root};
use machine::BASE_PAGE_BYTES;
use serde::Serialize;

use super::hexadecimal;
use crate::sharers::file_id;

/// A mapping that shows the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sharer {
    /// The process.
    pub pid: u32,
    /// Its command name.
    pub name: String,
    /// Where the page is there.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
}

/// Mappings that show the frame `frame` of the page at `own` (pid and address), except that one.
///
/// Processes that may not be looked into are left out, and so are those that exit meanwhile.
///
/// # Errors
///
/// When `/proc` cannot be listed.
pub(super) fn find(
    root: &Root,
    own: (u32, u64),
    map: &Mapping,
    frame: u64,
) -> Result<Vec<Sharer>, ReadError> {
    let mut sharers = Vec::new();
    for pid in processes::pids(root)? {
        let Ok(maps) = maps::read(root, pid) else { continue };
        let candidates: Vec<u64> =
            maps.iter().filter_map(|other| address_in(other, map, own.1)).collect();
        if candidates.is_empty() {
            continue;
        }
        let Ok(pagemap) = Pagemap::open(root, pid) else { continue };
        let shows =
            |&address: &u64| (pid, address) != own && frame_at(&pagemap, address) == Some(frame);
        let name = || stat::read(root, pid).map(|stat| stat.name).unwrap_or_default();
        sharers.extend(candidates.into_iter().filter(shows).map(|address| Sharer {
            pid,
            name: name(),
            address,
        }));
    }
    Ok(sharers)
}

/// Where `other` has the page that `map` has at `address`, if it may.
fn address_in(other: &Mapping, map: &Mapping, address: u64) -> Option<u64> {
    if map.inode == 0 {
        return other.range.contains(address).then_some(address);
    }
    let offset = (address - map.range.start()).checked_add(map.offset)?;
    let there = other.range.start().checked_add(offset.checked_sub(other.offset)?)?;
    (file_id(other) == file_id(map) && other.range.contains(there)).then_some(there)
}

fn frame_at(pagemap: &Pagemap, address: u64) -> Option<u64> {
    let mut word = [0];
    pagemap.read_entries(address / BASE_PAGE_BYTES, &mut word).ok()?;
    PagemapEntry(word[0]).frame()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(line: &str) -> Mapping {
        maps::parse(line).unwrap().remove(0)
    }

    #[test]
    fn a_page_of_a_file_is_looked_for_at_its_place_in_the_file() {
        let map = mapping("10000-14000 rw-s 00002000 fe:00 7 /x");
        let other = mapping("50000-58000 r--s 00001000 fe:00 7 /x");
        assert_eq!(address_in(&other, &map, 0x11000), Some(0x52000));
        let before = mapping("50000-58000 r--s 00009000 fe:00 7 /x");
        assert_eq!(address_in(&before, &map, 0x11000), None);
        let elsewhere = mapping("50000-58000 r--s 00001000 fe:00 8 /y");
        assert_eq!(address_in(&elsewhere, &map, 0x11000), None);
    }

    #[test]
    fn an_anonymous_page_is_looked_for_at_its_address() {
        let map = mapping("10000-14000 rw-p 00000000 00:00 0 ");
        let child = mapping("f000-12000 rw-p 00000000 00:00 0 ");
        assert_eq!(address_in(&child, &map, 0x11000), Some(0x11000));
        assert_eq!(address_in(&child, &map, 0x12000), None);
    }
}
