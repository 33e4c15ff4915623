//! The progress of a move, on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use engine::mover::Progress;
use engine::plan::Plan;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use machine::Bytes;

/// Shows how far one move has come.
pub(crate) struct ProgressLine {
    planned_pages: u64,
    form: Form,
}

enum Form {
    Hidden,
    Bar(ProgressBar),
    /// A line for each tenth of the work, and at least one in ten seconds.
    Lines(Mutex<LastLine>),
}

struct LastLine {
    tenths: u64,
    at: Duration,
}

impl ProgressLine {
    pub(crate) fn new(plan: &Plan, hidden: bool) -> Self {
        let planned_pages = plan.pages();
        let form = if hidden {
            Form::Hidden
        } else if io::stderr().is_terminal() {
            Form::Bar(bar(planned_pages))
        } else {
            Form::Lines(Mutex::new(LastLine { tenths: 0, at: Duration::ZERO }))
        };
        Self { planned_pages, form }
    }

    /// Shows the state after a chunk. Called from any of the mover's threads.
    pub(crate) fn show(&self, state: &Progress) {
        let whole = whole(self.planned_pages, state);
        match &self.form {
            Form::Hidden => {}
            Form::Bar(bar) => {
                bar.set_length(whole);
                bar.set_position(state.moved_pages);
                bar.set_message(line(whole, state));
            }
            Form::Lines(last) => {
                let tenths = state.moved_pages * 10 / whole.max(1);
                let Ok(mut last) = last.lock() else { return };
                if tenths > last.tenths || state.elapsed - last.at >= Duration::from_secs(10) {
                    *last = LastLine { tenths, at: state.elapsed };
                    // Without a stderr there is nobody to tell; the move goes on.
                    let _ = writeln!(io::stderr(), "{}", line_with_percent(whole, state));
                }
            }
        }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

/// All that there is to move: more than was planned when more has moved already.
fn whole(planned_pages: u64, state: &Progress) -> u64 {
    planned_pages.max(state.moved_pages)
}

/// `68.0 MiB of 275 MiB  512 MiB/s  ETA 0:01  longest call 4.1ms`
fn line(whole: u64, state: &Progress) -> String {
    let seconds = state.elapsed.as_secs_f64();
    let rate = per_second(state.moved_pages, seconds);
    let left = whole.saturating_sub(state.moved_pages);
    let eta = Bytes::from_pages(left).get().checked_div(rate.get()).unwrap_or(0);
    format!(
        "{} of {}  {rate}/s  ETA {}:{:02}  longest call {}",
        Bytes::from_pages(state.moved_pages),
        Bytes::from_pages(whole),
        eta / 60,
        eta % 60,
        time(state.longest_call),
    )
}

/// The same where there is no bar.
fn line_with_percent(whole: u64, state: &Progress) -> String {
    let percent = state.moved_pages * 100 / whole.max(1);
    format!("{percent:3}%  {}", line(whole, state))
}

fn bar(pages: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(pages), ProgressDrawTarget::stderr());
    // The template is ours and right; the default would do as well.
    if let Ok(style) = ProgressStyle::with_template("{percent:>3}% {bar:24} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Bytes a second of pages moved in so many seconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shown with three digits"
)]
pub(crate) fn per_second(pages: u64, seconds: f64) -> Bytes {
    if seconds <= 0.0 {
        return Bytes::ZERO;
    }
    Bytes::new((Bytes::from_pages(pages).get() as f64 / seconds) as u64)
}

/// A time with two or three digits: `18 us`, `4.1 ms`, `667 ms`, `1.25 s`.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1e-5 => format!("{:.1} us", s * 1e6),
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1e-1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(planned_pages: u64, moved_pages: u64) -> String {
        let state = Progress {
            moved_pages,
            chunk_pages: moved_pages,
            longest_call: Duration::ZERO,
            elapsed: Duration::from_secs(1),
        };
        line_with_percent(whole(planned_pages, &state), &state)
    }

    #[test]
    fn a_move_that_finds_more_than_was_planned_is_never_more_than_whole() {
        assert!(shown(26, 13).starts_with(" 50%  52.0 KiB of 104 KiB"), "{}", shown(26, 13));
        assert!(shown(26, 96).starts_with("100%  384 KiB of 384 KiB"), "{}", shown(26, 96));
        assert!(shown(0, 0).starts_with("  0%  "), "{}", shown(0, 0));
    }
}
