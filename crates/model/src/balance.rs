//! Automatic NUMA balancing and memory tiering.
//!
//! - [`scan`]: a thread that burns CPU makes some of its pages inaccessible, now and then;
//! - [`hint_fault`]: the access that follows tells which CPU uses the page;
//! - [`filter`]: whether the page should come to that CPU;
//! - [`tiering`]: the same question for pages on a slower tier;
//! - [`account`]: what a thread learns from its faults, and how often it scans.
//!
//! Numa groups (threads of several processes that share memory) are not modelled: a thread is in
//! no group, so rules 9 and 10 of the filter never decide.

pub(crate) mod account;
pub(crate) mod filter;
pub(crate) mod hint_fault;
pub(crate) mod scan;
pub(crate) mod tiering;

use std::collections::BTreeMap;

use crate::Machine;
use crate::errno::Errno;
use crate::memory::node::Slot;
use crate::mm::task::TaskId;

pub(crate) use account::TaskBalance;
use tiering::PromotionState;

/// Bit of `kernel.numa_balancing`: balance by who uses a page.
pub const BALANCE_NORMAL: u8 = 1;
/// Bit of `kernel.numa_balancing`: promote hot pages from slower tiers.
pub const BALANCE_TIERING: u8 = 2;

/// One scheduler tick at 250 Hz.
const TICK_MS: u64 = 4;

/// The switches of balancing, as in sysctl and debugfs (spec 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancingSettings {
    /// `kernel.numa_balancing`: bits, see [`BALANCE_NORMAL`] and [`BALANCE_TIERING`].
    pub mode: u8,
    /// First scan of an address space, after this many ms.
    pub scan_delay_ms: u64,
    /// Shortest time between two scans.
    pub scan_period_min_ms: u64,
    /// Longest time between two scans.
    pub scan_period_max_ms: u64,
    /// MiB that a scan looks at.
    pub scan_size_mib: u64,
    /// A page on a slower tier is hot when it is used within this time after it was marked.
    pub hot_threshold_ms: u64,
    /// Promotions in MiB a second, at most.
    pub promote_rate_limit_mib: u64,
}

impl Default for BalancingSettings {
    fn default() -> Self {
        Self {
            mode: 0,
            scan_delay_ms: 1000,
            scan_period_min_ms: 1000,
            scan_period_max_ms: 60_000,
            scan_size_mib: 256,
            hot_threshold_ms: 1000,
            promote_rate_limit_mib: 65_536,
        }
    }
}

/// State of balancing that belongs to the machine.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Balancing {
    pub(crate) settings: BalancingSettings,
    pub(crate) now_ms: u64,
    pub(crate) promotion: BTreeMap<Slot, PromotionState>,
}

impl Balancing {
    pub(crate) const fn has(&self, bit: u8) -> bool {
        self.settings.mode & bit != 0
    }
}

impl Machine {
    /// The switches as they are.
    pub const fn balancing(&self) -> BalancingSettings {
        self.balancing.settings
    }

    /// Sets the switches. Turning tiering on starts its windows anew.
    ///
    /// # Errors
    ///
    /// `EINVAL`: a mode above 4.
    ///
    /// Source: behaviour spec 10.1.
    pub fn set_balancing(&mut self, settings: BalancingSettings) -> Result<(), Errno> {
        if settings.mode > 4 {
            return Err(Errno::EINVAL);
        }
        if settings.mode & BALANCE_TIERING != 0 && !self.balancing.has(BALANCE_TIERING) {
            self.balancing.promotion.clear();
        }
        self.balancing.settings = settings;
        Ok(())
    }

    /// Time on the machine's own clock, in ms since boot.
    pub const fn now_ms(&self) -> u64 {
        self.balancing.now_ms
    }

    /// Lets `ms` pass while nobody runs; background reclaim does its work.
    pub fn sleep(&mut self, ms: u64) {
        self.balancing.now_ms += ms;
        self.run_kswapd();
    }

    /// Lets a thread burn CPU for `ms`: the clock advances, and where a scan is due the thread does
    /// it. What it accesses meanwhile is the caller's business.
    pub fn run(&mut self, task: TaskId, ms: u64) {
        for _ in 0..ms {
            self.balancing.now_ms += 1;
            self.add_runtime(task, 1);
            if self.balancing.now_ms.is_multiple_of(TICK_MS) && self.scan_tick(task) {
                self.scan_work(task);
            }
        }
        self.run_kswapd();
    }
}
