//! Reads the text form of steps. Every error names the step that it could not read.

use std::str::FromStr;

use crate::args::flags;
use crate::{
    Act, Actor, Advice, Base, Credential, Kind, Mask, Mode, MoveTarget, Pid, Place, Pointer,
    Protection, Scenario, Step,
};

/// A step that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the step `{step}`: {problem}")]
pub struct ParseError {
    /// The step as written.
    pub step: String,
    /// What is wrong with it.
    pub problem: String,
}

type Parsed<T> = Result<T, String>;

/// Pages that an area or a range may have, and that one move_pages may name: 4 GiB. A player makes a
/// list of them, and a larger one would be a mistake.
const MOST_PAGES: u64 = 1 << 20;

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut acts: Vec<Act> = Vec::new();
        for group in text.split(';').map(str::trim).filter(|group| !group.is_empty()) {
            for (position, step) in group.split(" & ").enumerate() {
                let read = act(step.trim(), position > 0).and_then(|act| {
                    check_list(&act.step, &acts)?;
                    Ok(act)
                });
                acts.push(
                    read.map_err(|problem| ParseError { step: step.trim().to_owned(), problem })?,
                );
            }
        }
        Ok(Self { acts })
    }
}

/// The list of a move_pages is no longer than [`MOST_PAGES`], whatever was mapped before it.
fn check_list(step: &Step, before: &[Act]) -> Parsed<()> {
    let Step::MovePages { pages, .. } = step else { return Ok(()) };
    let mapped = |letter| {
        let sizes = before.iter().filter_map(|act| match act.step {
            Step::Map { area, pages, .. } if area == letter => Some(pages),
            _ => None,
        });
        sizes.max().unwrap_or_default()
    };
    let entries = pages.iter().map(|(place, times)| {
        let pages = match (place.base, place.pages) {
            (_, Some((from, upto))) => upto - from,
            (Base::Area(letter), None) => mapped(letter),
            _ => 1,
        };
        pages.div_ceil(place.stride).saturating_mul(*times)
    });
    bounded(entries.fold(0, u64::saturating_add), "entries").map(|_| ())
}

fn bounded(count: u64, what: &str) -> Parsed<u64> {
    match count {
        0..=MOST_PAGES => Ok(count),
        _ => Err(format!("{count} {what} are too many: up to {MOST_PAGES}")),
    }
}

fn act(text: &str, joined: bool) -> Parsed<Act> {
    let (actor, rest) = match text.split_once(": ") {
        Some((name, rest)) if name.len() == 1 => (actor(name)?, rest),
        _ => (Actor::FIRST, text),
    };
    let mut words = Words::new(rest);
    let step = step(&mut words)?;
    words.end()?;
    Ok(Act { joined, actor, step })
}

/// The words of a step: positional ones first, `key=value` anywhere after the verb.
struct Words<'a> {
    plain: std::collections::VecDeque<&'a str>,
    keys: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let mut words = Self { plain: Default::default(), keys: Vec::new() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(pair) => words.keys.push(pair),
                None => words.plain.push_back(word),
            }
        }
        words
    }

    fn word(&mut self, what: &str) -> Parsed<&'a str> {
        self.plain.pop_front().ok_or_else(|| format!("{what} is missing"))
    }

    fn maybe(&mut self) -> Option<&'a str> {
        self.plain.pop_front()
    }

    fn key(&mut self, key: &str) -> Option<&'a str> {
        let at = self.keys.iter().position(|&(name, _)| name == key)?;
        Some(self.keys.remove(at).1)
    }

    fn end(&self) -> Parsed<()> {
        match (self.plain.front(), self.keys.first()) {
            (None, None) => Ok(()),
            (Some(word), _) => Err(format!("`{word}` is one word too many")),
            (None, Some((key, _))) => Err(format!("`{key}=` means nothing here")),
        }
    }

    fn place(&mut self) -> Parsed<Place> {
        place(self.word("a range")?)
    }

    fn number<T: Number>(&mut self, what: &str) -> Parsed<T> {
        number(self.word(what)?)
    }

    fn key_number<T: Number>(&mut self, key: &str) -> Parsed<Option<T>> {
        self.key(key).map(number).transpose()
    }

    fn pointer(&mut self, key: &str) -> Parsed<Pointer> {
        match self.key(key) {
            None => Ok(Pointer::Good),
            Some("NULL") => Ok(Pointer::Null),
            Some("BAD") => Ok(Pointer::Bad),
            Some(text) => match text.strip_prefix("cut") {
                Some(entries) => Ok(Pointer::Cut(number(entries)?)),
                None => Err(format!("`{text}` is no pointer: NULL, BAD or cutN")),
            },
        }
    }

    fn actor(&mut self) -> Parsed<Actor> {
        actor(self.word("an actor")?)
    }

    fn maxnode(&mut self) -> Parsed<u64> {
        Ok(self.key_number("max")?.unwrap_or(DEFAULT_MAXNODE))
    }
}

