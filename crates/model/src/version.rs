//! What differs between kernels: one table, one field for each difference.
//!
//! Nothing else in the crate asks which kernel it is. The kernels are Debian's 6.1, 6.12 and 7.3
//! (behaviour spec, section 0); a field's comment names the section that it comes from.

/// A kernel whose behaviour the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelVersion {
    /// Debian's 6.1.
    V6_1,
    /// Debian's 6.12.
    V6_12,
    /// Debian's 7.3, the newest that the behaviour was read in.
    V7_3,
}

/// How a large folio is judged to be shared (spec 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LargeShared {
    /// By the map count of one subpage.
    OneSubpage,
    /// By PMD mappings and the total map count: rule A.
    TotalMapcount,
    /// By the address spaces that it has noted (`crate::mm::mappers`): rule B.
    NotedMappers,
}

/// Which pages of a large folio a store after a fork takes over (`wp_can_reuse_anon_folio`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LargeReuse {
    /// The last one that is mapped.
    LastPage,
    /// None (6.10).
    Never,
    /// All, where one address space maps the folio alone (6.15, `__wp_can_reuse_large_anon_folio`).
    OneMapper,
}

/// How a page that cannot be isolated is counted by migrate_pages(2) (spec 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountUnisolated {
    /// Not at all.
    Never,
    /// Once for each folio.
    PerFolio,
    /// Once for each page-table entry.
    PerEntry,
}

