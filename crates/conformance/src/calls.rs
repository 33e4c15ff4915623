//! The system calls of a scenario: arrays and masks in a caller's memory, and what came back.

use model::{Buffers, Errno, GetMempolicyArgs, MbindArgs, MovePagesArrays, TaskId};
use scenario::layout::{ABSENT_PID, MASK_BYTES, SENTINEL, UNWRITTEN_WORD, mask_nodes, node_list};
use scenario::{Base, Mode, MoveTarget, Pid, Place, Pointer, Policy, Seen, Step, flags};

use crate::player::Player;
use crate::words::{FIRST_MASK, put_array, put_mask};

const SECOND_MASK: u64 = 0x20_0000;
const PAGES: u64 = 0x100_0000;
const NODES: u64 = 0x200_0000;
const STATUS: u64 = 0x300_0000;
const MODE: u64 = 0x400_0000;

fn value(result: Result<i64, Errno>) -> Seen {
    match result {
        Ok(value) => Seen::Value(value),
        Err(error) => Seen::Errno(error.name().to_owned()),
    }
}

impl Player {
    pub(crate) fn call(&mut self, task: TaskId, step: &Step) -> Seen {
        let mut user = Buffers::default();
        match step {
            Step::MigratePages { pid, from, to, maxnode } => {
                let from = put_mask(&mut user, from, FIRST_MASK);
                let to = put_mask(&mut user, to, SECOND_MASK);
                let pid = self.pid(*pid);
                value(self.machine.migrate_pages(&user, task, pid, *maxnode, from, to))
            }
            Step::MovePages { .. } => self.move_pages(task, step),
            Step::Mbind { place, mode, mask, flags, len, maxnode } => {
                let mask = put_mask(&mut user, mask, FIRST_MASK);
                let (start, length) = self.range(*place);
                let args = MbindArgs {
                    start,
                    length: len.unwrap_or(length),
                    mode: mode.0,
                    mask,
                    maxnode: *maxnode,
                    flags: u32::try_from(*flags).unwrap_or(u32::MAX),
                };
                value(self.machine.mbind(&user, task, args).map(|()| 0))
            }
            Step::SetMempolicy { mode, mask, maxnode } => {
                let address = put_mask(&mut user, mask, FIRST_MASK);
                let result = self.machine.set_mempolicy(&user, task, mode.0, address, *maxnode);
                if result.is_ok() {
                    self.remember_policy(task, mode.0, mask);
                }
                value(result.map(|()| 0))
            }
            Step::GetMempolicy { flags, addr, mode_at, mask_at, maxnode } => {
                self.get_mempolicy(task, *flags, *addr, (*mode_at, *mask_at), *maxnode)
            }
            Step::HomeNode { place, node, flags, len } => {
                let (start, length) = self.range(*place);
                let length = len.unwrap_or(length);
                let result =
                    self.machine.set_mempolicy_home_node(task, start, length, *node, *flags);
                value(result.map(|()| 0))
            }
            _ => unreachable!("only system calls come here"),
        }
    }

    fn pid(&self, pid: Pid) -> i32 {
        match pid {
            Pid::Caller => 0,
            Pid::Actor(letter) => self.actors.get(&letter).map_or(ABSENT_PID, |task| task.get()),
            Pid::Absent => ABSENT_PID,
            Pid::Kthread => self.kthread.get(),
            Pid::Number(number) => number,
        }
    }

    fn move_pages(&mut self, task: TaskId, step: &Step) -> Seen {
        let Step::MovePages { pid, pages, nodes, flags, count, pages_at, nodes_at, status_at } =
            step
        else {
            unreachable!("only move_pages comes here")
        };
        let mut user = Buffers::default();
        let addresses = self.page_list(pages);
        let bytes = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
        let pages = put_array(&mut user, bytes, *pages_at, 8, PAGES);
        let nodes = match nodes {
            MoveTarget::Query => 0,
            MoveTarget::Nodes(list) => {
                let words = node_list(list, addresses.len());
                let bytes = words.into_iter().flat_map(i32::to_le_bytes).collect();
                put_array(&mut user, bytes, *nodes_at, 4, NODES)
            }
        };
        let words = vec![SENTINEL; addresses.len() * 4];
        let status = put_array(&mut user, words, *status_at, 4, STATUS);
        let count = count.unwrap_or(addresses.len() as u64);
        let arrays = MovePagesArrays { count, pages, nodes, status };
        let pid = self.pid(*pid);
        let flags = i32::try_from(*flags).unwrap_or(i32::MAX);
        let result = self.machine.move_pages(&mut user, task, pid, arrays, flags);
        let words = user.get(STATUS).chunks_exact(4).map(|word| {
            let word = i32::from_le_bytes(word.try_into().unwrap_or_default());
            (word != UNWRITTEN_WORD).then(|| match Errno::from_raw(-word) {
                Some(errno) if word < 0 => Err(errno.name().to_owned()),
                _ => Ok(word),
            })
        });
        let result = result.map_err(|error| error.name().to_owned());
        Seen::Status { result, words: words.collect() }
    }

    fn page_list(&self, pages: &[(Place, u64)]) -> Vec<u64> {
        let mut list = Vec::new();
        for &(place, times) in pages {
            let addresses = match place.base {
                Base::Null => vec![0],
                _ => self.addresses(place),
            };
            (0..times).for_each(|_| list.extend_from_slice(&addresses));
        }
        list
    }

    fn get_mempolicy(
        &mut self,
        task: TaskId,
        word: u64,
        addr: Option<Place>,
        (mode_at, mask_at): (Pointer, Pointer),
        maxnode: Option<u64>,
    ) -> Seen {
        let mut user = Buffers::default();
        let mode = put_array(&mut user, vec![SENTINEL; 4], mode_at, 4, MODE);
        let mask = put_array(&mut user, vec![SENTINEL; MASK_BYTES], mask_at, 8, FIRST_MASK);
        let args = GetMempolicyArgs {
            mode,
            mask,
            maxnode: maxnode.unwrap_or(1025),
            address: addr.map_or(0, |place| self.range(place).0),
            flags: word,
        };
        let result = self.machine.get_mempolicy(&mut user, task, args);
        let stored = user.get(MODE).try_into().ok().map(i32::from_le_bytes);
        let mode = stored.filter(|&stored| stored != UNWRITTEN_WORD).map(|stored| {
            if word & flags::NODE != 0 {
                format!("node={stored}")
            } else {
                Mode(stored).to_string()
            }
        });
        let written = user.get(FIRST_MASK).iter().rposition(|&byte| byte != SENTINEL);
        let bytes = written.map_or(0, |last| last + 1);
        let has_mask = result.is_ok() && mask_at == Pointer::Good;
        Seen::Policy(Policy {
            errno: result.err().map(|error| error.name().to_owned()),
            mode,
            wrote: maxnode.filter(|_| has_mask).map(|_| bytes as u64),
            nodes: has_mask.then(|| mask_nodes(&user.get(FIRST_MASK)[..bytes])),
        })
    }
}