/// The `maxnode` of a call that does not say: room for all 1024 nodes.
pub(crate) const DEFAULT_MAXNODE: u64 = 1025;

fn step(words: &mut Words<'_>) -> Parsed<Step> {
    let verb = words.word("the verb")?;
    Ok(match verb {
        "map" => map(words)?,
        "fill" => Step::Fill { place: words.place()?, digits: digits(words.word("digits")?)? },
        "touch" => Step::Touch(words.place()?),
        "read" => Step::Read(words.place()?),
        "store" => Step::Store(words.place()?, words.number("a byte")?),
        "check" => Step::Check(words.place()?, words.number("a byte")?),
        "cpu" => Step::Cpu(words.number("a CPU")?),
        "protect" => Step::Protect(words.place()?, protection(words.word("a protection")?)?),
        "lock" => Step::Lock(words.place()?),
        "lockonfault" => Step::LockOnFault(words.place()?),
        "unmap" => Step::Unmap(words.place()?),
        "madv" => Step::Advise(words.place()?, advice(words.word("an advice")?)?),
        "pin" => Step::Pin(words.place()?),
        "unpin" => Step::Unpin,
        "fork" => Step::Fork(words.actor()?),
        "thread" => Step::Thread(words.actor()?),
        "exit" => Step::Exit,
        "wait" => Step::Wait(words.actor()?),
        "stop" => Step::Stop,
        "uid" => Step::User(Credential::All, words.number("an id")?),
        "ruid" => Step::User(Credential::Real, words.number("an id")?),
        "euid" => Step::User(Credential::Effective, words.number("an id")?),
        "drop" => Step::Drop,
        "nodump" => Step::NoDump,
        "userns" => Step::UserNamespace,
        "mp" => Step::MigratePages {
            pid: pid(words.word("a pid")?)?,
            from: mask(words.word("a mask")?)?,
            to: mask(words.word("a mask")?)?,
            maxnode: words.maxnode()?,
        },
        "mv" => move_pages(words)?,
        "mbind" => Step::Mbind {
            place: words.place()?,
            mode: mode(words.word("a mode")?)?,
            mask: mask(words.word("a mask")?)?,
            flags: words.maybe().map_or(Ok(0), |text| bits(text, &flags::MOVING))?,
            len: words.key_number("len")?,
            maxnode: words.maxnode()?,
        },
        "smp" => Step::SetMempolicy {
            mode: mode(words.word("a mode")?)?,
            mask: mask(words.word("a mask")?)?,
            maxnode: words.maxnode()?,
        },
        "gmp" => Step::GetMempolicy {
            flags: bits(words.word("flags")?, &flags::ASKING)?,
            addr: words.maybe().map(place).transpose()?,
            mode_at: words.pointer("mode")?,
            mask_at: words.pointer("mask")?,
            maxnode: words.key_number("max")?,
        },
        "home" => Step::HomeNode {
            place: words.place()?,
            node: words.number("a node")?,
            flags: words.maybe().map_or(Ok(0), number)?,
            len: words.key_number("len")?,
        },
        _ => return around(verb, words),
    })
}

/// Verbs that set up what is around the process, and verbs that look.
fn around(verb: &str, words: &mut Words<'_>) -> Parsed<Step> {
    let text = |word: &str| word.to_owned();
    Ok(match verb {
        "cg" => Step::Cgroup { name: text(words.word("a name")?), mems: words.maybe().map(text) },
        "cgset" => Step::CgroupSet {
            name: text(words.word("a name")?),
            mems: text(words.word("a node list")?),
        },
        "cgin" => Step::CgroupJoin {
            name: text(words.word("a name")?),
            who: words.maybe().map(actor).transpose()?,
        },
        "cgeff" => Step::CgroupEffective { name: text(words.word("a name")?) },
        "pool" => Step::Pool { node: words.number("a node")?, pages: words.number("a number")? },
        "pools" => Step::Pools,
        "wi" => Step::Weight { node: words.number("a node")?, value: words.maybe().map(text) },
        "hog" => Step::Hog { node: words.number("a node")?, give_back_mib: words.number("MiB")? },
        "where" => {
            let mut places = vec![words.place()?];
            while let Some(word) = words.maybe() {
                places.push(place(word)?);
            }
            Step::Where(places)
        }
        "huge" => Step::HugeUnits(words.place()?),
        "ctr" => Step::Counters,
        "pm" => Step::Pagemap(words.place()?),
        "nm" => Step::NumaMaps(words.place()?),
        "status" => Step::Status(text(words.word("a field")?)),
        "sys" => Step::SysFile(text(words.word("a path")?)),
        "smaps" => Step::Smaps(words.place()?, text(words.word("a field")?)),
        "clearrefs" => match words.word("4")? {
            "4" => Step::ClearRefs,
            other => return Err(format!("clear_refs takes 4 here, not `{other}`")),
        },
        "trace" => match words.maybe() {
            None => Step::Trace,
            Some("on") => Step::TraceOn,
            Some(other) => return Err(format!("`trace {other}`: only `on` or nothing")),
        },
        "ksm" => Step::Ksm,
        "kflag" => Step::PageFlag(words.place()?, words.number("a bit")?),
        "write" => Step::WriteFile(words.place()?),
        "readf" => Step::ReadFile(words.place()?),
        _ => return Err(format!("no such verb: `{verb}`")),
    })
}

