//! Who else maps the pages that a plan would leave behind.
//!
//! A file or a segment of shared memory is known by its device and inode in everybody's maps; the
//! pages that a fork left shared, by the frame of one of them. Called by the planner; it reads
//! `/proc` and changes nothing.

use linux::proc::pagemap::{Pagemap, PagemapEntry};
use linux::proc::{maps, processes};
use linux::{ReadError, Root};
use machine::BASE_PAGE_BYTES;

use crate::plan::SharedPart;

/// For each part: its name, its base pages, and the other processes that map it, ascending.
///
/// Processes that may not be looked into are left out: they are not named, but their pages stay.
///
/// # Errors
///
/// When `/proc` cannot be listed.
pub(crate) fn find(
    root: &Root,
    pid: u32,
    parts: &[SharedPart],
) -> Result<Vec<(String, u64, Vec<u32>)>, ReadError> {
    let mut found: Vec<(String, u64, Vec<u32>)> =
        parts.iter().map(|part| (part.mapping.name.clone(), part.pages, Vec::new())).collect();
    if parts.is_empty() {
        return Ok(found);
    }
    let frames: Vec<Option<u64>> =
        parts.iter().map(|part| frame_at(root, pid, part.example)).collect();
    for other in processes::pids(root)?.into_iter().filter(|&other| other != pid) {
        let Ok(maps) = maps::read(root, other) else { continue };
        for ((part, frame), (_, _, pids)) in parts.iter().zip(&frames).zip(&mut found) {
            let shares = match &part.mapping.file {
                Some(file) => maps.iter().any(|map| file_id(map).as_ref() == Some(file)),
                None => {
                    maps.iter().any(|map| map.range.contains(part.example))
                        && frame.is_some()
                        && frame_at(root, other, part.example) == *frame
                }
            };
            if shares {
                pids.push(other);
            }
        }
    }
    Ok(found)
}

/// `device:inode` of the file behind a mapping, as [`crate::placement::Mapping::file`] has it.
pub(crate) fn file_id(map: &maps::Mapping) -> Option<String> {
    let device = map.device;
    (map.inode != 0).then(|| format!("{:02x}:{:02x}:{}", device.major, device.minor, map.inode))
}

fn frame_at(root: &Root, pid: u32, address: u64) -> Option<u64> {
    let mut word = [0];
    let pagemap = Pagemap::open(root, pid).ok()?;
    pagemap.read_entries(address / BASE_PAGE_BYTES, &mut word).ok()?;
    PagemapEntry(word[0]).frame()
}
