//! The counters of `/proc/vmstat` that migration moves (spec 7.13, 10, 11.1).

macro_rules! counters {
    ($($name:ident = $text:literal,)*) => {
        /// A counter of `/proc/vmstat`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Counter {
            /// Every counter, in the order in which the model prints them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in `/proc/vmstat`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    PgmigrateSuccess = "pgmigrate_success",
    PgmigrateFail = "pgmigrate_fail",
    ThpMigrationSuccess = "thp_migration_success",
    ThpMigrationFail = "thp_migration_fail",
    ThpMigrationSplit = "thp_migration_split",
    ThpSplitPage = "thp_split_page",
    ThpSplitPageFailed = "thp_split_page_failed",
    ThpSplitPmd = "thp_split_pmd",
    NumaPteUpdates = "numa_pte_updates",
    NumaHugePteUpdates = "numa_huge_pte_updates",
    NumaHintFaults = "numa_hint_faults",
    NumaHintFaultsLocal = "numa_hint_faults_local",
    NumaPagesMigrated = "numa_pages_migrated",
    PgpromoteSuccess = "pgpromote_success",
    PgpromoteCandidate = "pgpromote_candidate",
    PgpromoteCandidateNrl = "pgpromote_candidate_nrl",
    PgdemoteKswapd = "pgdemote_kswapd",
    PgdemoteDirect = "pgdemote_direct",
    PgdemoteProactive = "pgdemote_proactive",
    CompactIsolated = "compact_isolated",
}

/// Values of all counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    values: Vec<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: vec![0; Counter::ALL.len()] }
    }
}

impl Counters {
    pub(crate) fn add(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] += value;
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Self, counter: Counter) -> u64 {
        self.get(counter) - earlier.get(counter)
    }

    /// The text of `/proc/vmstat`, as far as the model has it.
    pub fn text(&self) -> String {
        Counter::ALL.iter().map(|&c| format!("{} {}\n", c.name(), self.get(c))).collect()
    }
}