fn map(words: &mut Words<'_>) -> Parsed<Step> {
    let area = letter(words.word("an area")?)?;
    let pages = bounded(words.number("pages")?, "pages")?;
    let kind = words.maybe().map_or(Ok(Kind::Anon), kind)?;
    let of = words.key("of").map(letter).transpose()?;
    let private = match words.key("private") {
        None => false,
        Some("1") => true,
        Some(other) => return Err(format!("private={other}: only 1")),
    };
    let at = words.key("at").map(hex).transpose()?;
    Ok(Step::Map { area, pages, kind, of, private, at })
}

fn move_pages(words: &mut Words<'_>) -> Parsed<Step> {
    let pid = pid(words.word("a pid")?)?;
    let pages = match words.word("pages")? {
        "-" => Vec::new(),
        list => list.split(',').map(place_times).collect::<Parsed<_>>()?,
    };
    let nodes = match words.word("nodes")? {
        "?" => MoveTarget::Query,
        list => MoveTarget::Nodes(list.split(',').map(node_times).collect::<Parsed<_>>()?),
    };
    Ok(Step::MovePages {
        pid,
        pages,
        nodes,
        flags: words.maybe().map_or(Ok(flags::MOVE), |text| bits(text, &flags::MOVING))?,
        count: words.key_number("nr")?,
        pages_at: words.pointer("pg")?,
        nodes_at: words.pointer("nd")?,
        status_at: words.pointer("st")?,
    })
}

fn place_times(text: &str) -> Parsed<(Place, u64)> {
    match text.split_once('*') {
        Some((text, times)) => Ok((place(text)?, bounded(number(times)?, "times")?)),
        None => Ok((place(text)?, 1)),
    }
}

fn node_times(text: &str) -> Parsed<(i32, u64)> {
    match text.split_once('*') {
        Some((node, times)) => Ok((number(node)?, bounded(number(times)?, "times")?)),
        None => Ok((number(text)?, 1)),
    }
}

fn place(text: &str) -> Parsed<Place> {
    let (body, offset) = split_offset(text)?;
    let whole = |base| Place { offset, ..Place::all(base) };
    match body {
        "vdso" => return Ok(whole(Base::Vdso)),
        "vvar" => return Ok(whole(Base::Vvar)),
        "KERN" => return Ok(whole(Base::Kernel)),
        "TOP" => return Ok(whole(Base::Top)),
        "NULL" => return Ok(whole(Base::Null)),
        _ => {}
    }
    if body.starts_with("0x") {
        let (addr, pages) = match body.split_once(':') {
            Some((addr, pages)) => (addr, Some((0, bounded(number(pages)?, "pages")?))),
            None => (body, None),
        };
        return Ok(Place { base: Base::Address(number(addr)?), pages, stride: 1, offset });
    }
    let Some((name, inside)) = body.split_once('[') else {
        return Ok(whole(Base::Area(letter(body)?)));
    };
    let inside = inside.strip_suffix(']').ok_or_else(|| format!("`{text}` lacks its `]`"))?;
    let (range, stride) = match inside.split_once('/') {
        Some((range, stride)) => (range, number(stride)?),
        None => (inside, 1),
    };
    let pages = match range.split_once("..") {
        Some((from, upto)) => (number(from)?, number(upto)?),
        None => {
            let page: u64 = number(range)?;
            (page, page.checked_add(1).ok_or("the page number is too large")?)
        }
    };
    if stride == 0 || pages.0 >= pages.1 {
        return Err(format!("`{text}` has no page"));
    }
    bounded(pages.1 - pages.0, "pages")?;
    Ok(Place { base: Base::Area(letter(name)?), pages: Some(pages), stride, offset })
}

