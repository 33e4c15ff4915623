//! Writes steps in the form that [`crate::parse`] reads.

use std::fmt::{self, Display, Formatter};

use crate::args::flags;
use crate::parse::DEFAULT_MAXNODE;
use crate::{
    Act, Actor, Advice, Base, Credential, Kind, Mask, Mode, MoveTarget, Pid, Place, Pointer,
    Protection, Scenario, Step,
};

pub(crate) const KINDS: [(Kind, &str); 9] = [
    (Kind::Anon, "anon"),
    (Kind::Thp, "thp"),
    (Kind::Shm, "shm"),
    (Kind::Memfd, "memfd"),
    (Kind::Tmpfs, "tmpfs"),
    (Kind::Ramfs, "ramfs"),
    (Kind::Huge, "huge"),
    (Kind::HugeShared, "hugeshm"),
    (Kind::Secret, "secret"),
];

pub(crate) const ADVICE: [(Advice, &str); 8] = [
    (Advice::Cold, "cold"),
    (Advice::Collapse, "collapse"),
    (Advice::DontNeed, "dontneed"),
    (Advice::HugePage, "hugepage"),
    (Advice::Mergeable, "mergeable"),
    (Advice::PageOut, "pageout"),
    (Advice::PopulateRead, "populate_read"),
    (Advice::PopulateWrite, "populate_write"),
];

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (position, act) in self.acts.iter().enumerate() {
            match (position, act.joined) {
                (0, _) => {}
                (_, true) => f.write_str(" & ")?,
                (_, false) => f.write_str("; ")?,
            }
            write!(f, "{act}")?;
        }
        Ok(())
    }
}

impl Display for Act {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.actor != Actor::FIRST {
            write!(f, "{}: ", self.actor)?;
        }
        write!(f, "{}", self.step)
    }
}

impl Display for Actor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.base {
            Base::Area(letter) => write!(f, "{letter}")?,
            Base::Address(addr) => write!(f, "{addr:#x}")?,
            Base::Vdso => f.write_str("vdso")?,
            Base::Vvar => f.write_str("vvar")?,
            Base::Kernel => f.write_str("KERN")?,
            Base::Top => f.write_str("TOP")?,
            Base::Null => f.write_str("NULL")?,
        }
        match (self.base, self.pages) {
            (_, None) => {}
            (Base::Address(_), Some((_, upto))) => write!(f, ":{upto}")?,
            (_, Some((from, upto))) if upto == from + 1 && self.stride == 1 => {
                write!(f, "[{from}]")?;
            }
            (_, Some((from, upto))) if self.stride == 1 => write!(f, "[{from}..{upto}]")?,
            (_, Some((from, upto))) => write!(f, "[{from}..{upto}/{}]", self.stride)?,
        }
        if self.offset != 0 { write!(f, "{:+}", self.offset) } else { Ok(()) }
    }
}

