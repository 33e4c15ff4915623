//! `--explain`: a line for each call that was answered, as strace would write it, and below it the
//! model's path and result where pages were moved.
//!
//! ```text
//! [4711] mbind(0x7f0c9e200000, 2097152, MPOL_BIND, {1}, MPOL_MF_MOVE) = 0
//!   kernel_mbind > do_mbind > migrate_pages
//!   reason=mempolicy_mbind mode=MIGRATE_SYNC moved=512 stayed=0 split=0 entries_set=512
//! ```
//!
//! Arguments in memory are read after the call was made and before the caller goes on.

use std::fmt::{self, Write as _};
use std::io;

use linux::Errno;
use machine::NodeSet;
use model::{Explained, UserMemory};

use crate::call::{Answer, Call, int};
use crate::filter::SYS_SET_MEMPOLICY_HOME_NODE;
use crate::user::Caller;

/// Entries of an array that are shown.
const SHOWN: u64 = 4;
/// Words of the longest mask that is read.
const MASK_WORDS: usize = NODE_LIMIT / 64;
const NODE_LIMIT: usize = machine::NodeId::LIMIT as usize;

/// Where the lines go.
pub struct Explain {
    sink: Box<dyn io::Write>,
}

impl fmt::Debug for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Explain")
    }
}

impl Explain {
    /// Lines are written to `sink`, one write a call.
    pub fn new(sink: Box<dyn io::Write>) -> Self {
        Self { sink }
    }

    /// Tells one call.
    pub(crate) fn call(
        &mut self,
        call: &Call,
        answer: Answer,
        moves: &[Explained],
    ) -> io::Result<()> {
        let mut text = told(call, answer);
        for explained in moves {
            let path = explained.to_string().replace('\n', "\n  ").replace("    ", "  ");
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {path}");
        }
        text.push('\n');
        self.sink.write_all(text.as_bytes())
    }
}

/// A call that the model answered, with its arguments by name and its answer.
pub(crate) fn told(call: &Call, answer: Answer) -> String {
    line(&Caller::new(call.tid), call, answer)
}

fn line(user: &dyn UserMemory, call: &Call, answer: Answer) -> String {
    let result = match answer {
        Answer::Error(errno) => match Errno::from(errno).name() {
            Some(name) => format!("-1 {name}"),
            None => format!("-1 errno {errno}"),
        },
        Answer::Value(value) => value.to_string(),
        Answer::Continue | Answer::Sent => "?".to_owned(),
    };
    let succeeded = matches!(answer, Answer::Value(_));
    let (name, arguments) = arguments(&Teller { user, succeeded }, call);
    format!("[{}] {name}({}) = {result}", call.tid, arguments.join(", "))
}

fn arguments(teller: &Teller<'_>, call: &Call) -> (&'static str, Vec<String>) {
    let [a, b, c, d, e, f] = call.args;
    let hex = |value: u64| if value == 0 { "NULL".to_owned() } else { format!("{value:#x}") };
    match call.number {
        libc::SYS_getcpu => ("getcpu", vec![teller.answered(a), teller.answered(b)]),
        libc::SYS_sched_getaffinity => {
            let mask = if teller.succeeded { teller.bytes_mask(c, b) } else { hex(c) };
            ("sched_getaffinity", vec![int(a).to_string(), b.to_string(), mask])
        }
        libc::SYS_sched_setaffinity => {
            let mask = teller.bytes_mask(c, b);
            ("sched_setaffinity", vec![int(a).to_string(), b.to_string(), mask])
        }
        libc::SYS_get_mempolicy => {
            let what = [(1, "MPOL_F_NODE"), (2, "MPOL_F_ADDR"), (4, "MPOL_F_MEMS_ALLOWED")];
            let word = if e & 1 == 0 { teller.answered_mode(a) } else { teller.answered(a) };
            let nodes = if teller.succeeded { teller.mask(b, c) } else { hex(b) };
            ("get_mempolicy", vec![word, nodes, c.to_string(), hex(d), flags(e, &what)])
        }
        libc::SYS_set_mempolicy => {
            ("set_mempolicy", vec![mode(int(a)), teller.mask(b, c), c.to_string()])
        }
        libc::SYS_mbind => {
            let arguments = vec![
                hex(a),
                b.to_string(),
                mode(int(c)),
                teller.mask(d, e),
                e.to_string(),
                flags(f & 0xffff_ffff, &MOVE_FLAGS),
            ];
            ("mbind", arguments)
        }
        SYS_SET_MEMPOLICY_HOME_NODE => {
            ("set_mempolicy_home_node", vec![hex(a), b.to_string(), c.to_string(), d.to_string()])
        }
        libc::SYS_migrate_pages => {
            let masks = [teller.mask(c, b), teller.mask(d, b)];
            let [from, to] = masks;
            ("migrate_pages", vec![int(a).to_string(), b.to_string(), from, to])
        }
        _ => {
            let status = if teller.succeeded { teller.words(e, b) } else { hex(e) };
            let arguments = vec![
                int(a).to_string(),
                b.to_string(),
                teller.addresses(c, b),
                teller.words(d, b),
                status,
                flags(f & 0xffff_ffff, &MOVE_FLAGS),
            ];
            ("move_pages", arguments)
        }
    }
}

