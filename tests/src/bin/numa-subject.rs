//! A program that does what a script says, and prints what the NUMA calls answer: the subject of the
//! tests of `pagetide run`. It knows nothing of pagetide.
//!
//! ```text
//! numa-subject 'map a 4; write a 0 2; where a'
//! a: 0*2 -*2
//! ```
//!
//! | command | what it does | prints |
//! | --- | --- | --- |
//! | `map NAME PAGES [huge\|shared]` | maps memory; `huge` is aligned to 2 MiB and advised | |
//! | `again NAME` | maps new memory at the same place (`MAP_FIXED`) | |
//! | `unmap NAME`, `drop NAME` | munmap, `MADV_DONTNEED` | |
//! | `stretch NAME PAGES` | mremap, which may move it | |
//! | `write NAME FROM UPTO`, `read ...` | touches pages | |
//! | `where NAME` | move_pages without nodes | `a: 0*2 -*2`; `-` is absent |
//! | `node NAME PAGE` | get_mempolicy by address | `node 1` |
//! | `move NAME NODE` | move_pages | `0: 1*4` |
//! | `migrate FROM TO` | migrate_pages of itself | the number |
//! | `set MODE [NODES]` | set_mempolicy | `ok` |
//! | `bind NAME MODE NODES [move]` | mbind | `ok` |
//! | `policy` | get_mempolicy | `bind 1` |
//! | `cpu` | getcpu, and sched_getcpu | `cpu 2 node 1, cpu 2` |
//! | `run-on CPUS`, `may-run-on` | affinity | `ok`; `2-3` |
//! | `child SCRIPT`, `thread SCRIPT`, `exec SCRIPT` | does the rest there, with commas for semicolons | |
//! | `say WORD` | nothing | the word |
//! | `wait` | reads a line | |
//! | `exit CODE`, `die SIGNAL` | ends | |
//!
//! A call that fails prints the errno, as `errno 22`. Modes are the kernel's names in small letters.

#![expect(
    clippy::exit,
    reason = "the script says where the program ends, also in a child or thread"
)]

#[path = "../subject/sys.rs"]
mod sys;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, exit};
use std::thread;

use sys::{Area, PAGE};

const MODES: [&str; 7] =
    ["default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted"];
const HUGE_PAGES: usize = 512;
const MOVE: u32 = 2;

type Areas = BTreeMap<String, Area>;

fn main() -> ExitCode {
    let Some(script) = std::env::args().nth(1) else {
        say("numa-subject: give a script");
        return ExitCode::from(2);
    };
    match play(&script.split(';').collect::<Vec<_>>(), &mut Areas::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            say(format!("numa-subject: cannot make sense of `{wrong}`"));
            ExitCode::from(2)
        }
    }
}

fn say(line: impl Display) {
    // A reader that is gone has seen enough.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Plays commands; the first that makes no sense ends it.
fn play(commands: &[&str], areas: &mut Areas) -> Result<(), String> {
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let [name, rest @ ..] = &words[..] else { continue };
        let inner: Vec<&str> = command.trim().trim_start_matches(name).split(',').collect();
        let done = match *name {
            "child" => {
                sys::in_child(|| end_on_error(play(&inner, areas)));
                Some(())
            }
            "thread" => {
                thread::scope(|scope| {
                    let mut areas = areas.clone();
                    let thread = scope.spawn(move || end_on_error(play(&inner, &mut areas)));
                    // Without it the scope waits for the closure only, and the thread lives on.
                    let _ = thread.join();
                });
                Some(())
            }
            "exec" => {
                let script = inner.join(";");
                let error = Command::new("/proc/self/exe").arg(script).exec();
                return Err(error.to_string());
            }
            _ => memory(name, rest, areas).or_else(|| question(name, rest, areas)),
        };
        done.ok_or_else(|| command.trim().to_owned())?;
    }
    Ok(())
}

fn end_on_error(played: Result<(), String>) {
    if let Err(wrong) = played {
        say(format!("cannot make sense of `{wrong}`"));
        exit(2);
    }
}

