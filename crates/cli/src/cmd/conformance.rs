//! `pagetide lab conformance`: the cases of tests/scenarios on real kernels and on the model.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use conformance::{Causes, page, play_on_model};
use lab::conformance::{play, read_cases};
use scenario::{Case, Kernel};

use crate::cmd::model::parse_kernel;

/// Where the cases are, from the top of the repository.
const FOLDER: &str = "tests/scenarios";

/// Play conformance cases on real kernels, and hold the case files and the model to what they give.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide lab conformance
  pagetide lab conformance --kernel 6.1,6.12,7.3 --write docs/conformance.md
  pagetide lab conformance --case MP-46,EN-03 tests/scenarios/engine.cases")]
pub(crate) struct Args {
    /// Case files, or folders with them.
    #[arg(value_name = "FILE", default_value = FOLDER)]
    files: Vec<PathBuf>,

    /// Only these cases, by number.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    case: Vec<String>,

    /// The kernels: 6.1, 6.12, 7.3 (the newest of Debian's).
    #[arg(
        long,
        value_name = "KERNEL",
        value_delimiter = ',',
        default_value = "6.12",
        value_parser = parse_kernel
    )]
    kernel: Vec<Kernel>,

    /// Write the page with all cases, once the kernels have given what the files say.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["case", "files"])]
    write: Option<PathBuf>,
}

/// Plays them; 1 when a case came out otherwise than its file or the model says.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let all = read_cases(&args.files)?;
    let has = |wanted: &str| all.iter().any(|case| case.number == wanted);
    let unknown: Vec<&str> =
        args.case.iter().map(String::as_str).filter(|wanted| !has(wanted)).collect();
    ensure!(unknown.is_empty(), "no case has the number {}", unknown.join(", "));
    let cases: Vec<Case> = match args.case.as_slice() {
        [] => all.clone(),
        wanted => all.iter().filter(|case| wanted.contains(&case.number)).cloned().collect(),
    };
    ensure!(!cases.is_empty(), "the case files have no case");
    let pagetide = std::env::current_exe().context("cannot find the running binary")?;
    let mut out = io::stdout();
    let mut deviations = 0;
    for &kernel in &args.kernel {
        let began = Instant::now();
        let mut note = |text: &str| {
            // Who cannot be told does not want to know.
            let _ = writeln!(io::stderr(), "pagetide lab: {text}");
        };
        let table = play(&cases, kernel, &pagetide, &mut note)?;
        for deviation in &table.deviations {
            writeln!(out, "{deviation}")?;
        }
        writeln!(
            out,
            "{} ({}): {} cases, {} otherwise than the file or the model, {} s",
            kernel.name(),
            table.release,
            table.played,
            table.deviations.len(),
            began.elapsed().as_secs(),
        )?;
        deviations += table.deviations.len();
    }
    if deviations > 0 {
        return Ok(1);
    }
    if let Some(path) = &args.write {
        let file = PathBuf::from(FOLDER).join("differences");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let causes: Causes = text.parse()?;
        let text = page(&play_on_model(all), &causes)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(0)
}