const MOVE_FLAGS: [(u64, &str); 3] =
    [(1, "MPOL_MF_STRICT"), (2, "MPOL_MF_MOVE"), (4, "MPOL_MF_MOVE_ALL")];

/// Names of the bits that are set; the rest as a number.
fn flags(value: u64, names: &[(u64, &str)]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = value;
    for &(bit, name) in names {
        if value & bit != 0 {
            words.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    words.join("|")
}

fn mode(word: i32) -> String {
    const MODES: [&str; 7] = [
        "MPOL_DEFAULT",
        "MPOL_PREFERRED",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_LOCAL",
        "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE",
    ];
    const FLAGS: [(u64, &str); 3] = [
        (1 << 13, "MPOL_F_NUMA_BALANCING"),
        (1 << 14, "MPOL_F_RELATIVE_NODES"),
        (1 << 15, "MPOL_F_STATIC_NODES"),
    ];
    let flag_bits = u64::from(word.cast_unsigned()) & 0xe000;
    let base = usize::try_from(word & !0xe000).ok().and_then(|base| MODES.get(base));
    let base = base.map_or_else(|| format!("{:#x}", word & !0xe000), |name| (*name).to_owned());
    if flag_bits == 0 { base } else { format!("{base}|{}", flags(flag_bits, &FLAGS)) }
}

/// Reads what arguments point to.
struct Teller<'a> {
    user: &'a dyn UserMemory,
    succeeded: bool,
}

impl Teller<'_> {
    fn read<const BYTES: usize>(&self, array: u64, index: u64) -> Option<[u8; BYTES]> {
        let mut word = [0; BYTES];
        let address = array.checked_add(index.checked_mul(BYTES as u64)?)?;
        self.user.read(address, &mut word).ok().map(|()| word)
    }

    /// A node mask of `maxnode - 1` bits.
    fn mask(&self, address: u64, maxnode: u64) -> String {
        if address == 0 {
            return "NULL".to_owned();
        }
        let mut words = [0; MASK_WORDS];
        for (index, word) in (0..maxnode.saturating_sub(1).div_ceil(64)).zip(&mut words) {
            let Some(bytes) = self.read(address, index) else { return format!("{address:#x}") };
            *word = u64::from_le_bytes(bytes);
        }
        format!("{{{}}}", NodeSet::from_words(words))
    }

    /// A CPU mask of so many bytes.
    fn bytes_mask(&self, address: u64, bytes: u64) -> String {
        let mut cpus = machine::CpuSet::default();
        for index in 0..bytes.min(1024) {
            let Some([byte]) = self.read(address, index) else { return format!("{address:#x}") };
            let set = (0..8).filter(|bit| byte >> bit & 1 == 1);
            let numbers = set.map(|bit| u32::try_from(index).unwrap_or(u32::MAX) * 8 + bit);
            numbers.filter_map(machine::CpuId::new).for_each(|cpu| cpus.insert(cpu));
        }
        format!("{{{cpus}}}")
    }

    /// A word that the call stored.
    fn answered(&self, address: u64) -> String {
        match self.read(address, 0) {
            _ if address == 0 => "NULL".to_owned(),
            Some(word) if self.succeeded => format!("[{}]", i32::from_le_bytes(word)),
            _ => format!("{address:#x}"),
        }
    }

    fn answered_mode(&self, address: u64) -> String {
        match self.read(address, 0) {
            _ if address == 0 => "NULL".to_owned(),
            Some(word) if self.succeeded => format!("[{}]", mode(i32::from_le_bytes(word))),
            _ => format!("{address:#x}"),
        }
    }

    fn addresses(&self, address: u64, count: u64) -> String {
        self.list(address, count, |bytes: [u8; 8]| format!("{:#x}", u64::from_le_bytes(bytes)))
    }

    /// Nodes, or negative error numbers.
    fn words(&self, address: u64, count: u64) -> String {
        self.list(address, count, |bytes: [u8; 4]| {
            let word = i32::from_le_bytes(bytes);
            match Errno::from(word.saturating_neg()).name() {
                Some(name) if word < 0 => format!("-{name}"),
                _ => word.to_string(),
            }
        })
    }

    fn list<const BYTES: usize>(
        &self,
        address: u64,
        count: u64,
        tell: impl Fn([u8; BYTES]) -> String,
    ) -> String {
        if address == 0 {
            return "NULL".to_owned();
        }
        let mut entries = Vec::new();
        for index in 0..count.min(SHOWN) {
            let Some(bytes) = self.read(address, index) else { return format!("{address:#x}") };
            entries.push(tell(bytes));
        }
        if count > SHOWN {
            entries.push("...".to_owned());
        }
        format!("[{}]", entries.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Buffers;

    fn told(number: i64, args: [u64; 6], answer: Answer, user: &Buffers) -> String {
        line(user, &Call { id: 0, tid: 7, arch: 0, number, args }, answer)
    }

    #[test]
    fn a_mask_a_mode_and_flags_are_told_by_name() {
        let mut user = Buffers::default();
        user.put(0x1000, 6u64.to_le_bytes().to_vec());
        let args = [0x7000, 8192, 2 | 1 << 15, 0x1000, 65, 2];
        assert_eq!(
            told(libc::SYS_mbind, args, Answer::Value(0), &user),
            "[7] mbind(0x7000, 8192, MPOL_BIND|MPOL_F_STATIC_NODES, {1-2}, 65, MPOL_MF_MOVE) = 0"
        );
    }

    #[test]
    fn status_words_below_zero_are_names_of_errors() {
        let mut user = Buffers::default();
        let words: [i32; 3] = [1, -2, -14];
        user.put(0x2000, words.iter().flat_map(|word| word.to_le_bytes()).collect());
        user.put(0x3000, vec![0; 24]);
        let args = [0, 3, 0x3000, 0, 0x2000, 0];
        assert_eq!(
            told(libc::SYS_move_pages, args, Answer::Value(0), &user),
            "[7] move_pages(0, 3, [0x0, 0x0, 0x0], NULL, [1, -ENOENT, -EFAULT], 0) = 0"
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_as_an_address() {
        let args = [2, 0xdead_0000, 65, 0, 0, 0];
        assert_eq!(
            told(libc::SYS_set_mempolicy, args, Answer::Error(14), &Buffers::default()),
            "[7] set_mempolicy(MPOL_BIND, 0xdead0000, 65) = -1 EFAULT"
        );
    }

    #[test]
    fn flags_and_modes_without_a_name_survive() {
        assert_eq!(flags(0x12, &MOVE_FLAGS), "MPOL_MF_MOVE|0x10");
        assert_eq!(mode(9), "0x9");
    }
}
