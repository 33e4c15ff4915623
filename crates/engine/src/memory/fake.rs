//! A process made of a few vectors, for tests of the engine: pages on nodes, some pinned, some shared,
//! nodes that fill up. Its `move_pages` answers as Linux does (behaviour spec 3.4), unwritten words
//! and early returns included.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use linux::calls::MoveError;
use linux::{PageStatus, ReadError};
use machine::{AddrRange, BASE_PAGE_BYTES, NodeId, NodeSet};

use super::{Memory, Sharing, Unplaced};
use crate::placement::{Kind, Mapping, PageSize, Run};

/// One base page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakePage {
    pub(crate) node: NodeId,
    /// How many more calls will find it pinned.
    pub(crate) pinned_calls: u32,
    pub(crate) shared: bool,
}

/// A call that the fake answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) pages: Vec<u64>,
    pub(crate) to: NodeId,
}

/// The process. Pages are known by number, the first of all mappings being page 16.
pub(crate) struct FakeMemory {
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) pages: Mutex<BTreeMap<u64, FakePage>>,
    pub(crate) room_pages: Mutex<BTreeMap<NodeId, u64>>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) alive: AtomicBool,
    /// Dies during this call, counted from 1.
    pub(crate) dies_at_call: Option<usize>,
    /// Whether the caller may migrate the process as a whole.
    pub(crate) can_migrate: bool,
    /// Called before the process is migrated as a whole.
    pub(crate) before_migration: Option<Box<dyn Fn() + Send + Sync>>,
}

pub(crate) fn node(raw: u16) -> NodeId {
    NodeId::new(raw).unwrap()
}

impl FakeMemory {
    /// One anonymous mapping from page 16 on; `nodes` is a digit a page, `-` for none.
    pub(crate) fn new(nodes: &str) -> Self {
        let pages = nodes
            .bytes()
            .zip(16..)
            .filter(|(digit, _)| digit.is_ascii_digit())
            .map(|(digit, page)| {
                let node = node(u16::from(digit - b'0'));
                (page, FakePage { node, pinned_calls: 0, shared: false })
            })
            .collect();
        let mapping = Mapping {
            range: AddrRange::from_pages(16 * BASE_PAGE_BYTES, nodes.len() as u64),
            name: "[anon]".to_owned(),
            kind: Kind::Anon,
            shared: false,
            hugetlb: None,
            file: None,
        };
        Self {
            mappings: vec![mapping],
            pages: Mutex::new(pages),
            room_pages: Mutex::new(BTreeMap::new()),
            calls: Mutex::new(Vec::new()),
            alive: AtomicBool::new(true),
            dies_at_call: None,
            can_migrate: false,
            before_migration: None,
        }
    }

    /// Changes one page, counted from the start of the mapping.
    pub(crate) fn with_page(self, at: u64, change: impl Fn(&mut FakePage)) -> Self {
        self.pages.lock().unwrap().get_mut(&(16 + at)).map(change).unwrap();
        self
    }

    /// The nodes as digits.
    pub(crate) fn nodes(&self) -> String {
        let pages = self.pages.lock().unwrap();
        (16..16 + self.mappings[0].range.pages())
            .map(|page| pages.get(&page).map_or("-".to_owned(), |page| page.node.to_string()))
            .collect()
    }

    /// The engine of the kernel on one open batch; words are written only when all of it moved.
    fn flush(
        &self,
        open: &mut Vec<(usize, u64)>,
        to: NodeId,
        status: &mut [i32],
    ) -> Result<u64, MoveError> {
        let mut failed = 0;
        let mut pages = self.pages.lock().unwrap();
        let mut rooms = self.room_pages.lock().unwrap();
        for (_, number) in open.iter() {
            let page = pages.get_mut(number).unwrap();
            if page.pinned_calls > 0 {
                page.pinned_calls -= 1;
                failed += 1;
                continue;
            }
            if let Some(room) = rooms.get_mut(&to) {
                if *room == 0 {
                    open.clear();
                    return Err(MoveError::NoMemory { pid: 1, nodes: Box::new(NodeSet::only(to)) });
                }
                *room -= 1;
            }
            page.node = to;
        }
        if failed == 0 {
            open.iter().for_each(|&(at, _)| status[at] = to.as_raw());
        }
        open.clear();
        Ok(failed)
    }
}

