//! The migration and policy calls of a scenario: arrays and masks on the desk, and what came back.

use linux::Errno;
use scenario::layout::{
    ABSENT_PID, BAD_ADDRESS, MASK_BYTES, SENTINEL, UNWRITTEN_WORD, mask_bytes, mask_nodes,
    node_list,
};
use scenario::{Base, Mask, Mode, MoveTarget, Pid, Place, Pointer, Policy, Seen, Step, flags};

use super::part::{Part, Unable};
use super::{name, numbered};
use crate::sys::{self, Call, Drawer};

/// `maxnode` of the calls that say none.
const MAXNODE: u64 = 1025;

fn value(result: Result<i64, Errno>) -> Seen {
    match result {
        Ok(value) => Seen::Value(value),
        Err(errno) => Seen::Errno(name(errno)),
    }
}

/// A word of a call's register, as C would pass a negative one.
fn word(number: i32) -> u64 {
    i64::from(number).cast_unsigned()
}

impl Part {
    pub(crate) fn call(&mut self, step: &Step) -> Result<Seen, Unable> {
        match step {
            Step::MigratePages { pid, from, to, maxnode } => {
                let from = self.put_mask(from, Drawer::FirstMask)?;
                let to = self.put_mask(to, Drawer::SecondMask)?;
                let pid = word(self.pid(*pid));
                Ok(value(sys::call(Call::MigratePages, [pid, *maxnode, from, to, 0, 0])))
            }
            Step::MovePages { .. } => self.move_pages(step),
            Step::Mbind { place, mode, mask, flags, len, maxnode } => {
                let mask = self.put_mask(mask, Drawer::FirstMask)?;
                let (start, bytes) = self.call_range(*place);
                let bytes = len.unwrap_or(bytes);
                let arguments = [start, bytes, word(mode.0), mask, *maxnode, *flags];
                Ok(value(sys::call(Call::Mbind, arguments)))
            }
            Step::SetMempolicy { mode, mask, maxnode } => {
                let address = self.put_mask(mask, Drawer::FirstMask)?;
                let arguments = [word(mode.0), address, *maxnode, 0, 0, 0];
                let result = sys::call(Call::SetMempolicy, arguments);
                if result.is_ok() {
                    self.remember_policy(mode.0, mask);
                }
                Ok(value(result))
            }
            Step::GetMempolicy { flags, addr, mode_at, mask_at, maxnode } => {
                self.get_mempolicy(*flags, *addr, (*mode_at, *mask_at), *maxnode)
            }
            Step::HomeNode { place, node, flags, len } => {
                let (start, bytes) = self.call_range(*place);
                let arguments = [start, len.unwrap_or(bytes), *node, *flags, 0, 0];
                Ok(value(sys::call(Call::HomeNode, arguments)))
            }
            other => Err(Unable(format!("no actor performs `{other}`"))),
        }
    }

    /// Sets the policy of this thread; for what a step does beside its own calls.
    pub(crate) fn set_policy(&self, mode: i32, nodes: &[u16]) -> Result<(), Errno> {
        let desk = self.script.desk;
        let mask = desk.put(Drawer::FirstMask, &mask_bytes(nodes), None);
        let mask = mask.ok_or(Errno::E2BIG)?;
        sys::call(Call::SetMempolicy, [word(mode), mask, MAXNODE, 0, 0, 0]).map(drop)
    }

    /// First byte and length of a place as the calls take it: of the vdso one page.
    fn call_range(&self, place: Place) -> (u64, u64) {
        self.span(place).map_or((0, 0), |span| (span.start, span.bytes()))
    }

    fn put_mask(&self, mask: &Mask, drawer: Drawer) -> Result<u64, Unable> {
        match mask {
            Mask::Null => Ok(0),
            Mask::Bad => Ok(BAD_ADDRESS),
            Mask::Nodes { nodes, words } => {
                let cut = words.map(|words| words as usize * 8);
                self.put(drawer, &mask_bytes(nodes), cut)
            }
        }
    }

    /// Puts an array of entries on the desk, as far as `pointer` lets it be seen; its address.
    fn put_array(
        &self,
        drawer: Drawer,
        bytes: &[u8],
        entry: usize,
        pointer: Pointer,
    ) -> Result<u64, Unable> {
        match pointer {
            Pointer::Null => Ok(0),
            Pointer::Bad => Ok(BAD_ADDRESS),
            Pointer::Good => self.put(drawer, bytes, None),
            Pointer::Cut(entries) => {
                let cut = usize::try_from(entries).unwrap_or(usize::MAX).saturating_mul(entry);
                self.put(drawer, bytes, Some(cut))
            }
        }
    }

