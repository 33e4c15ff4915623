//! Reads `/sys/devices/virtual/memory_tiering`: which nodes the kernel takes for equally fast.
//!
//! The kernel's numbers have gaps (one for DRAM is 4 mostly, and a slower one 22); a smaller
//! number is faster. In pagetide tiers count from 0, the fastest.
//!
//! Source: kernel, Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers (Linux 6.1).

use std::collections::BTreeMap;

use machine::{NodeId, NodeSet};

use crate::{ReadError, Root};

const TIERS: &str = "sys/devices/virtual/memory_tiering";

/// The tier of each node that the kernel has put in one; empty when it knows no tiers.
///
/// # Errors
///
/// [`ReadError`].
pub fn tiers(root: &Root) -> Result<BTreeMap<NodeId, u8>, ReadError> {
    let numbers = match root.numbers(TIERS, "memory_tier", "") {
        Err(ReadError::NotFound { .. }) => return Ok(BTreeMap::new()),
        result => result?,
    };
    let mut tiers = BTreeMap::new();
    let mut tier = 0_u8;
    for number in numbers {
        let nodes: NodeSet = root.value(format!("{TIERS}/memory_tier{number}/nodelist"))?;
        if !nodes.is_empty() {
            tiers.extend(nodes.iter().map(|node| (node, tier)));
            tier = tier.saturating_add(1);
        }
    }
    Ok(tiers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn tiers_count_from_the_fastest_and_empty_ones_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        for (name, nodes) in [("memory_tier22", "2"), ("memory_tier4", "0-1"), ("memory_tier8", "")]
        {
            let tier = folder.path().join(TIERS).join(name);
            fs::create_dir_all(&tier).unwrap();
            fs::write(tier.join("nodelist"), format!("{nodes}\n")).unwrap();
        }
        let tiers = tiers(&Root::new(folder.path())).unwrap();
        let tiers: Vec<_> = tiers.into_iter().map(|(node, tier)| (node.get(), tier)).collect();
        assert_eq!(tiers, [(0, 0), (1, 0), (2, 1)]);
    }

    #[test]
    fn a_kernel_without_tiers_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(tiers(&Root::new(folder.path())).unwrap().is_empty());
    }
}