/// Cuts `+5` or `-4096` off the end.
fn split_offset(text: &str) -> Parsed<(&str, i64)> {
    match text.rfind(['+', '-']) {
        Some(at) if at > 0 => {
            let bytes: i64 = number(&text[at + 1..])?;
            Ok((&text[..at], if text.as_bytes()[at] == b'-' { -bytes } else { bytes }))
        }
        _ => Ok((text, 0)),
    }
}

fn letter(text: &str) -> Parsed<char> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_lowercase() => Ok(letter),
        _ => Err(format!("`{text}` is no area: one lower-case letter")),
    }
}

fn actor(text: &str) -> Parsed<Actor> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_uppercase() => Ok(Actor(letter)),
        _ => Err(format!("`{text}` is no actor: one upper-case letter")),
    }
}

fn pid(text: &str) -> Parsed<Pid> {
    Ok(match text {
        "0" => Pid::Caller,
        "none" => Pid::Absent,
        "kthread" => Pid::Kthread,
        _ => match actor(text) {
            Ok(Actor(letter)) => Pid::Actor(letter),
            Err(_) => Pid::Number(number(text)?),
        },
    })
}

fn mask(text: &str) -> Parsed<Mask> {
    match text {
        "NULL" => return Ok(Mask::Null),
        "BAD" => return Ok(Mask::Bad),
        _ => {}
    }
    let (body, words) = match text.split_once("@cut") {
        Some((body, words)) => (body, Some(number(words)?)),
        None => (text, None),
    };
    let body = body
        .strip_prefix('{')
        .and_then(|body| body.strip_suffix('}'))
        .ok_or_else(|| format!("`{text}` is no mask: {{0,2}}, NULL or BAD"))?;
    let mut nodes: Vec<u16> =
        body.split(',').filter(|node| !node.is_empty()).map(number).collect::<Parsed<_>>()?;
    nodes.sort_unstable();
    nodes.dedup();
    Ok(Mask::Nodes { nodes, words })
}

fn mode(text: &str) -> Parsed<Mode> {
    let mut parts = text.split('+');
    let first = parts.next().unwrap_or_default();
    let mut raw = match Mode::NAMES.iter().zip(0..).find(|&(&name, _)| name == first) {
        Some((_, number)) => number,
        None => number(first)?,
    };
    for part in parts {
        match Mode::FLAGS.iter().find(|&&(name, _)| name == part) {
            Some((_, bit)) => raw |= bit,
            None => return Err(format!("`{part}` is no mode flag")),
        }
    }
    Ok(Mode(raw))
}

fn bits(text: &str, names: &[(&str, u64)]) -> Parsed<u64> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return number(text);
    }
    text.split('+').try_fold(0, |sum, part| match names.iter().find(|&&(name, _)| name == part) {
        Some((_, bit)) => Ok(sum | bit),
        None => Err(format!("`{part}` is no flag of this call")),
    })
}

fn digits(text: &str) -> Parsed<Vec<u8>> {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            _ => Err(format!("`{text}` is to be digits, one node each")),
        })
        .collect()
}

fn kind(text: &str) -> Parsed<Kind> {
    crate::print::KINDS
        .iter()
        .find(|&&(_, name)| name == text)
        .map(|&(kind, _)| kind)
        .ok_or_else(|| format!("`{text}` is no kind of mapping"))
}

fn protection(text: &str) -> Parsed<Protection> {
    Ok(match text {
        "none" => Protection::None,
        "ro" => Protection::ReadOnly,
        "rw" => Protection::ReadWrite,
        _ => return Err(format!("`{text}` is no protection: none, ro or rw")),
    })
}

fn advice(text: &str) -> Parsed<Advice> {
    crate::print::ADVICE
        .iter()
        .find(|&&(_, name)| name == text)
        .map(|&(advice, _)| advice)
        .ok_or_else(|| format!("`{text}` is no advice"))
}

/// Numbers as C reads them: decimal, or hexadecimal after `0x`.
trait Number: Sized {
    fn read(text: &str, radix: u32) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty)*) => { $(impl Number for $type {
        fn read(text: &str, radix: u32) -> Option<Self> {
            Self::from_str_radix(text, radix).ok()
        }
    })* };
}
numbers!(u8 u16 u32 u64 i32 i64);

fn number<T: Number>(text: &str) -> Parsed<T> {
    let read = match text.strip_prefix("0x") {
        Some(hex) => T::read(hex, 16),
        None => T::read(text, 10),
    };
    read.ok_or_else(|| format!("`{text}` is no number that fits here"))
}

fn hex(text: &str) -> Parsed<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("`{text}` is no hexadecimal address"))
}
