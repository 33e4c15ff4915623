//! The engine since 6.12: unmap a batch, move it, undo what did not move; first without waiting,
//! then what is left one by one.
//!
//! Source: behaviour spec 7.4; mm/migrate.c, `migrate_pages_sync`, `migrate_pages_batch`.

use crate::Machine;
use crate::faults::PlantedFault;
use crate::memory::frames::{PMD_PAGES, Pfn, flag};
use crate::migrate::engine::{PASSES, Stage};
use crate::migrate::unmap::{Failure, Unmapped};
use crate::migrate::{MigrateMode, Request};
use crate::observe::events::MigrateCounts;

/// Passes of the first, unwaiting attempt of a synchronous call.
const ASYNC_PASSES: u32 = 3;
/// Passes that follow it for each folio.
const SYNC_PASSES: u32 = PASSES - ASYNC_PASSES;

/// One batch call: how often it tries and what it may do.
#[derive(Clone, Copy)]
struct Pass {
    mode: MigrateMode,
    passes: u32,
    may_split: bool,
}

impl Machine {
    pub(super) fn migrate_staged(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        stage: &mut Stage,
        counts: &mut MigrateCounts,
    ) {
        let mut folios = folios.into_iter();
        loop {
            let batch = self.next_batch(&mut folios);
            if batch.is_empty() {
                return;
            }
            let done = if request.mode == MigrateMode::Async {
                let pass = Pass { mode: MigrateMode::Async, passes: PASSES, may_split: true };
                self.batch(batch, request, pass, counts)
            } else {
                self.sync_batch(batch, request, counts)
            };
            stage.left.extend(done.left);
            if done.no_memory {
                stage.no_memory = true;
                stage.left.extend(done.parts);
                stage.left.extend(folios);
                return;
            }
            stage.failed += done.failed;
            if !done.parts.is_empty() {
                // The result of this run is thrown away, even ENOMEM; its counters are not.
                let pass = Pass { mode: MigrateMode::Async, passes: 1, may_split: false };
                let parts = self.batch(done.parts, request, pass, counts);
                stage.left.extend(parts.left);
            }
        }
    }

    /// Folios until their base pages reach 512.
    fn next_batch(&self, folios: &mut std::vec::IntoIter<Pfn>) -> Vec<Pfn> {
        let mut pages = 0;
        let mut batch = Vec::with_capacity(folios.len().min(PMD_PAGES as usize));
        while pages < PMD_PAGES
            && let Some(head) = folios.next()
        {
            pages += self.frames.pages(head);
            batch.push(head);
        }
        batch
    }

    /// First without waiting, all at once; then what is left, one by one, in the caller's mode.
    fn sync_batch(
        &mut self,
        batch: Vec<Pfn>,
        request: &Request<'_>,
        counts: &mut MigrateCounts,
    ) -> Stage {
        let mut first = MigrateCounts::default();
        let pass = Pass { mode: MigrateMode::Async, passes: ASYNC_PASSES, may_split: true };
        let mut done = self.batch(batch, request, pass, &mut first);
        if done.no_memory {
            counts.add(&first);
            return done;
        }
        counts.succeeded += first.succeeded;
        counts.thp_succeeded += first.thp_succeeded;
        counts.thp_failed += first.thp_split;
        counts.thp_split += first.thp_split;
        counts.large_folio_split += first.large_folio_split;
        done.failed = first.large_folio_split;
        if self.planted(PlantedFault::RetryLost) {
            return done;
        }
        let pass = Pass { mode: request.mode, passes: SYNC_PASSES, may_split: true };
        let mut left = std::mem::take(&mut done.left).into_iter();
        for head in left.by_ref() {
            let mut one = self.batch(vec![head], request, pass, counts);
            done.left.append(&mut one.left);
            done.parts.append(&mut one.parts);
            if one.no_memory {
                done.no_memory = true;
                break;
            }
            done.failed += one.failed;
        }
        done.left.extend(left);
        done
    }

    /// Unmap stage, then move stage, then undo for what was not moved.
    fn batch(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        pass: Pass,
        counts: &mut MigrateCounts,
    ) -> Stage {
        let mut stage = Stage::default();
        let mut unmapped = Vec::with_capacity(folios.len());
        self.unmap_stage(folios, request, pass, &mut stage, &mut unmapped, counts);
        for _ in 0..pass.passes {
            if unmapped.is_empty() {
                break;
            }
            self.move_stage(&mut unmapped, &mut stage, counts);
        }
        for folio in unmapped {
            self.fail(folio.source, &mut stage, counts);
            self.undo_unmap(&folio);
        }
        stage
    }

    fn unmap_stage(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        pass: Pass,
        stage: &mut Stage,
        unmapped: &mut Vec<Unmapped>,
        counts: &mut MigrateCounts,
    ) {
        let mut retry = folios;
        for _ in 0..pass.passes {
            let mut again = Vec::new();
            let mut list = retry.into_iter();
            while let Some(head) = list.next() {
                if self.split_partially_mapped(head, pass, stage, counts)
                    || self.free_if_abandoned(head, counts)
                {
                    continue;
                }
                match self.unmap_folio(head, request, pass.mode, true) {
                    Ok(folio) => unmapped.push(folio),
                    Err(Failure::Again) => again.push(head),
                    Err(Failure::Final) => self.fail(head, stage, counts),
                    Err(Failure::NoMemory) => {
                        if self.split_for_memory(head, request, pass.may_split, stage, counts) {
                            continue;
                        }
                        counts.failed +=
                            u64::from(self.frames.pages(head)) + self.base_pages(&again);
                        counts.thp_failed += self.thps(&again);
                        stage.no_memory = true;
                        stage.left.push(head);
                        stage.left.append(&mut again);
                        stage.left.extend(list);
                        return;
                    }
                }
            }
            retry = again;
            if retry.is_empty() {
                return;
            }
        }
        for head in retry {
            self.fail(head, stage, counts);
        }
    }

    /// A large folio that is mapped in part only is not worth moving whole (spec 8.2).
    fn split_partially_mapped(
        &mut self,
        head: Pfn,
        pass: Pass,
        stage: &mut Stage,
        counts: &mut MigrateCounts,
    ) -> bool {
        let both = flag::DEFERRED_SPLIT | flag::PARTIALLY_MAPPED;
        let partial = self.frames.flags(head) & both == both && self.frames.order(head) >= 2;
        let splits = self.behaviour.splits_partially_mapped;
        if !partial || !pass.may_split || !splits || self.planted(PlantedFault::SplitForgotten) {
            return false;
        }
        let is_thp = u64::from(self.is_thp(head));
        let Some(parts) = self.split_folio(head) else { return false };
        stage.failed += 1;
        stage.parts.extend(parts);
        counts.large_folio_split += 1;
        counts.thp_failed += is_thp;
        counts.thp_split += is_thp;
        true
    }

    /// Moves what may be moved, and keeps what is worth another pass.
    fn move_stage(
        &mut self,
        unmapped: &mut Vec<Unmapped>,
        stage: &mut Stage,
        counts: &mut MigrateCounts,
    ) {
        unmapped.retain(|folio| match self.check_move(folio.source) {
            Ok(()) => {
                counts.succeeded += u64::from(self.frames.pages(folio.source));
                counts.thp_succeeded += u64::from(self.is_thp(folio.source));
                self.transfer(folio);
                false
            }
            Err(Failure::Again) => true,
            Err(_) => {
                self.fail(folio.source, stage, counts);
                self.undo_unmap(folio);
                false
            }
        });
    }
}