/// One field for each difference, one value of it for each kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// `MPOL_WEIGHTED_INTERLEAVE` is a mode (0.2).
    pub(crate) weighted_interleave: bool,
    /// `MPOL_F_NUMA_BALANCING` goes with `MPOL_PREFERRED_MANY` (4.1).
    pub(crate) balancing_with_many: bool,
    /// `MPOL_F_NUMA_BALANCING` alone makes the user's mask remembered (4.1).
    pub(crate) balancing_keeps_user_mask: bool,
    /// A weight of 0 or of no digits is refused (4.6).
    pub(crate) zero_weight_is_invalid: bool,
    /// The interleave index is cut to 32 bits (6.2).
    pub(crate) interleave_index_32_bit: bool,
    /// mbind allocates by the policy of the VMA that maps the page, not by the new policy (4.3.2).
    pub(crate) mbind_allocates_by_vma: bool,
    /// Untouched private anonymous memory is `-EFAULT` in move_pages, not `-ENOENT` (3.3).
    pub(crate) untouched_anon_is_fault: bool,
    /// move_pages does not see pages made PROT_NONE (3.3).
    pub(crate) prot_none_hides_pages: bool,
    /// move_pages does not see memfd_secret pages (3.3).
    pub(crate) secret_hides_pages: bool,
    /// move_pages refuses tail addresses of hugetlb pages that must move (3.3).
    pub(crate) hugetlb_tail_is_refused: bool,
    /// When a large folio is shared (1.4).
    pub(crate) large_shared: LargeShared,
    /// How migrate_pages counts what it cannot isolate (2.3).
    pub(crate) count_unisolated: CountUnisolated,
    /// mbind counts a large folio's second entry as a failure (4.3.1).
    pub(crate) mbind_repeats_large: bool,
    /// The engine works in stages: unmap a batch, move it, fall back to one by one (7.4).
    pub(crate) staged_engine: bool,
    /// A partially mapped large folio is split before it is moved (8.2).
    pub(crate) splits_partially_mapped: bool,
    /// mlock makes a large folio unevictable that entries map in whole (FZ-38).
    pub(crate) locks_large_by_entries: bool,
    /// A split maps zero-filled pages to the zero page (8.2).
    pub(crate) split_uses_zero_page: bool,
    /// A dirty page becomes soft-dirty when its entry is restored (7.11).
    pub(crate) restore_marks_soft_dirty: bool,
    /// The end event has the field `nr_split` (7.13).
    pub(crate) event_has_nr_split: bool,
    /// A write to the huge zero page allocates a THP (corrections to 6.1).
    pub(crate) huge_zero_write_allocates_thp: bool,
    /// The vvar pages are ordinary shared pages (corrections to 1.3).
    pub(crate) vvar_is_ordinary: bool,
    /// New anonymous pages are on the active list (11.2).
    pub(crate) new_pages_are_active: bool,
    /// Folios that a per-CPU batch holds before it is emptied (`PAGEVEC_SIZE`).
    pub(crate) lru_batch: usize,
    /// The LRU has generations, and MADV_COLD puts every page of it into a batch (FZ-45).
    pub(crate) cold_pages_wait: bool,
    /// munmap, MADV_DONTNEED and exit empty the batch of their CPU (FZ-27).
    pub(crate) unmap_drains_lru: bool,
    /// References to a page that is not on the LRU up to which a store, which might take it over,
    /// empties the batch of its CPU (FZ-28).
    pub(crate) reuse_drains_up_to: u32,
    /// Which pages of a large folio a store after a fork takes over (FZ-47).
    pub(crate) large_reuse: LargeReuse,
    /// `MPOL_WEIGHTED_INTERLEAVE` counts in `numa_interleave` (6.4).
    pub(crate) weighted_counts_interleave: bool,
    /// Shared memory follows the thread policy in the balancing scanner (10.2).
    pub(crate) scans_shmem_by_thread: bool,
    /// A private page with more than one reference is not scanned (10.2).
    pub(crate) scan_wants_one_reference: bool,
    /// A local PMD of a single-threaded process is not scanned (10.2).
    pub(crate) scan_skips_local_pmd: bool,
    /// A task whose cpuset has one node is not scanned (10.2).
    pub(crate) scan_skips_confined: bool,
    /// A hint keeps the write bit of its entry (10.3).
    pub(crate) hint_keeps_write: bool,
    /// Hint faults of large folios that are mapped by entries are not looked at (10.3).
    pub(crate) hint_ignores_large: bool,
    /// A write fault that reuses a migrated page forgets its last CPU and thread (10.3).
    pub(crate) reuse_forgets_cpupid: bool,
    /// Faults are not forgotten when a thread backs off (10.2).
    pub(crate) locality_outlives_back_off: bool,
    /// Promotion is counted in tiering mode only (10.4).
    pub(crate) promote_counts_in_tiering_only: bool,
    /// Pages promoted because there is plenty of room have a counter (10.6).
    pub(crate) counts_free_promotions: bool,
    /// Demotion stays in the cpuset of the memory cgroup (10.7).
    pub(crate) demotion_follows_cpuset: bool,
    /// Nodes of boot memory may have a lower tier (10.7).
    pub(crate) boot_nodes_have_tiers: bool,
    /// A group with processes may not be left without nodes of its own (FZ-09).
    pub(crate) populated_cpuset_keeps_mems: bool,
    /// A change of cpuset moves the pages of a process once for each thread (FZ-11).
    pub(crate) cpuset_moves_by_thread: bool,
    /// MADV_COLLAPSE of a range that begins and ends in one huge page succeeds (FZ-22).
    pub(crate) collapse_of_no_unit_succeeds: bool,
    /// MADV_COLLAPSE passes over a unit without page table, and needs no page that may be written
    /// (FZ-31, FZ-32).
    pub(crate) collapse_is_lenient: bool,
    /// MADV_DONTNEED of a whole unit takes its page table away (`CONFIG_PT_RECLAIM`, FZ-33).
    pub(crate) discard_frees_tables: bool,
    /// Block offline allocates outside the writer's cpuset (9.4, corrections).
    pub(crate) offline_ignores_cpuset: bool,
    /// Function names of the call paths (9.1).
    pub(crate) misplaced_function: &'static str,
    /// Whether move_pages has `do_pages_move` in its path (9.1).
    pub(crate) path_has_do_pages_move: bool,
}

