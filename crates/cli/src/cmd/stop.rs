//! Signals that end a command in an orderly way.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use linux::Root;
use linux::proc::status;

/// The first of these signals sets the flag; the second ends pagetide. One that whoever started us has had
/// ignored stays so: SIGHUP under nohup, SIGINT of `pagetide ... &` in a script.
pub(crate) fn on_signals(signals: &[c_int]) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let own = Root::default().parse("proc/self/status", status::parse)?;
    let is_ignored = |signal: c_int| u32::try_from(signal).is_ok_and(|signal| own.ignores(signal));
    for &signal in signals.iter().filter(|&&signal| !is_ignored(signal)) {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot catch signals")?;
    }
    Ok(stop)
}
