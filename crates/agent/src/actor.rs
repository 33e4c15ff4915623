//! The actor: performs a [`Scenario`] with real system calls, and tells each result in the notation
//! of `scenario`, so that it can be held against the model's.
//!
//! One program for every verb. A **director** (`director`) plays one case after the other: it
//! forks process P, which forks Q and starts threads as the scenario says. Each of them is a
//! **part** (`part`, with `memory` and `calls`) that waits for its turn on the **board**
//! (`board`), shared memory that also takes the results. What is around the processes (cgroups,
//! hugetlb pools, weights, KSM, the trace) is set up by the director (`around`), and it also
//! looks at them from outside (`look`), since a part may have given up the right to. After each
//! case everything is put back: processes are reaped, groups removed, pools emptied, pages of the
//! actor's own that the case moved are brought home. What lasts longer than a case, mounts and
//! settings, is put back when the director is dropped: the caller turns signals into its `stop`. No case waits for time to pass.
//!
//! Two ways in, both from the one `pagetide` binary (`pagetide actor`), which needs nothing from
//! the lab and so runs under `pagetide run` as well:
//!
//! - [`Director::play`]: one scenario to a [`scenario::Record`].
//! - `play_stream`: cases in, a line each, `NUMBER STEPS`; records out, in the line form of
//!   [`scenario::RecordLine`], flushed after each case. What kills a case ends that case alone.
//!
//! Where the caller may not see page frames, or they tell nothing of nodes (`pagetide run`), places are asked of move_pages(2) instead of pagemap:
//! pages that no access is allowed to look absent then on Linux before 6.12.

mod around;
mod board;
mod calls;
mod director;
mod look;
mod memory;
mod part;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use linux::Errno;
use scenario::{End, Record, RecordLine, Scenario, Seen};

pub use director::{ActorError, Director};

/// Plays the cases that come in, and writes what each gave. Once `stop` is set, as a signal does, the
/// case that is played ends as failed, and no other is played.
///
/// # Errors
///
/// [`ActorError`]: the actor cannot begin, or a stream failed. A case that cannot be performed is
/// no error: its record says so.
pub fn play_stream(
    input: impl BufRead,
    output: &mut impl Write,
    stop: Arc<AtomicBool>,
) -> Result<(), ActorError> {
    let mut director = Director::new(stop)?;
    for line in input.lines() {
        let line = line.map_err(ActorError::Stream)?;
        if director.is_stopped() {
            break;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (number, steps) = line.split_once(' ').unwrap_or((line, ""));
        let record = match steps.parse::<Scenario>() {
            Ok(scenario) => director.play(&scenario),
            Err(error) => Record { end: End::Failed(error.to_string()), ..Record::default() },
        };
        write_record(output, number, &record).map_err(ActorError::Stream)?;
    }
    Ok(())
}

/// In one piece: each line by itself would wake who reads it, on another CPU.
fn write_record(output: &mut impl Write, number: &str, record: &Record) -> io::Result<()> {
    let case = RecordLine::Case(number.to_owned());
    let results = record.results.iter().map(|(step, text)| RecordLine::Result(*step, text.clone()));
    let lines = std::iter::once(case).chain(results);
    let lines = lines.chain([RecordLine::End(record.end.clone())]);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// An errno as results have it.
fn name(errno: Errno) -> String {
    errno.name().map_or_else(|| errno.to_string(), str::to_owned)
}

/// An errno if there is one, else no result.
fn errno_seen<T>(result: rustix::io::Result<T>) -> Option<Seen> {
    result.err().map(|errno| Seen::Errno(name(Errno::from(errno.raw_os_error()))))
}

/// The same of an error of the standard library.
fn error_seen<T>(result: io::Result<T>) -> Option<Seen> {
    result.err().map(|error| Seen::Errno(name(Errno::from(&error))))
}

/// A length as a number of the kernel.
fn numbered(count: usize) -> u64 {
    count as u64
}
