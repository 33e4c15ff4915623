//! The program that is measured under `pagetide run` and without it: one kind of call, over and over.
//! It prints the nanoseconds that it took, without its start and end.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::sys::{self, Area};

/// Of `ask-by-256`.
const ASKERS: u64 = 256;

/// `load KIND COUNT`.
pub(crate) fn run(words: &[String]) -> anyhow::Result<()> {
    let (kind, count) = words.first().zip(words.get(1)).context("load KIND COUNT")?;
    let count: u64 = count.parse()?;
    if kind == "ask-when-told" {
        return ask_when_told(count);
    }
    let took = match kind.as_str() {
        "map" => repeat(count, sys::map_touch_unmap)?,
        "ask" => repeat(count, sys::get_mempolicy)?,
        "ask-bare" => answered_bare(count, || repeat(count, sys::get_mempolicy))?,
        "ask-bare-by-256" => answered_bare(count / ASKERS * ASKERS, || ask_by_256(count))?,
        "ask-by-256" => ask_by_256(count)?,
        "move" => move_pages(usize::try_from(count)?)?,
        _ => anyhow::bail!("no load {kind}"),
    };
    writeln!(io::stdout().lock(), "{}", took.as_nanos())?;
    Ok(())
}

fn repeat(count: u64, call: fn() -> io::Result<()>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    for _ in 0..count {
        call()?;
    }
    Ok(began.elapsed())
}

/// A thread asks, or what it starts, and this one answers so many calls.
fn answered_bare(
    count: u64,
    ask: impl FnOnce() -> anyhow::Result<Duration> + Send,
) -> anyhow::Result<Duration> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let asker = scope.spawn(move || {
            let listener = sys::intercept_get_mempolicy()?;
            sender.send(listener).context("nobody listens")?;
            ask()
        });
        sys::answer_bare(&receiver.recv()?, count)?;
        asker.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))?
    })
}

/// So many calls, by 256 processes at once; from when all are there until all have ended.
fn ask_by_256(count: u64) -> anyhow::Result<Duration> {
    let program = std::env::current_exe()?;
    let start = || {
        Command::new(&program)
            .args(["load", "ask-when-told", &(count / ASKERS).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut askers = (0..ASKERS).map(|_| start()).collect::<io::Result<Vec<_>>>()?;
    for asker in &mut askers {
        wait_for_byte(asker.stdout.as_mut().context("no stdout")?)?;
    }
    let began = Instant::now();
    askers.iter_mut().for_each(|asker| drop(asker.stdin.take()));
    for asker in &mut askers {
        wait_for_byte(asker.stdout.as_mut().context("no stdout")?)?;
    }
    let took = began.elapsed();
    for mut asker in askers {
        ensure!(asker.wait()?.success(), "an asker failed");
    }
    Ok(took)
}

fn wait_for_byte(from: &mut impl io::Read) -> io::Result<()> {
    from.read_exact(&mut [0])
}

/// Says that it is there, waits until stdin ends, asks, and says that it has asked.
fn ask_when_told(count: u64) -> anyhow::Result<()> {
    let say = || {
        let mut out = io::stdout().lock();
        out.write_all(b".").and_then(|()| out.flush())
    };
    say()?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    repeat(count, sys::get_mempolicy)?;
    Ok(say()?)
}

/// One move_pages of so many small pages, from node 0 to node 1.
fn move_pages(pages: usize) -> anyhow::Result<Duration> {
    let area = Area::map(pages)?;
    area.touch();
    // So that what is timed is the move, and not the first look at the pages.
    ensure!(area.move_to(0)? == pages, "the pages are not on node 0");
    let began = Instant::now();
    let moved = area.move_to(1)?;
    let took = began.elapsed();
    ensure!(moved == pages, "{moved} of {pages} pages moved");
    Ok(took)
}
