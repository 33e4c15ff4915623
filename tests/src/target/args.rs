//! The command line, as data.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::access_loop::{Loop, parse_thread};
use crate::error::{Error, Result};
use crate::spec::{AreaSpec, Placing, parse_area, parse_id, parse_ids, parse_size};

/// What the program is to be.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    Hold(Hold),
    Hog { node: u32, leave_bytes: usize },
    Recycle { pid: u32, command: Vec<OsString> },
    AsUser { uid: u32, command: Vec<OsString> },
    Loop(Loop),
}

/// A process that holds memory.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    pub(crate) areas: Vec<AreaSpec>,
    pub(crate) cpu: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) threads: usize,
    pub(crate) thread_cpus: Vec<u32>,
    pub(crate) exit_after: Option<Duration>,
    /// Stay when stdin ends.
    pub(crate) is_staying: bool,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task> {
    let mut parser = Parser::from_args(args);
    let mut hold = Hold::default();
    let mut threads = None;
    let mut on_node = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Task::Help),
            Arg::Long("on-node") => on_node = Some(id(&mut parser)?),
            Arg::Long("cpu") => hold.cpu = Some(id(&mut parser)?),
            Arg::Long("uid") => hold.uid = Some(parser.value()?.parse()?),
            Arg::Long("name") => hold.comm = Some(parser.value()?.string()?),
            Arg::Long("threads") => threads = Some(parser.value()?.parse()?),
            Arg::Long("thread-cpus") => {
                hold.thread_cpus = parse_ids(&parser.value()?.string()?).map_err(Error::Usage)?;
            }
            Arg::Long("exit-after") => {
                hold.exit_after = Some(Duration::from_millis(parser.value()?.parse()?));
            }
            Arg::Long("stay") => hold.is_staying = true,
            Arg::Value(word) if hold.areas.is_empty() && is_subcommand(&word) => {
                return subcommand(&word.string()?, &mut parser);
            }
            Arg::Value(text) => {
                let mut area = parse_area(&text.string()?)?;
                if let (Placing::Anywhere, Some(node)) = (&area.placing, on_node) {
                    area.placing = Placing::Nodes(vec![node]);
                }
                if hold.areas.iter().any(|other| other.name == area.name) {
                    return Err(Error::Usage(format!("two areas are called {}", area.name)));
                }
                hold.areas.push(area);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    hold.threads = threads.unwrap_or(hold.thread_cpus.len());
    if hold.areas.iter().filter(|area| area.kind == crate::spec::Kind::Stack).count() > 1 {
        return Err(Error::usage("there is one stack: give one area of kind stack"));
    }
    Ok(Task::Hold(hold))
}

fn is_subcommand(word: &OsString) -> bool {
    ["hog", "recycle", "as-user", "loop"].iter().any(|name| word == name)
}

fn subcommand(name: &str, parser: &mut Parser) -> Result<Task> {
    if name == "loop" {
        return access_loop(parser).map(Task::Loop);
    }
    if name == "hog" {
        let node = id(parser)?;
        let leave_bytes = parse_size(&parser.value()?.string()?).map_err(Error::Usage)?;
        if let Some(arg) = parser.next()? {
            return Err(arg.unexpected().into());
        }
        return Ok(Task::Hog { node, leave_bytes });
    }
    let number = parser.value()?.parse()?;
    let command: Vec<OsString> = parser.raw_args()?.collect();
    if command.is_empty() {
        return Err(Error::Usage(format!("{name} {number}: give a command to run")));
    }
    Ok(if name == "recycle" {
        Task::Recycle { pid: number, command }
    } else {
        Task::AsUser { uid: number, command }
    })
}

fn access_loop(parser: &mut Parser) -> Result<Loop> {
    let area = parse_area(&parser.value()?.string()?)?;
    let passes = parser.value()?.parse()?;
    let beat = Duration::from_millis(parser.value()?.parse()?);
    let mode = parser.value()?.parse()?;
    let is_writing = match parser.value()?.string()?.as_str() {
        "read" => false,
        "write" => true,
        other => return Err(Error::Usage(format!("loop: {other:?} is neither read nor write"))),
    };
    let threads = parser.raw_args()?.map(|thread| parse_thread(&thread.string()?));
    Ok(Loop { area, passes, beat, mode, is_writing, threads: threads.collect::<Result<_>>()? })
}

fn id(parser: &mut Parser) -> Result<u32> {
    parse_id(&parser.value()?.string()?).map_err(Error::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn hold(line: &str) -> Hold {
        match task(line) {
            Ok(Task::Hold(hold)) => hold,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn on_node_is_for_the_areas_after_it_that_name_no_node() {
        let hold = hold("a=anon:4K --on-node 1 b=anon:4K c=anon:4K,node=0 --on-node 2 d=anon:4K");
        let placings: Vec<_> = hold.areas.into_iter().map(|area| area.placing).collect();
        let on = |node| Placing::Nodes(vec![node]);
        assert_eq!(placings, [Placing::Anywhere, on(1), on(0), on(2)]);
    }

    #[test]
    fn every_option_reaches_its_field() {
        let hold = hold(
            "--cpu 1 --uid 65534 --name db --threads 3 --thread-cpus 0-1 --stay --exit-after 50",
        );
        assert_eq!((hold.cpu, hold.uid, hold.comm.as_deref()), (Some(1), Some(65534), Some("db")));
        assert_eq!((hold.threads, hold.thread_cpus), (3, vec![0, 1]));
        assert_eq!((hold.is_staying, hold.exit_after), (true, Some(Duration::from_millis(50))));
    }

    #[test]
    fn cpus_alone_give_one_thread_for_each() {
        assert_eq!(hold("--thread-cpus 0,3").threads, 2);
    }

    #[test]
    fn the_command_of_a_subcommand_keeps_its_own_options() {
        let Ok(Task::Recycle { pid: 77, command }) = task("recycle 77 sleep --help 1") else {
            panic!("not a recycle task");
        };
        assert_eq!(command, ["sleep", "--help", "1"]);
        assert!(matches!(task("hog 1 8M"), Ok(Task::Hog { node: 1, leave_bytes: 0x80_0000 })));
        assert!(matches!(task("as-user 1000 id"), Ok(Task::AsUser { uid: 1000, .. })));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for line in ["--cpu", "--cpu x", "hog 1", "hog 1 8M x", "recycle 5", "--frob", "a=anon"] {
            let error = task(line).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{line}: {error}");
        }
        assert!(task("a=anon:4K a=shm:4K").unwrap_err().to_string().contains("called a"));
        assert!(task("a=stack:4K b=stack:4K").unwrap_err().to_string().contains("one stack"));
    }
}