/// Commands that change memory. `None`: it is none of them, or its words are wrong.
fn memory(name: &str, words: &[&str], areas: &mut Areas) -> Option<()> {
    let area = words.first().and_then(|name| areas.get(*name)).copied();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
    match name {
        "map" => {
            let (pages, kind) = (number(1)?, words.get(2).copied());
            let spare = if kind == Some("huge") { HUGE_PAGES } else { 0 };
            let start = sys::map(0, (pages + spare) * PAGE, kind == Some("shared")).ok()?;
            let aligned = start.next_multiple_of((spare * PAGE).max(1));
            let area = Area { start: aligned, pages };
            let advice = if spare > 0 { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            // Fails where there are no THPs at all.
            let _ = sys::advise(area, advice);
            areas.insert((*words.first()?).to_owned(), area);
        }
        "again" => drop(sys::map(area?.start, area?.pages * PAGE, false).ok()?),
        "unmap" => drop(sys::unmap(area?).ok()?),
        "drop" => drop(sys::advise(area?, libc::MADV_DONTNEED).ok()?),
        "stretch" => {
            let pages = number(1)?;
            let start = sys::stretch(area?, pages).ok()?;
            areas.insert((*words.first()?).to_owned(), Area { start, pages });
        }
        "write" => (number(1)?..number(2)?).for_each(|page| sys::write(area_page(area, page))),
        "read" => {
            (number(1)?..number(2)?).for_each(|page| sys::read(area_page(area, page)));
        }
        "exit" => exit(i32::try_from(number(0)?).ok()?),
        "die" => sys::kill_self(i32::try_from(number(0)?).ok()?),
        _ => return None,
    }
    Some(())
}

fn area_page(area: Option<Area>, page: usize) -> usize {
    let area = area.unwrap_or(Area { start: 0, pages: 0 });
    assert!(page < area.pages, "the script touches what it has mapped");
    area.start + page * PAGE
}

/// Commands that print an answer.
fn question(name: &str, words: &[&str], areas: &Areas) -> Option<()> {
    let area = words.first().and_then(|name| areas.get(*name)).copied();
    let mode = |at: usize| {
        let mode = MODES.iter().position(|mode| Some(mode) == words.get(at))?;
        i32::try_from(mode).ok()
    };
    let set = |at: usize| words.get(at).map_or(Some(0), |list| parse_set(list));
    match name {
        "where" => {
            let mut status = vec![i32::MIN; area?.pages];
            let answer = sys::move_pages(area?, None, &mut status);
            let failed = answer.err().map(|errno| format!("errno {errno}"));
            say(format!("{}: {}", words[0], failed.unwrap_or_else(|| runs(&status))));
        }
        "node" => match sys::node_of(area_page(area, words.get(1)?.parse().ok()?)) {
            Ok(node) => say(format!("node {node}")),
            Err(errno) => say(format!("errno {errno}")),
        },
        "move" => {
            let mut status = vec![i32::MIN; area?.pages];
            let answer = sys::move_pages(area?, Some(words.get(1)?.parse().ok()?), &mut status);
            say(format!("{}: {}", value(answer), runs(&status)));
        }
        "migrate" => say(value(sys::migrate_pages(set(0)?, set(1)?))),
        "set" => say(ok(sys::set_mempolicy(mode(0)?, set(1)?))),
        "bind" => {
            let flags = if words.get(3) == Some(&"move") { MOVE } else { 0 };
            say(ok(sys::mbind(area?, mode(1)?, set(2)?, flags)));
        }
        "policy" => match sys::get_mempolicy() {
            Ok((mode, nodes)) => {
                let mode = usize::try_from(mode).ok().and_then(|mode| MODES.get(mode));
                say(format!("{} {}", mode.unwrap_or(&"?"), show_set(nodes)).trim_end().to_owned());
            }
            Err(errno) => say(format!("errno {errno}")),
        },
        "say" => say(words.first()?),
        "wait" => drop(io::stdin().read_line(&mut String::new()).ok()?),
        "cpu" => {
            let (cpu, node, again) = sys::cpu();
            say(format!("cpu {cpu} node {node}, cpu {again}"));
        }
        "run-on" => say(ok(sys::set_affinity(set(0)?))),
        "may-run-on" => match sys::affinity() {
            Ok(cpus) => say(show_set(cpus)),
            Err(errno) => say(format!("errno {errno}")),
        },
        _ => return None,
    }
    Some(())
}

fn value(answer: sys::Answer) -> String {
    answer.map_or_else(|errno| format!("errno {errno}"), |value| value.to_string())
}

fn ok(answer: sys::Answer) -> String {
    answer.map_or_else(|errno| format!("errno {errno}"), |_| "ok".to_owned())
}

/// `0*2 -*1 errno-14*1`; `-` is an absent page.
fn runs(words: &[i32]) -> String {
    let run = |run: &[i32]| match run[0] {
        word @ 0.. => format!("{word}*{}", run.len()),
        word if word == -libc::ENOENT => format!("-*{}", run.len()),
        word => format!("errno-{}*{}", word.unsigned_abs(), run.len()),
    };
    words.chunk_by(PartialEq::eq).map(run).collect::<Vec<_>>().join(" ")
}

/// `0-1,3` as a mask.
fn parse_set(list: &str) -> Option<u64> {
    let mut mask = 0;
    for part in list.split('+') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        (first..=last).filter(|bit| *bit < 64).for_each(|bit| mask |= 1 << bit);
    }
    Some(mask)
}

fn show_set(mask: u64) -> String {
    let members: Vec<u32> = (0..64).filter(|bit| mask >> bit & 1 == 1).collect();
    let runs = members.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join("+")
}
