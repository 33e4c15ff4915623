//! Times of two things that are done in turn, and the rows that they make.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// What one thing took, run by run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    seconds: Vec<f64>,
}

impl Sample {
    pub(crate) fn add(&mut self, time: Duration) {
        self.seconds.push(time.as_secs_f64());
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let fold =
            |start, pick: fn(f64, f64) -> f64| self.seconds.iter().copied().fold(start, pick);
        (fold(f64::INFINITY, f64::min), fold(0.0, f64::max))
    }
}

/// The time of one call.
pub(crate) fn timed<T>(call: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let began = Instant::now();
    let value = call()?;
    Ok((value, began.elapsed()))
}

/// `name: 12.3 ms (11.9 to 13.0), 1.08 x the 11.4 ms (..) of peer`
pub(crate) fn row(name: &str, ours: &Sample, peer_name: &str, peer: &Sample) -> io::Result<()> {
    let ratio = ours.median() / peer.median();
    let text = |sample: &Sample| {
        let (least, most) = sample.range();
        let ms = |seconds: f64| format!("{:.2}", seconds * 1e3);
        format!("{} ms ({} to {})", ms(sample.median()), ms(least), ms(most))
    };
    writeln!(
        io::stdout().lock(),
        "{name}: {}; {peer_name}: {}; ratio {ratio:.3}",
        text(ours),
        text(peer)
    )
}

/// A figure of its own.
pub(crate) fn note(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "  {text}")
}
