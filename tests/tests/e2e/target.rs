//! The target program, seen from the test: it holds areas of memory and answers for them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::host::Host;
use crate::program::Program;

/// A name that no other process has: hosts that are emulated see each other's.
pub(crate) fn unique_name(stem: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A target that runs, with its areas.
pub(crate) struct Target {
    program: Program,
    pub(crate) pid: u32,
    /// The forked child that shares areas with it.
    pub(crate) child: Option<u32>,
    areas: BTreeMap<String, Range<u64>>,
}

impl Target {
    /// Starts one; `words` are its arguments.
    pub(crate) fn start(host: &Host, words: &str) -> Self {
        Self::start_by(host, "", words)
    }

    /// Starts one through another task of the target program, such as `recycle 77`.
    pub(crate) fn start_by(host: &Host, task: &str, words: &str) -> Self {
        let mut argv = vec![host.target];
        if !task.is_empty() {
            argv.extend(task.split(' '));
            argv.push(host.target);
        }
        argv.extend(words.split_whitespace());
        let mut program = Program::start(host, &argv);
        let ready = program.line();
        let mut said: BTreeMap<&str, &str> =
            ready.split(' ').filter_map(|word| word.split_once('=')).collect();
        let mut number = |key| said.remove(key).map(|value| value.parse().unwrap());
        let (pid, child) = (number("pid"), number("child"));
        let areas = said.into_iter().map(|(name, range)| (name.to_owned(), addresses(range)));
        Self {
            pid: pid.unwrap_or_else(|| panic!("{ready}")),
            child,
            areas: areas.collect(),
            program,
        }
    }

    /// Its pid as an argument.
    pub(crate) fn pid(&self) -> String {
        self.pid.to_string()
    }

    /// Addresses of an area.
    pub(crate) fn area(&self, name: &str) -> Range<u64> {
        self.areas[name].clone()
    }

    /// An area, or `pages` base pages of it, as `--range` takes it.
    pub(crate) fn range(&self, name: &str, pages: Range<u64>) -> String {
        let start = self.area(name).start;
        format!("{:x}-{:x}", start + pages.start * 4096, start + pages.end * 4096)
    }

    /// Asks it something.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.program.say(command);
        self.program.line()
    }

    /// The contents of all its areas must be intact.
    pub(crate) fn check(&mut self) {
        let answer = self.ask("check");
        assert!(answer.starts_with("ok"), "contents: {answer}");
    }

    /// Where the base pages of an area lie, as run lengths: `0*512 1*512`.
    pub(crate) fn where_is(&mut self, area: &str) -> String {
        self.ask(&format!("where {area}"))
    }

    /// The node of each base page of an area; all must be present.
    pub(crate) fn nodes_of(&mut self, area: &str) -> Vec<u64> {
        let text = self.where_is(area);
        let runs =
            text.split(' ').map(|run| run.split_once('*').unwrap_or_else(|| panic!("{text}")));
        let number = |digits: &str| digits.parse::<u64>().unwrap_or_else(|_| panic!("{text}"));
        runs.flat_map(|(node, pages)| (0..number(pages)).map(move |_| number(node))).collect()
    }

    /// Ends it, and waits until its pid is free.
    pub(crate) fn kill(self) {
        self.program.kill();
    }
}

/// `0x7f2a4c201000-0x7f2a50201000`
fn addresses(text: &str) -> Range<u64> {
    let address = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or_default();
        u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text:?} is no address"))
    };
    let (start, end) = text.split_once('-').unwrap_or_else(|| panic!("{text:?} is no range"));
    address(start)..address(end)
}
