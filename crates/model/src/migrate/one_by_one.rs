//! The engine of 6.1: each folio is unmapped and moved, or restored, before the next one.
//!
//! Source: behaviour spec 7.5; mm/migrate.c of 6.1, `migrate_pages`, `unmap_and_move`.

use crate::Machine;
use crate::memory::frames::Pfn;
use crate::migrate::Request;
use crate::migrate::engine::{PASSES, PATIENT_FROM, Stage};
use crate::migrate::unmap::Failure;
use crate::observe::events::MigrateCounts;

impl Machine {
    pub(super) fn migrate_one_by_one(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        stage: &mut Stage,
        counts: &mut MigrateCounts,
    ) {
        let mut done = self.unmap_and_move_all(folios, request, PASSES, counts);
        stage.failed += done.failed;
        stage.left.append(&mut done.left);
        if done.no_memory {
            stage.no_memory = true;
            stage.left.append(&mut done.parts);
        } else if !done.parts.is_empty() {
            // The parts do not count as folios; a shortage among them does count.
            let mut parts = self.unmap_and_move_all(done.parts, request, 1, counts);
            stage.no_memory = parts.no_memory;
            stage.left.append(&mut parts.left);
        }
    }

    fn unmap_and_move_all(
        &mut self,
        folios: Vec<Pfn>,
        request: &Request<'_>,
        passes: u32,
        counts: &mut MigrateCounts,
    ) -> Stage {
        let mut stage = Stage::default();
        let mut retry = folios;
        for pass in 0..passes {
            let mut again = Vec::new();
            let mut list = retry.into_iter();
            while let Some(head) = list.next() {
                if self.free_if_abandoned(head, counts) {
                    continue;
                }
                let (pages, is_thp) = (u64::from(self.frames.pages(head)), self.is_thp(head));
                let may_wait = pass >= PATIENT_FROM;
                match self.unmap_and_move(head, request, request.mode, may_wait) {
                    Ok(()) => {
                        counts.succeeded += pages;
                        counts.thp_succeeded += u64::from(is_thp);
                    }
                    Err(Failure::Again) => again.push(head),
                    Err(Failure::Final) => self.fail(head, &mut stage, counts),
                    Err(Failure::NoMemory) => {
                        if self.split_for_memory(head, request, passes > 1, &mut stage, counts) {
                            continue;
                        }
                        counts.failed += pages + self.base_pages(&again);
                        counts.thp_failed += self.thps(&again);
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
                return stage;
            }
        }
        for head in retry {
            self.fail(head, &mut stage, counts);
        }
        stage
    }
}
