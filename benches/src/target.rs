//! The process that is measured: `pagetide-target`, which lies beside this program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use engine::memory::{LinuxMemory, Memory as _};
use engine::placement::Mapping;
use engine::target::{Target as Opened, TargetId};
use linux::Root;
use machine::AddrRange;

/// A running target; it is ended when dropped.
pub(crate) struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Areas in the order of the command line.
    pub(crate) areas: Vec<AddrRange>,
}

impl Target {
    /// Starts it with these areas (`a=anon:256M,node=0`) and options, and waits until it is ready.
    pub(crate) fn start(words: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("pagetide-target");
        let mut child = Command::new(&program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut target = Self { child, stdin, stdout, areas: Vec::new() };
        let ready = target.line()?;
        ensure!(ready.starts_with("ready "), "the target is not ready: {ready}");
        target.areas = ready
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('=')?.1.parse().ok())
            .collect();
        ensure!(!target.areas.is_empty(), "the target has no areas: {ready}");
        Ok(target)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The longest time between two touches of its touch threads since the last ask, in us.
    pub(crate) fn stall_us(&mut self) -> anyhow::Result<f64> {
        let answer = self.ask("stall")?;
        // Without a touched area there is no stall, and the target says so.
        let number = answer.strip_prefix("stall_us_max=").unwrap_or("0");
        Ok(number.trim().parse()?)
    }

    /// Fails unless every byte is what it should be.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let answer = self.ask("check")?;
        ensure!(answer.starts_with("ok"), "contents are damaged: {answer}");
        Ok(())
    }

    /// Its memory, opened anew.
    pub(crate) fn open(&self) -> anyhow::Result<(TargetId, LinuxMemory)> {
        let Opened { id, pidfd } = Opened::open(&Root::default(), self.pid())?;
        let memory = LinuxMemory::open(&Root::default(), id.pid, pidfd)?;
        Ok((id, memory))
    }

    /// The mapping of its first area.
    pub(crate) fn mapping(&self, memory: &LinuxMemory) -> anyhow::Result<Mapping> {
        let area = self.areas[0];
        let mut mappings = memory.mappings()?.into_iter();
        mappings.find(|mapping| mapping.range.contains(area.start())).context("no mapping")
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        writeln!(self.stdin, "{question}")?;
        self.line()
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself; all that matters is that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
