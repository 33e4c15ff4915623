//! What `/proc/vmstat` counts of migrations, which the sums of a trace are held against.

use linux::Root;
use linux::proc::vmstat;

use crate::event::Counts;

/// What it has counted since boot; `None` when it is not to be read.
pub(crate) fn read(root: &Root) -> Option<Counts> {
    let counters = vmstat::read(root).ok()?;
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    Some(Counts {
        succeeded_pages: count("pgmigrate_success"),
        failed_pages: count("pgmigrate_fail"),
        thp_succeeded: count("thp_migration_success"),
        thp_failed: count("thp_migration_fail"),
        thp_split: count("thp_migration_split"),
        large_folio_split: None,
    })
}

/// What was counted between two readings.
pub(crate) fn since(before: &Counts, after: &Counts) -> Counts {
    Counts {
        succeeded_pages: after.succeeded_pages.wrapping_sub(before.succeeded_pages),
        failed_pages: after.failed_pages.wrapping_sub(before.failed_pages),
        thp_succeeded: after.thp_succeeded.wrapping_sub(before.thp_succeeded),
        thp_failed: after.thp_failed.wrapping_sub(before.thp_failed),
        thp_split: after.thp_split.wrapping_sub(before.thp_split),
        large_folio_split: None,
    }
}
