//! `pagetide lab fuzz`: the model against a real kernel, on scenarios from a seed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use lab::fuzz::{Found, FuzzOptions, FuzzReport, MOST_FOUND, case_file, fuzz};
use lab::{KernelName, KernelSource, LabOptions};

use crate::output::cases::CasesLine;

/// Play generated scenarios on a real kernel and on the model, and shrink and write down what
/// differs. The exit status is 1 when something does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide lab fuzz --seed 7 --cases 3000
  pagetide lab fuzz --seed 7 --from 2311 --cases 1 --kernel 6.1")]
pub(crate) struct Args {
    /// Where the scenarios come from: a seed and an index are one scenario, for ever.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// How many scenarios.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    cases: u64,

    /// Index of the first one. Those below 1885 are every sequence of up to three calls.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,

    /// The kernel: 6.1, 6.12 or newest of Debian's.
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: KernelSource,

    /// A built-in machine, or a machine.toml; left out: that of the conformance cases.
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,

    /// Where a case file is written for each difference.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,

    /// No progress on stderr.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the fuzz; the exit status.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let kernel = match args.kernel {
        KernelSource::Named(KernelName::V6_1) => scenario::Kernel::V6_1,
        KernelSource::Named(KernelName::V6_12) => scenario::Kernel::V6_12,
        KernelSource::Named(KernelName::Newest) => scenario::Kernel::V7_3,
        KernelSource::Image(_) => {
            anyhow::bail!("the model knows no kernel image: use --kernel 6.1, 6.12 or newest")
        }
    };
    ensure!(
        args.from.checked_add(args.cases).is_some(),
        "no scenario has an index above {}: --from {} leaves less than {}",
        u64::MAX,
        args.from,
        args.cases
    );
    let topology = match &args.machine {
        Some(name) => machine::load(name)?,
        None => conformance::case_topology(),
    };
    let lab = LabOptions { kernel: args.kernel.clone(), ..LabOptions::new(topology)? };
    let options = FuzzOptions { lab, kernel, seed: args.seed, from: args.from, cases: args.cases };
    prepare(&args.out)?;
    let line = CasesLine::new(args.cases, args.quiet);
    let mut found = Vec::new();
    let report = fuzz(
        &options,
        &mut |text| {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "pagetide lab fuzz: {text}");
        },
        &mut |progress| line.show(progress),
        &mut |one| {
            found.push(one.clone());
            keep(&args.out, &options, one)
        },
    );
    line.finish();
    tell(&mut io::stdout(), &options, &found, report)
}

/// Makes the folder, and a file in it, before hours of work depend on both.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    let probe = folder.join(format!(".pagetide-fuzz-{}", std::process::id()));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, ""))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("cannot write case files to {}", folder.display()))
}

/// Prints what was found, also where an error has ended the fuzz.
fn tell(
    out: &mut dyn io::Write,
    options: &FuzzOptions,
    found: &[Found],
    report: anyhow::Result<FuzzReport>,
) -> anyhow::Result<u8> {
    for found in found {
        writeln!(out, "{found}")?;
    }
    writeln!(out, "{}", summary(options, &report?))?;
    Ok(u8::from(!found.is_empty()))
}

/// `6.12: 3000 cases of seed 7 in 31 s (97 a second), 2 differences`
fn summary(options: &FuzzOptions, report: &FuzzReport) -> String {
    let seconds = report.elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with two or three digits")]
    let rate = report.played as f64 / seconds.max(1e-3);
    let found = report.found.len();
    let differences =
        if found == 1 { "1 difference".into() } else { format!("{found} differences") };
    let stopped = if found >= MOST_FOUND { ", where it stopped" } else { "" };
    format!(
        "{}: {} cases of seed {} from {} on in {seconds:.0} s ({rate:.0} a second), \
         {differences}{stopped}",
        options.kernel.name(),
        report.played,
        options.seed,
        options.from
    )
}

/// Writes the case file of a difference.
fn keep(folder: &Path, options: &FuzzOptions, found: &Found) -> anyhow::Result<()> {
    let index = found.indices.first().copied().unwrap_or_default();
    let name = format!("fuzz-{}-{index}-{}.cases", options.seed, options.kernel.name());
    let path = folder.join(name);
    fs::write(&path, case_file(found, options.seed, options.kernel))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenario::Record;

    #[test]
    fn what_was_found_is_told_though_an_error_ends_the_fuzz() {
        let record =
            |value: &str| Record { results: vec![(1, value.to_owned())], ..Record::default() };
        let found = Found {
            indices: vec![1900],
            scenario: "map a 1; mp 0 {0} {1}".parse().unwrap(),
            theirs: record("1"),
            ours: record("0"),
            came_again: true,
        };
        let options = FuzzOptions {
            lab: LabOptions::new(conformance::case_topology()).unwrap(),
            kernel: scenario::Kernel::V6_12,
            seed: 7,
            from: 0,
            cases: 3000,
        };
        let mut out = Vec::new();
        let full = Err(anyhow::anyhow!("no space left"));
        let told = tell(&mut out, &options, std::slice::from_ref(&found), full);
        assert_eq!(told.unwrap_err().to_string(), "no space left");
        assert_eq!(String::from_utf8(out).unwrap(), format!("{found}\n"));
    }
}