    fn put(&self, drawer: Drawer, bytes: &[u8], cut: Option<usize>) -> Result<u64, Unable> {
        let address = self.script.desk.put(drawer, bytes, cut);
        address.ok_or_else(|| Unable(format!("no room for an array of {} bytes", bytes.len())))
    }

    fn pid(&self, pid: Pid) -> i32 {
        match pid {
            Pid::Caller => 0,
            Pid::Actor(letter) => {
                let pid = self.script.board.pid(scenario::Actor(letter));
                pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(ABSENT_PID)
            }
            Pid::Absent => ABSENT_PID,
            Pid::Kthread => self.script.kthread,
            Pid::Number(number) => number,
        }
    }

    fn page_list(&self, pages: &[(Place, u64)]) -> Vec<u64> {
        let mut list = Vec::new();
        for &(place, times) in pages {
            let addresses: Vec<u64> = match (place.base, self.span(place)) {
                (Base::Null, _) => vec![0],
                (_, Some(span)) => span.addresses().collect(),
                (_, None) => Vec::new(),
            };
            (0..times).for_each(|_| list.extend_from_slice(&addresses));
        }
        list
    }

    fn move_pages(&self, step: &Step) -> Result<Seen, Unable> {
        let Step::MovePages { pid, pages, nodes, flags, count, pages_at, nodes_at, status_at } =
            step
        else {
            return Err(Unable("only move_pages comes here".into()));
        };
        let list = self.page_list(pages);
        let bytes: Vec<u8> = list.iter().flat_map(|address| address.to_le_bytes()).collect();
        let pages = self.put_array(Drawer::Pages, &bytes, 8, *pages_at)?;
        let nodes = match nodes {
            MoveTarget::Query => 0,
            MoveTarget::Nodes(nodes) => {
                let words = node_list(nodes, list.len());
                let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_le_bytes).collect();
                self.put_array(Drawer::Nodes, &bytes, 4, *nodes_at)?
            }
        };
        let words = vec![SENTINEL; list.len() * 4];
        let status = self.put_array(Drawer::Status, &words, 4, *status_at)?;
        let count = count.unwrap_or(numbered(list.len()));
        let arguments = [word(self.pid(*pid)), count, pages, nodes, status, *flags];
        let result = sys::call(Call::MovePages, arguments).map_err(name);
        let visible = match status_at {
            Pointer::Good => list.len(),
            Pointer::Cut(entries) => {
                usize::try_from(*entries).unwrap_or(usize::MAX).min(list.len())
            }
            Pointer::Null | Pointer::Bad => 0,
        };
        let bytes = self.script.desk.get(Drawer::Status, status, visible * 4);
        Ok(Seen::Status { result, words: bytes.chunks_exact(4).map(status_word).collect() })
    }

    fn get_mempolicy(
        &self,
        flags: u64,
        addr: Option<Place>,
        (mode_at, mask_at): (Pointer, Pointer),
        maxnode: Option<u64>,
    ) -> Result<Seen, Unable> {
        let mode = self.put_array(Drawer::Mode, &[SENTINEL; 4], 4, mode_at)?;
        let mask = self.put_array(Drawer::FirstMask, &[SENTINEL; MASK_BYTES], 8, mask_at)?;
        let address = addr.map_or(0, |place| self.call_range(place).0);
        let arguments = [mode, mask, maxnode.unwrap_or(MAXNODE), address, flags, 0];
        let result = sys::call(Call::GetMempolicy, arguments);
        let desk = self.script.desk;
        let stored = desk.get(Drawer::Mode, mode, if mode_at == Pointer::Good { 4 } else { 0 });
        let stored = stored.try_into().ok().map(i32::from_le_bytes);
        let mode = stored.filter(|&stored| stored != UNWRITTEN_WORD).map(|stored| {
            if flags & flags::NODE != 0 {
                format!("node={stored}")
            } else {
                Mode(stored).to_string()
            }
        });
        let has_mask = result.is_ok() && mask_at == Pointer::Good;
        let mask = desk.get(Drawer::FirstMask, mask, if has_mask { MASK_BYTES } else { 0 });
        let written = mask.iter().rposition(|&byte| byte != SENTINEL).map_or(0, |last| last + 1);
        Ok(Seen::Policy(Policy {
            errno: result.err().map(name),
            mode,
            wrote: maxnode.filter(|_| has_mask).map(|_| numbered(written)),
            nodes: has_mask.then(|| mask_nodes(&mask[..written])),
        }))
    }
}

/// A status word: `None` where the kernel wrote none, else a node or an errno.
fn status_word(bytes: &[u8]) -> Option<Result<i32, String>> {
    let word = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
    (word != UNWRITTEN_WORD).then(|| match word {
        ..0 => Err(name(Errno::from(word.saturating_neg()))),
        node => Ok(node),
    })
}