impl Display for Pid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("0"),
            Self::Actor(letter) => write!(f, "{letter}"),
            Self::Absent => f.write_str("none"),
            Self::Kthread => f.write_str("kthread"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Display for Mask {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bad => f.write_str("BAD"),
            Self::Nodes { nodes, words } => {
                let list: Vec<String> = nodes.iter().map(u16::to_string).collect();
                write!(f, "{{{}}}", list.join(","))?;
                words.map_or(Ok(()), |words| write!(f, "@cut{words}"))
            }
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bits = Self::FLAGS.iter().fold(0, |sum, (_, bit)| sum | bit);
        let name = usize::try_from(self.0 & !bits).ok().and_then(|number| Self::NAMES.get(number));
        let Some(name) = name else { return write!(f, "{}", self.0) };
        f.write_str(name)?;
        for (name, bit) in Self::FLAGS {
            if self.0 & bit != 0 {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}

/// Flags by name; a word with a bit that has no name is written as a number.
struct Bits<'a>(u64, &'a [(&'a str, u64)]);

impl Display for Bits<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let known = self.1.iter().fold(0, |sum, (_, bit)| sum | bit);
        if self.0 == 0 || self.0 & !known != 0 {
            return write!(f, "{}", self.0);
        }
        let names: Vec<&str> =
            self.1.iter().filter(|&&(_, bit)| self.0 & bit != 0).map(|&(name, _)| name).collect();
        f.write_str(&names.join("+"))
    }
}

fn pointer(f: &mut Formatter<'_>, key: &str, pointer: Pointer) -> fmt::Result {
    match pointer {
        Pointer::Good => Ok(()),
        Pointer::Null => write!(f, " {key}=NULL"),
        Pointer::Bad => write!(f, " {key}=BAD"),
        Pointer::Cut(entries) => write!(f, " {key}=cut{entries}"),
    }
}

fn maxnode(f: &mut Formatter<'_>, maxnode: u64) -> fmt::Result {
    if maxnode == DEFAULT_MAXNODE { Ok(()) } else { write!(f, " max={maxnode}") }
}

fn length(f: &mut Formatter<'_>, len: Option<u64>) -> fmt::Result {
    match len {
        None => Ok(()),
        Some(len) if len > u64::from(u32::MAX) => write!(f, " len={len:#x}"),
        Some(len) => write!(f, " len={len}"),
    }
}

fn optional(f: &mut Formatter<'_>, word: Option<&dyn Display>) -> fmt::Result {
    word.map_or(Ok(()), |word| write!(f, " {word}"))
}

fn times<T: Display>(f: &mut Formatter<'_>, list: &[(T, u64)]) -> fmt::Result {
    for (position, (item, times)) in list.iter().enumerate() {
        if position > 0 {
            f.write_str(",")?;
        }
        write!(f, "{item}")?;
        if *times != 1 {
            write!(f, "*{times}")?;
        }
    }
    Ok(())
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { .. }
            | Self::MovePages { .. }
            | Self::MigratePages { .. }
            | Self::Mbind { .. }
            | Self::SetMempolicy { .. }
            | Self::GetMempolicy { .. }
            | Self::HomeNode { .. } => call(self, f),
            Self::Fill { place, digits } => {
                let digits: String = digits.iter().map(u8::to_string).collect();
                write!(f, "fill {place} {digits}")
            }
            Self::Touch(place) => write!(f, "touch {place}"),
            Self::Read(place) => write!(f, "read {place}"),
            Self::Store(place, byte) => write!(f, "store {place} {byte}"),
            Self::Check(place, byte) => write!(f, "check {place} {byte}"),
            Self::Cpu(cpu) => write!(f, "cpu {cpu}"),
            Self::Protect(place, Protection::None) => write!(f, "protect {place} none"),
            Self::Protect(place, Protection::ReadOnly) => write!(f, "protect {place} ro"),
            Self::Protect(place, Protection::ReadWrite) => write!(f, "protect {place} rw"),
            Self::Lock(place) => write!(f, "lock {place}"),
            Self::LockOnFault(place) => write!(f, "lockonfault {place}"),
            Self::Unmap(place) => write!(f, "unmap {place}"),
            Self::Advise(place, advice) => {
                let name = ADVICE.iter().find(|(known, _)| known == advice).map_or("", |it| it.1);
                write!(f, "madv {place} {name}")
            }
            Self::Pin(place) => write!(f, "pin {place}"),
            Self::Unpin => f.write_str("unpin"),
            Self::Fork(actor) => write!(f, "fork {actor}"),
            Self::Thread(actor) => write!(f, "thread {actor}"),
            Self::Exit => f.write_str("exit"),
            Self::Wait(actor) => write!(f, "wait {actor}"),
            Self::Stop => f.write_str("stop"),
            Self::User(Credential::All, id) => write!(f, "uid {id}"),
            Self::User(Credential::Real, id) => write!(f, "ruid {id}"),
            Self::User(Credential::Effective, id) => write!(f, "euid {id}"),
            Self::Drop => f.write_str("drop"),
            Self::NoDump => f.write_str("nodump"),
            Self::UserNamespace => f.write_str("userns"),
            _ => look(self, f),
        }
    }
}

/// The system calls with many arguments.
fn call(step: &Step, f: &mut Formatter<'_>) -> fmt::Result {
    match step {
        Step::Map { area, pages, kind, of, private, at } => {
            write!(f, "map {area} {pages}")?;
            if *kind != Kind::Anon {
                let name = KINDS.iter().find(|(known, _)| known == kind).map_or("", |it| it.1);
                write!(f, " {name}")?;
            }
            of.map_or(Ok(()), |of| write!(f, " of={of}"))?;
            if *private {
                f.write_str(" private=1")?;
            }
            at.map_or(Ok(()), |at| write!(f, " at={at:#x}"))
        }
        Step::MigratePages { pid, from, to, maxnode: max } => {
            write!(f, "mp {pid} {from} {to}")?;
            maxnode(f, *max)
        }
        Step::MovePages {
            pid,
            pages,
            nodes,
            flags: word,
            count,
            pages_at,
            nodes_at,
            status_at,
        } => {
            write!(f, "mv {pid} ")?;
            if pages.is_empty() {
                f.write_str("-")?;
            }
            times(f, pages)?;
            match nodes {
                MoveTarget::Query => f.write_str(" ?")?,
                MoveTarget::Nodes(nodes) => {
                    f.write_str(" ")?;
                    times(f, nodes)?;
                }
            }
            if *word != flags::MOVE {
                write!(f, " {}", Bits(*word, &flags::MOVING))?;
            }
            match count {
                Some(count) if *count > u64::from(u32::MAX) => write!(f, " nr={count:#x}")?,
                Some(count) => write!(f, " nr={count}")?,
                None => {}
            }
            pointer(f, "pg", *pages_at)?;
            pointer(f, "nd", *nodes_at)?;
            pointer(f, "st", *status_at)
        }
        Step::Mbind { place, mode, mask, flags: word, len, maxnode: max } => {
            write!(f, "mbind {place} {mode} {mask}")?;
            if *word != 0 {
                write!(f, " {}", Bits(*word, &flags::MOVING))?;
            }
            length(f, *len)?;
            maxnode(f, *max)
        }
        Step::SetMempolicy { mode, mask, maxnode: max } => {
            write!(f, "smp {mode} {mask}")?;
            maxnode(f, *max)
        }
        Step::GetMempolicy { flags: word, addr, mode_at, mask_at, maxnode } => {
            write!(f, "gmp {}", Bits(*word, &flags::ASKING))?;
            optional(f, addr.as_ref().map(|addr| addr as &dyn Display))?;
            pointer(f, "mode", *mode_at)?;
            pointer(f, "mask", *mask_at)?;
            maxnode.map_or(Ok(()), |max| write!(f, " max={max}"))
        }
        Step::HomeNode { place, node, flags, len } => {
            write!(f, "home {place} {node}")?;
            if *flags != 0 {
                write!(f, " {flags}")?;
            }
            length(f, *len)
        }
        _ => Ok(()),
    }
}

/// What is around the process, and what is looked at.
fn look(step: &Step, f: &mut Formatter<'_>) -> fmt::Result {
    match step {
        Step::Cgroup { name, mems } => {
            write!(f, "cg {name}")?;
            optional(f, mems.as_ref().map(|mems| mems as &dyn Display))
        }
        Step::CgroupSet { name, mems } => write!(f, "cgset {name} {mems}"),
        Step::CgroupJoin { name, who } => {
            write!(f, "cgin {name}")?;
            optional(f, who.as_ref().map(|who| who as &dyn Display))
        }
        Step::CgroupEffective { name } => write!(f, "cgeff {name}"),
        Step::Pool { node, pages } => write!(f, "pool {node} {pages}"),
        Step::Pools => f.write_str("pools"),
        Step::Weight { node, value } => {
            write!(f, "wi {node}")?;
            optional(f, value.as_ref().map(|value| value as &dyn Display))
        }
        Step::Hog { node, give_back_mib } => write!(f, "hog {node} {give_back_mib}"),
        Step::Where(places) => {
            f.write_str("where")?;
            places.iter().try_for_each(|place| write!(f, " {place}"))
        }
        Step::HugeUnits(place) => write!(f, "huge {place}"),
        Step::Counters => f.write_str("ctr"),
        Step::Pagemap(place) => write!(f, "pm {place}"),
        Step::NumaMaps(place) => write!(f, "nm {place}"),
        Step::Status(field) => write!(f, "status {field}"),
        Step::SysFile(path) => write!(f, "sys {path}"),
        Step::Smaps(place, field) => write!(f, "smaps {place} {field}"),
        Step::ClearRefs => f.write_str("clearrefs 4"),
        Step::TraceOn => f.write_str("trace on"),
        Step::Trace => f.write_str("trace"),
        Step::Ksm => f.write_str("ksm"),
        Step::PageFlag(place, bit) => write!(f, "kflag {place} {bit}"),
        Step::WriteFile(place) => write!(f, "write {place}"),
        Step::ReadFile(place) => write!(f, "readf {place}"),
        _ => Ok(()),
    }
}
