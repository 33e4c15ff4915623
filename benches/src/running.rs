//! `pagetide run` beside the same program without it.
//!
//! Each row gives two ratios: of the time that passed, and of the CPU time of all processes, that of
//! the supervisor included. The second is steadier on a machine that has other work.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::sample::{Sample, note, row, timed};
use crate::sys::children_seconds;

/// From the folder that `benches/run` works in.
const MACHINE: &str = "benches/two-big-nodes.toml";
const ROUNDS: usize = 5;
const SORT_BYTES: usize = 1 << 30;
const MAPS: u64 = 200_000;
const ASKS: u64 = 200_000;
const MOVES: u64 = 100_000;

/// Whether a program runs under `pagetide run`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Here,
    UnderRun,
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn command(place: Where, program: &Path) -> anyhow::Result<Command> {
    if place == Where::Here {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(beside("pagetide")?);
    command.args(["run", "--machine", MACHINE, "--"]).arg(program);
    Ok(command)
}

/// What was measured of one side.
#[derive(Default)]
struct Side {
    passed: Sample,
    cpu: Sample,
}

impl Side {
    fn add(&mut self, passed: Duration, cpu_seconds: f64) {
        self.passed.add(passed);
        self.cpu.add(Duration::from_secs_f64(cpu_seconds.max(0.0)));
    }
}

/// Both sides in turn, and their rows.
fn compare(
    name: &str,
    rounds: usize,
    mut measure: impl FnMut(Where) -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    let (mut ours, mut native) = (Side::default(), Side::default());
    for _ in 0..rounds {
        for (place, side) in [(Where::Here, &mut native), (Where::UnderRun, &mut ours)] {
            let before = children_seconds();
            let passed = measure(place)?;
            side.add(passed, children_seconds() - before);
        }
    }
    row(name, &ours.passed, "native", &native.passed)?;
    row(&format!("{name}, CPU time"), &ours.cpu, "native", &native.cpu)?;
    Ok(())
}

/// What `pagetide-bench load` says that it took.
fn load(place: Where, kind: &str, count: u64) -> anyhow::Result<Duration> {
    let mut command = command(place, &std::env::current_exe()?)?;
    let output = command.args(["load", kind, &count.to_string()]).output()?;
    ensure!(output.status.success(), "load {kind}: {output:?}");
    let nanoseconds = String::from_utf8(output.stdout)?;
    Ok(Duration::from_nanos(nanoseconds.trim().parse().context("no number")?))
}

fn quietly(mut command: Command) -> anyhow::Result<Duration> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (status, took) = timed(|| Ok(command.status()?))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

/// Programs that make no NUMA calls: all of them, or the one that is named.
pub(crate) fn programs(only: Option<&str>) -> anyhow::Result<()> {
    note(format!("load of this computer: {}", std::fs::read_to_string("/proc/loadavg")?.trim()))?;
    let folder = std::env::temp_dir().join(format!("pagetide-bench-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let result = match only {
        None => sort(&folder).and_then(|()| build(&folder)).and_then(|()| redis(&folder)),
        Some("sort") => sort(&folder),
        Some("build") => build(&folder),
        Some("redis") => redis(&folder),
        Some(other) => Err(anyhow::anyhow!("no program {other}: sort, build or redis")),
    };
    std::fs::remove_dir_all(&folder)?;
    result
}

fn sort(folder: &Path) -> anyhow::Result<()> {
    let (text, sorted) = (folder.join("text"), folder.join("sorted"));
    write_lines(&text, SORT_BYTES)?;
    compare("sort of a file of 1 GiB", 3, |place| {
        let mut command = command(place, Path::new("sort"))?;
        command.env("LC_ALL", "C").arg("-T").arg(folder).arg("-o").arg(&sorted).arg(&text);
        quietly(command)
    })?;
    std::fs::remove_file(text)?;
    std::fs::remove_file(sorted)?;
    Ok(())
}

/// Lines of 16 digits that follow no order (splitmix64).
fn write_lines(path: &Path, bytes: usize) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut state = 1u64;
    for _ in 0..bytes / 17 {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        writeln!(out, "{:016x}", word ^ (word >> 31))?;
    }
    Ok(out.flush()?)
}

/// A build of many short compilers, and one of few long ones.
fn build(folder: &Path) -> anyhow::Result<()> {
    let target = folder.join("target");
    for (package, options, rounds) in
        [("pagetide-machine", &[][..], 9), ("pagetide-linux", &["--release"], 5)]
    {
        let name = [&["cargo build of", package], options].concat().join(" ");
        compare(&name, rounds, |place| {
            let mut command = command(place, Path::new("cargo"))?;
            command.args(["build", "--offline", "--quiet", "-p", package, "--target-dir"]);
            command.arg(&target).args(options);
            let took = quietly(command)?;
            std::fs::remove_dir_all(&target)?;
            Ok(took)
        })?;
    }
    Ok(())
}

fn redis(folder: &Path) -> anyhow::Result<()> {
    let socket = folder.join("redis");
    compare("redis-benchmark, 200,000 SET and GET", ROUNDS, |place| {
        let mut server = command(place, Path::new("redis-server"))?;
        server.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = |words: &[&str]| {
            let mut client = Command::new(words[0]);
            client.arg("-s").arg(&socket).args(&words[1..]);
            quietly(client)
        };
        while client(&["redis-cli", "ping"]).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = client(&["redis-benchmark", "-q", "-n", "200000", "-t", "set,get"])?;
        client(&["redis-cli", "shutdown", "nosave"])?;
        server.wait()?;
        Ok(took)
    })
}

/// Programs that do nothing but call.
pub(crate) fn calls() -> anyhow::Result<()> {
    note(format!("load of this computer: {}", std::fs::read_to_string("/proc/loadavg")?.trim()))?;
    compare(&format!("{MAPS} times mmap, touch, munmap"), ROUNDS, |place| {
        load(place, "map", MAPS)
    })?;

    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    for _ in 0..ROUNDS {
        bare.add(load(Where::Here, "ask-bare", ASKS)?);
        ours.add(load(Where::UnderRun, "ask", ASKS)?);
    }
    row(&format!("{ASKS} get_mempolicy"), &ours, "a bare notification round trip", &bare)?;

    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    let mut moves = Sample::default();
    for _ in 0..ROUNDS {
        bare.add(load(Where::Here, "ask-bare-by-256", ASKS)?);
        ours.add(load(Where::UnderRun, "ask-by-256", ASKS)?);
        moves.add(load(Where::UnderRun, "move", MOVES)?);
    }
    let name = format!("{ASKS} get_mempolicy by 256 processes at once");
    row(&name, &ours, "bare round trips", &bare)?;
    note(format!("that is {:.0} calls/s", ASKS as f64 / ours.median()))?;
    let microseconds = moves.median() * 1e6 / MOVES as f64;
    note(format!("move_pages of {MOVES} pages: {microseconds:.3} us a page"))?;
    Ok(())
}
