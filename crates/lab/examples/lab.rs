//! The lab alone, without the rest of pagetide: this binary is its own guest's init.
//!
//! `cargo run -p pagetide-lab --example lab -- MACHINE KERNEL [--with a,b] [--icount|--kvm] [CMD...]`

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use pagetide_lab::{self as lab, Accel, LabOptions, Streams};

fn main() -> anyhow::Result<ExitCode> {
    if std::process::id() == 1 {
        agent::init::run();
    }
    let mut words = std::env::args_os().skip(1);
    let mut word = || words.next().unwrap_or_default().to_string_lossy().into_owned();
    let mut options = LabOptions::new(machine::load(&word())?)?;
    options.kernel = word().parse()?;
    let mut argv: Vec<OsString> = words.collect();
    while let Some(word) = argv.first().and_then(|word| word.to_str()).map(str::to_owned) {
        let value = |argv: &mut Vec<OsString>| argv.remove(1).to_string_lossy().into_owned();
        match word.as_str() {
            "--icount" => options.accel = Accel::TcgIcount,
            "--kvm" => options.accel = Accel::Kvm,
            "--with" => options.with = value(&mut argv).split(',').map(OsString::from).collect(),
            "--time-limit" => options.time_limit = Duration::from_secs(value(&mut argv).parse()?),
            "--cmdline" => options.extra_cmdline = value(&mut argv),
            _ => break,
        }
        argv.remove(0);
    }
    let code = if argv.is_empty() {
        lab::interactive(&options, &[])?
    } else {
        let piped = !io::stdin().is_terminal();
        let stdin = piped.then(|| Box::new(io::stdin()) as Box<dyn Read + Send>);
        let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
        lab::run_command(
            &options,
            &argv,
            Streams { stdin, stdout: &mut stdout, stderr: &mut stderr },
        )?
    };
    Ok(ExitCode::from(code))
}
