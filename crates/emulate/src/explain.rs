//! `--explain`: a line for each call that was answered, as strace would write it, and the model's
//! path where pages were moved.

use std::fmt::{self, Write as _};
use std::io;

use model::Machine;

use crate::call::{Answer, Call};

/// Where the lines go.
pub struct Explain {
    sink: Box<dyn io::Write>,
}

impl fmt::Debug for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Explain")
    }
}

impl Explain {
    /// Lines are written to `sink`, one write each.
    pub fn new(sink: Box<dyn io::Write>) -> Self {
        Self { sink }
    }

    /// Tells one call.
    pub(crate) fn call(&mut self, machine: &mut Machine, call: &Call, answer: Answer) {
        let mut text = format!("[{}] {}", call.tid, call.number);
        for explained in model::explain(&machine.take_events()) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {explained}");
        }
        text.push_str(&format!(" = {answer:?}\n"));
        // Nobody reads it any more: the program goes on.
        let _ = self.sink.write_all(text.as_bytes());
    }
}