impl Memory for FakeMemory {
    fn pid(&self) -> u32 {
        1
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    fn mappings(&self) -> Result<Vec<Mapping>, ReadError> {
        Ok(self.mappings.clone())
    }

    fn runs(
        &self,
        mapping: &Mapping,
        range: AddrRange,
        each: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<Unplaced, ReadError> {
        let first = range.start() / BASE_PAGE_BYTES;
        let pages: Vec<_> = self
            .pages
            .lock()
            .unwrap()
            .range(first..first + range.pages())
            .map(|(&number, &page)| (number, page))
            .collect();
        let mut run: Option<Run> = None;
        for (number, page) in pages {
            let start = number * BASE_PAGE_BYTES;
            match &mut run {
                Some(run)
                    if run.range().end() == start
                        && run.node == page.node
                        && run.shared == page.shared =>
                {
                    run.pages += 1;
                }
                _ => {
                    if let Some(done) = run.take()
                        && each(done).is_break()
                    {
                        return Ok(Unplaced::default());
                    }
                    let (node, shared) = (page.node, page.shared);
                    let (size, kind) = (PageSize::Base, mapping.kind);
                    run = Some(Run { start, pages: 1, node, size, kind, shared });
                }
            }
        }
        if let Some(done) = run {
            let _ = each(done);
        }
        Ok(Unplaced::default())
    }

    fn pages_by_node(&self) -> Result<BTreeMap<u64, BTreeMap<NodeId, u64>>, ReadError> {
        let pages = self.pages.lock().unwrap();
        let count = |mapping: &Mapping| {
            let mut counts = BTreeMap::new();
            let (first, end) = (mapping.range.start(), mapping.range.end());
            for (_, page) in pages.range(first / BASE_PAGE_BYTES..end / BASE_PAGE_BYTES) {
                *counts.entry(page.node).or_default() += 1;
            }
            (first, counts)
        };
        Ok(self.mappings.iter().map(count).collect())
    }

    fn has_page(&self, address: u64) -> bool {
        self.pages.lock().unwrap().contains_key(&(address / BASE_PAGE_BYTES))
    }

    fn move_pages(
        &self,
        pages: &[u64],
        to: NodeId,
        sharing: Sharing,
        status: &mut [i32],
    ) -> Result<(), MoveError> {
        status.fill(linux::UNWRITTEN);
        let calls = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call { pages: pages.to_vec(), to });
            calls.len()
        };
        if self.dies_at_call == Some(calls) {
            self.alive.store(false, Ordering::Relaxed);
            self.pages.lock().unwrap().clear();
            return Err(MoveError::TargetGone { pid: 1 });
        }
        let mut open = Vec::new();
        for (at, address) in pages.iter().enumerate() {
            let number = address / BASE_PAGE_BYTES;
            let page = self.pages.lock().unwrap().get(&number).copied();
            let word = match page {
                None => Some(PageStatus::NotPresent.word()),
                Some(page) if page.node == to => Some(to.as_raw()),
                Some(page) if page.shared && sharing == Sharing::OwnOnly => {
                    Some(PageStatus::Shared.word())
                }
                Some(_) => None,
            };
            match word {
                None => open.push((at, number)),
                Some(word) => {
                    status[at] = word;
                    if self.flush(&mut open, to, status)? > 0 {
                        return Ok(());
                    }
                }
            }
        }
        self.flush(&mut open, to, status).map(|_| ())
    }

    fn migrate_pages(&self, from: &NodeSet, to: NodeId, sharing: Sharing) -> Result<(), MoveError> {
        if !self.can_migrate {
            return Err(MoveError::NotPrivileged { pid: 1, call: "migrate pages" });
        }
        self.before_migration.iter().for_each(|call| call());
        let mut open: Vec<(usize, u64)> = {
            let pages = self.pages.lock().unwrap();
            let goes = |page: &FakePage| {
                from.contains(page.node) && (!page.shared || sharing == Sharing::IncludeShared)
            };
            pages.iter().filter(|(_, page)| goes(page)).map(|(&number, _)| (0, number)).collect()
        };
        self.calls.lock().unwrap().push(Call { pages: Vec::new(), to });
        if self.dies_at_call == Some(1) {
            self.alive.store(false, Ordering::Relaxed);
            self.pages.lock().unwrap().clear();
            return Err(MoveError::TargetGone { pid: 1 });
        }
        self.flush(&mut open, to, &mut [0]).map(|_| ())
    }

    fn query_pages(&self, pages: &[u64], status: &mut [i32]) -> Result<(), MoveError> {
        let held = self.pages.lock().unwrap();
        for (address, word) in pages.iter().zip(status) {
            *word = held
                .get(&(address / BASE_PAGE_BYTES))
                .map_or(PageStatus::NotPresent.word(), |page| page.node.as_raw());
        }
        Ok(())
    }
}
