//! `migrate_pages()` itself: hugetlb first, then the algorithm of the kernel, then the counters.
//!
//! There are two algorithms: since 6.12 a batch is unmapped, then moved ([`super::staged`]); 6.1
//! takes each folio through both halves at once ([`super::one_by_one`]). Source: behaviour spec
//! 7.3, 7.7, 7.13.

use crate::Machine;
use crate::errno::Errno;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_ORDER, Pfn, flag};
use crate::memory::owner::Owner;
use crate::migrate::unmap::Failure;
use crate::migrate::{EngineOutcome, MigrateMode, MigrateReason, Request};
use crate::observe::events::{Event, MigrateCounts};
use crate::observe::vmstat::Counter;

/// Passes over a list while something answers EAGAIN.
pub(super) const PASSES: u32 = 10;
/// 6.1, and hugetlb everywhere, do not wait in their first passes.
pub(super) const PATIENT_FROM: u32 = 3;

/// What a stage did besides moving.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// Folios that failed.
    pub(super) failed: u64,
    pub(super) no_memory: bool,
    /// Folios that stayed.
    pub(super) left: Vec<Pfn>,
    /// Base pages of folios that were split.
    pub(super) parts: Vec<Pfn>,
}

impl Stage {
    fn result(&self) -> Result<u64, Errno> {
        if self.no_memory { Err(Errno::ENOMEM) } else { Ok(self.failed) }
    }
}

impl Machine {
    /// Migrates isolated folios. Those that stay are given back, still isolated.
    pub(crate) fn migrate(&mut self, folios: Vec<Pfn>, request: &Request<'_>) -> EngineOutcome {
        self.emit(|_| Event::MigratePagesStart { mode: request.mode, reason: request.reason });
        let mut counts = MigrateCounts::default();
        let is_hugetlb = |head: &Pfn| self.frames.has(*head, flag::HUGETLB);
        let (hugetlb, others) = if self.hugetlb.is_used() {
            folios.into_iter().partition(is_hugetlb)
        } else {
            (Vec::new(), folios)
        };
        let mut stage = self.migrate_hugetlb(hugetlb, request, &mut counts);
        if stage.no_memory {
            stage.left.extend(others);
        } else if self.behaviour.staged_engine {
            self.migrate_staged(others, request, &mut stage, &mut counts);
        } else {
            self.migrate_one_by_one(others, request, &mut stage, &mut counts);
        }
        let result = if stage.left.is_empty() { Ok(0) } else { stage.result() };
        self.count_migration(&counts);
        self.emit(|machine| Event::MigratePages {
            counts,
            has_split_field: machine.behaviour.event_has_nr_split,
            mode: request.mode,
            reason: request.reason,
            path: request.caller.path(machine.behaviour),
        });
        EngineOutcome { result, left: stage.left, succeeded: counts.succeeded }
    }

    fn count_migration(&mut self, counts: &MigrateCounts) {
        self.counters.add(Counter::PgmigrateSuccess, counts.succeeded);
        let failed = if self.planted(PlantedFault::FailuresUncounted) { 0 } else { counts.failed };
        self.counters.add(Counter::PgmigrateFail, failed);
        self.counters.add(Counter::ThpMigrationSuccess, counts.thp_succeeded);
        self.counters.add(Counter::ThpMigrationFail, counts.thp_failed);
        self.counters.add(Counter::ThpMigrationSplit, counts.thp_split);
    }

    /// Spec 7.7: hugetlb folios go first, all in one stage, in every kernel.
    fn migrate_hugetlb(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        counts: &mut MigrateCounts,
    ) -> Stage {
        let mut stage = Stage::default();
        let mut retry = folios;
        for pass in 0..PASSES {
            let mut again = Vec::new();
            let mut list = retry.into_iter();
            while let Some(head) = list.next() {
                let pages = u64::from(self.frames.pages(head));
                let may_wait = pass >= PATIENT_FROM && request.mode == MigrateMode::Sync;
                match self.unmap_and_move(head, request, request.mode, may_wait) {
                    Ok(()) => counts.succeeded += pages,
                    Err(Failure::Again) => again.push(head),
                    Err(Failure::Final) => {
                        counts.failed += pages;
                        stage.failed += 1;
                        stage.left.push(head);
                    }
                    Err(Failure::NoMemory) => {
                        counts.failed += pages + self.base_pages(&again);
                        stage.no_memory = true;
                        stage.left.push(head);
                        stage.left.append(&mut again);
                        stage.left.extend(list);
                        return stage;
                    }
                }
            }
            retry = again;
            if retry.is_empty() {
                break;
            }
        }
        counts.failed += self.base_pages(&retry);
        stage.failed += retry.len() as u64;
        stage.left.append(&mut retry);
        stage
    }

    pub(super) fn base_pages(&self, folios: &[Pfn]) -> u64 {
        folios.iter().map(|&head| u64::from(self.frames.pages(head))).sum()
    }

    pub(super) fn is_thp(&self, head: Pfn) -> bool {
        self.frames.order(head) >= PMD_ORDER && !self.frames.has(head, flag::HUGETLB)
    }

    pub(super) fn thps(&self, folios: &[Pfn]) -> u64 {
        folios.iter().filter(|&&head| self.is_thp(head)).count() as u64
    }

    /// A folio that nobody uses any more is freed, which counts as moved (spec 7.4 b).
    pub(super) fn free_if_abandoned(&mut self, head: Pfn, counts: &mut MigrateCounts) -> bool {
        let used = self.frames.mapcount(head) > 0
            || self.frames.total_mapcount(head) > 0
            || self.frames.extra_references(head) > 0
            || matches!(self.frames.owner(head), Owner::File { .. });
        if used {
            return false;
        }
        counts.succeeded += u64::from(self.frames.pages(head));
        counts.thp_succeeded += u64::from(self.is_thp(head));
        self.frames.clear(head, flag::ISOLATED);
        self.free(head);
        true
    }

    /// Both halves for one folio; after a failure everything is as before.
    pub(super) fn unmap_and_move(
        &mut self,
        head: Pfn,
        request: &Request<'_>,
        mode: MigrateMode,
        may_wait: bool,
    ) -> Result<(), Failure> {
        let unmapped = self.unmap_folio(head, request, mode, may_wait)?;
        let checked = self.check_move(head);
        match checked {
            Ok(()) => self.transfer(&unmapped),
            Err(_) => self.undo_unmap(&unmapped),
        }
        checked
    }

    pub(super) fn fail(&mut self, head: Pfn, stage: &mut Stage, counts: &mut MigrateCounts) {
        counts.failed += u64::from(self.frames.pages(head));
        counts.thp_failed += u64::from(self.is_thp(head));
        stage.failed += 1;
        stage.left.push(head);
    }

    /// No destination of this size: the parts may find one. `false`: give up.
    pub(super) fn split_for_memory(
        &mut self,
        head: Pfn,
        request: &Request<'_>,
        may_split: bool,
        stage: &mut Stage,
        counts: &mut MigrateCounts,
    ) -> bool {
        let is_thp = u64::from(self.is_thp(head));
        stage.failed += 1;
        counts.thp_failed += is_thp;
        let balancing = request.reason == MigrateReason::NumaMisplaced;
        if self.frames.order(head) == 0 || balancing || !may_split {
            return false;
        }
        let Some(parts) = self.split_folio(head) else { return false };
        stage.parts.extend(parts);
        counts.large_folio_split += 1;
        counts.thp_split += is_thp;
        true
    }
}