const V6_1: Behaviour = Behaviour {
    weighted_interleave: false,
    balancing_with_many: false,
    balancing_keeps_user_mask: true,
    zero_weight_is_invalid: false,
    interleave_index_32_bit: true,
    mbind_allocates_by_vma: true,
    untouched_anon_is_fault: true,
    prot_none_hides_pages: true,
    secret_hides_pages: true,
    hugetlb_tail_is_refused: true,
    large_shared: LargeShared::OneSubpage,
    count_unisolated: CountUnisolated::Never,
    mbind_repeats_large: true,
    staged_engine: false,
    splits_partially_mapped: false,
    locks_large_by_entries: false,
    split_uses_zero_page: false,
    restore_marks_soft_dirty: true,
    event_has_nr_split: false,
    huge_zero_write_allocates_thp: false,
    vvar_is_ordinary: false,
    new_pages_are_active: false,
    lru_batch: 15,
    cold_pages_wait: false,
    unmap_drains_lru: true,
    reuse_drains_up_to: 3,
    large_reuse: LargeReuse::LastPage,
    weighted_counts_interleave: false,
    scans_shmem_by_thread: false,
    scan_wants_one_reference: true,
    scan_skips_local_pmd: false,
    scan_skips_confined: false,
    hint_keeps_write: true,
    hint_ignores_large: true,
    reuse_forgets_cpupid: false,
    locality_outlives_back_off: true,
    promote_counts_in_tiering_only: false,
    counts_free_promotions: false,
    demotion_follows_cpuset: false,
    boot_nodes_have_tiers: false,
    populated_cpuset_keeps_mems: true,
    cpuset_moves_by_thread: true,
    collapse_of_no_unit_succeeds: false,
    collapse_is_lenient: false,
    discard_frees_tables: false,
    offline_ignores_cpuset: false,
    misplaced_function: "migrate_misplaced_page",
    path_has_do_pages_move: false,
};

const V6_12: Behaviour = Behaviour {
    weighted_interleave: true,
    balancing_with_many: true,
    interleave_index_32_bit: false,
    mbind_allocates_by_vma: false,
    untouched_anon_is_fault: false,
    prot_none_hides_pages: false,
    secret_hides_pages: false,
    hugetlb_tail_is_refused: false,
    large_shared: LargeShared::TotalMapcount,
    count_unisolated: CountUnisolated::PerFolio,
    mbind_repeats_large: false,
    staged_engine: true,
    splits_partially_mapped: true,
    locks_large_by_entries: true,
    split_uses_zero_page: true,
    restore_marks_soft_dirty: false,
    event_has_nr_split: true,
    new_pages_are_active: true,
    large_reuse: LargeReuse::Never,
    lru_batch: 31,
    cold_pages_wait: true,
    scans_shmem_by_thread: true,
    scan_wants_one_reference: false,
    hint_keeps_write: false,
    hint_ignores_large: false,
    reuse_forgets_cpupid: true,
    locality_outlives_back_off: false,
    promote_counts_in_tiering_only: true,
    boot_nodes_have_tiers: true,
    misplaced_function: "migrate_misplaced_folio",
    path_has_do_pages_move: true,
    ..V6_1
};

const V7_3: Behaviour = Behaviour {
    balancing_keeps_user_mask: false,
    zero_weight_is_invalid: true,
    large_shared: LargeShared::NotedMappers,
    count_unisolated: CountUnisolated::PerEntry,
    huge_zero_write_allocates_thp: true,
    vvar_is_ordinary: true,
    new_pages_are_active: false,
    unmap_drains_lru: false,
    reuse_drains_up_to: 2,
    large_reuse: LargeReuse::OneMapper,
    weighted_counts_interleave: true,
    scan_skips_local_pmd: true,
    scan_skips_confined: true,
    counts_free_promotions: true,
    demotion_follows_cpuset: true,
    populated_cpuset_keeps_mems: false,
    cpuset_moves_by_thread: false,
    collapse_of_no_unit_succeeds: true,
    collapse_is_lenient: true,
    discard_frees_tables: true,
    offline_ignores_cpuset: true,
    ..V6_12
};

impl KernelVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_3];

    /// The version as people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }

    pub(crate) const fn behaviour(self) -> &'static Behaviour {
        match self {
            Self::V6_1 => &V6_1,
            Self::V6_12 => &V6_12,
            Self::V7_3 => &V7_3,
        }
    }
}
