//! `pagetide demo`: what pagetide does, on a machine that need not be there.
//!
//! It runs itself under `pagetide run`, and there an unmodified `sort`, whose memory it moves in the
//! middle of its work. The lines follow from their numbers, so that of what sort writes in the end
//! every byte is known.

use std::env;
use std::io::{self, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context as _, anyhow};
use emulate::{Files, RunOptions};
use linux::calls;
use machine::Topology;
use model::KernelVersion;

const MACHINE: &str = "two-socket";
/// 256 MiB in all; a power of two, so that an odd factor shuffles them.
const LINES: u64 = 1 << 18;
const LINE_BYTES: usize = 1 << 10;
/// More than the lines, and the 32 bytes that sort keeps for each.
const SORT_MEMORY: &str = "384M";
/// Slow enough to be watched.
const RATE: &str = "100MiB/s";

/// See pagetide at work on two emulated nodes: the memory of a running sort is on the wrong one; it is
/// shown, planned, moved and verified. Needs no root and no packages; takes ten seconds.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// On the machine already.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs the demo and returns its exit code.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let topology = machine::load(MACHINE)?;
    if args.inside {
        return inside(&topology);
    }
    let own = env::current_exe().context("cannot find the program that runs")?;
    let command = [own.into(), "demo".into(), "--inside".into()];
    let kernel = KernelVersion::V6_12;
    let options = RunOptions { topology, kernel, files: Files::Auto, explain: None, report: None };
    Ok(emulate::run(options, &command)?)
}

fn inside(topology: &Topology) -> anyhow::Result<u8> {
    say("On a machine with two nodes, sort has read 256 MiB on the CPUs of node 0 ...")?;
    keep_on_node(topology, std::process::id(), 0)?;
    let mut sort = start_sort()?;
    let mut input = sort.stdin.take().context("sort has no input")?;
    write_lines(&mut input).context("cannot give sort its lines")?;

    say("... and then it is sent to the CPUs of node 1.")?;
    let pid = sort.id();
    keep_on_node(topology, pid, 1)?;
    let pid = pid.to_string();
    let mut code = 0;
    for words in [
        &["show", &pid][..],
        &["plan", &pid, "--to", "1", "--kind", "anon"],
        &["move", &pid, "--to", "1", "--kind", "anon", "--rate", RATE],
        &["show", &pid],
    ] {
        code = code.max(pagetide(words)?);
    }
    let in_order = finish(sort, input).context("cannot read what sort writes")?;
    if in_order {
        say(&format!(
            "\nsort has gone on to sort: {LINES} lines in order, and every byte is unchanged."
        ))?;
        return Ok(code);
    }
    say("\nWhat sort wrote is not what it was given.")?;
    Ok(1)
}

fn keep_on_node(topology: &Topology, pid: u32, node: usize) -> anyhow::Result<()> {
    let cpus = topology.nodes().get(node).map(|node| node.cpus.clone()).unwrap_or_default();
    calls::set_thread_cpus(pid, &cpus)
        .map_err(|errno| anyhow!("cannot keep process {pid} on the CPUs of node {node}: {errno}"))
}

fn start_sort() -> anyhow::Result<Child> {
    let mut sort = Command::new("sort");
    sort.arg(format!("--buffer-size={SORT_MEMORY}")).env("LC_ALL", "C");
    sort.stdin(Stdio::piped()).stdout(Stdio::piped());
    sort.spawn().context("cannot start sort, which every Linux has (coreutils)")
}

/// Runs ourselves with these words, as a user would; its exit code.
fn pagetide(words: &[&str]) -> anyhow::Result<u8> {
    say(&format!("\n$ pagetide {}", words.join(" ")))?;
    let own = env::current_exe().context("cannot find the program that runs")?;
    let ended = Command::new(own).args(words).status().context("cannot start pagetide")?;
    Ok(ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// Closes the input, so that sort goes on, and holds what it writes against what it must write.
fn finish(mut sort: Child, input: ChildStdin) -> io::Result<bool> {
    let output = sort.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let checker = thread::spawn(move || is_in_order(output));
    drop(input);
    let in_order = checker.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    Ok(sort.wait()?.success() && in_order)
}

fn write_lines(to: &mut ChildStdin) -> io::Result<()> {
    // Odd: each number below LINES comes once.
    const FACTOR: u64 = 0x9e37_79b9;
    let mut lines = Vec::with_capacity(64 * LINE_BYTES);
    for at in 0..LINES {
        push_line(&mut lines, at.wrapping_mul(FACTOR) % LINES);
        if lines.len() == lines.capacity() || at + 1 == LINES {
            to.write_all(&lines)?;
            lines.clear();
        }
    }
    Ok(())
}

fn is_in_order(output: ChildStdout) -> io::Result<bool> {
    let mut output = BufReader::with_capacity(64 * LINE_BYTES, output);
    let (mut expected, mut line) = (Vec::with_capacity(LINE_BYTES), vec![0; LINE_BYTES]);
    for number in 0..LINES {
        expected.clear();
        push_line(&mut expected, number);
        match output.read_exact(&mut line) {
            Ok(()) if line == expected => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => return Ok(false),
        }
    }
    Ok(output.read(&mut line)? == 0)
}

/// The line of a number: its digits, over and over.
fn push_line(lines: &mut Vec<u8>, number: u64) {
    let digits = format!("{number:016x}");
    let digits = digits.as_bytes();
    let whole = (LINE_BYTES - 1) / digits.len();
    (0..whole).for_each(|_| lines.extend_from_slice(digits));
    lines.extend_from_slice(&digits[..(LINE_BYTES - 1) % digits.len()]);
    lines.push(b'\n');
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_of_one_length_and_sort_as_their_numbers() {
        let line = |number| {
            let mut line = Vec::new();
            push_line(&mut line, number);
            line
        };
        let lines: Vec<Vec<u8>> = [0, 9, 10, 255, LINES - 1].map(line).into();
        assert!(lines.iter().all(|line| line.len() == LINE_BYTES && line.ends_with(b"\n")));
        assert!(lines.is_sorted());
    }
}
