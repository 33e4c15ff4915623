//! The progress of many scenarios, on stderr: a bar on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lab::fuzz::FuzzProgress;

/// Shows how many scenarios have been played.
pub(crate) struct CasesLine {
    cases: u64,
    form: Form,
}

enum Form {
    Hidden,
    Bar(ProgressBar),
    /// A line for each tenth.
    Lines(Cell<u64>),
}

impl CasesLine {
    pub(crate) fn new(cases: u64, hidden: bool) -> Self {
        let form = if hidden {
            Form::Hidden
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(cases), ProgressDrawTarget::stderr());
            // The template is ours and right; the default would do as well.
            if let Ok(style) = ProgressStyle::with_template("{percent:>3}% {bar:24} {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            Form::Bar(bar)
        } else {
            Form::Lines(Cell::new(0))
        };
        Self { cases, form }
    }

    pub(crate) fn show(&self, progress: FuzzProgress) {
        let text = self.text(progress);
        match &self.form {
            Form::Hidden => {}
            Form::Bar(bar) => {
                bar.set_position(progress.played);
                bar.set_message(text);
            }
            Form::Lines(tenths) => {
                let now = progress.played * 10 / self.cases.max(1);
                if now > tenths.replace(now) {
                    // Without a stderr there is nobody to tell; the fuzz goes on.
                    let _ = writeln!(io::stderr(), "{:3}%  {text}", now * 10);
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

    /// `600 of 3000 cases  97 a second  ETA 0:24  1 difference`
    fn text(&self, progress: FuzzProgress) -> String {
        let FuzzProgress { played, found, elapsed } = progress;
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = played.saturating_mul(1000) / millis;
        let left = self.cases.saturating_sub(played).checked_div(rate).unwrap_or(0);
        let differences = if found == 1 { "difference" } else { "differences" };
        format!(
            "{played} of {} cases  {rate} a second  ETA {}:{:02}  {found} {differences}",
            self.cases,
            left / 60,
            left % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_line_says_how_far_how_fast_and_what_was_found() {
        let line = CasesLine::new(3000, true);
        let elapsed = Duration::from_secs(6);
        assert_eq!(
            line.text(FuzzProgress { played: 600, found: 1, elapsed }),
            "600 of 3000 cases  100 a second  ETA 0:24  1 difference"
        );
    }
}
