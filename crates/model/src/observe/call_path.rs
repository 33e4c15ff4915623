//! The path of functions by which a migration came, outermost first, with the kernel's names.
//!
//! The names are those that a stack shows, so inlined functions are missing: `do_numa_page` is
//! part of `__handle_mm_fault` in all three builds (spec 9.1).

use std::fmt;

use crate::version::Behaviour;

/// Who called the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    MigratePages,
    MovePages,
    Mbind,
    Cpuset,
    HintFault,
    HugeHintFault,
    CompactMemory,
    BlockOffline,
    SoftOffline,
    LongtermPin,
    Demotion,
}

/// Function names, outermost first; the last is `migrate_pages`, the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CallPath([&'static str; 6]);

impl CallPath {
    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().copied().filter(|name| !name.is_empty())
    }
}

impl fmt::Display for CallPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" > "))
    }
}

impl fmt::Debug for CallPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Caller {
    pub(crate) fn path(self, behaviour: &Behaviour) -> CallPath {
        let misplaced = behaviour.misplaced_function;
        let names: &[&'static str] = match self {
            Self::MigratePages => &["kernel_migrate_pages", "do_migrate_pages", "migrate_to_node"],
            Self::MovePages if behaviour.path_has_do_pages_move => {
                &["kernel_move_pages", "do_pages_move", "move_pages_and_store_status"]
            }
            Self::MovePages => &["kernel_move_pages", "move_pages_and_store_status"],
            Self::Mbind => &["kernel_mbind", "do_mbind"],
            Self::Cpuset => &["cpuset_migrate_mm_workfn", "do_migrate_pages", "migrate_to_node"],
            Self::HintFault => &["handle_mm_fault", "__handle_mm_fault", misplaced],
            Self::HugeHintFault => {
                &["handle_mm_fault", "__handle_mm_fault", "do_huge_pmd_numa_page", misplaced]
            }
            Self::CompactMemory => &["sysctl_compaction_handler", "compact_node", "compact_zone"],
            Self::BlockOffline => &["memory_subsys_offline", "offline_pages", "do_migrate_range"],
            Self::SoftOffline => &["soft_offline_page_store", "soft_offline_page"],
            Self::LongtermPin if behaviour.staged_engine => {
                &["__gup_longterm_locked", "migrate_longterm_unpinnable_folios"]
            }
            Self::LongtermPin => &["io_pin_pages", "__gup_longterm_locked"],
            Self::Demotion => &["shrink_node", "shrink_folio_list", "demote_folio_list"],
        };
        let mut path = [""; 6];
        for (place, &name) in path.iter_mut().zip(names.iter().chain(&["migrate_pages"])) {
            *place = name;
        }
        CallPath(path)
    }
}
