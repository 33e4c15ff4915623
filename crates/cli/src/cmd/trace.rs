//! `pagetide trace [TARGET]`: migrations as they happen, and their sums at the end.

use std::env;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::target::TargetError;
use linux::Root;
use linux::calls::{has_exited, open_pidfd};
use linux::cgroup::Cgroup;
use machine::Bytes;
use report::flamegraph::{self, DrawError};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use trace::event::Event;
use trace::session::{Ending, Options, Session};
use trace::summary::{Sum, Summary};
use trace::supervised::Supervised;
use trace::wanted::{Target, Wanted};

use super::stop;
use crate::exit::Exit;
use crate::output::replacement::Replacement;
use crate::output::{json, trace_text};

/// So often, at least, it is looked whether the trace is over.
const ROUND: Duration = Duration::from_secs(1);

/// Show migrations as the kernel makes them: who caused each, why, what became of its pages, and how
/// long it took. Ctrl-C ends the trace with a summary by reason.
///
/// The kernel migrates in the context of whoever causes it, and its events name that thread: the
/// process that calls or faults, kswapd, kcompactd. TARGET is matched by who caused a migration, and
/// by whose pages they are where that can be known: pages that a system call names, and those of
/// hint faults, mbind and long-term pins. Whose pages compaction, demotion, hotplug and DAMON move,
/// nobody can tell.
///
/// Under `pagetide run` it shows the model's migrations, and needs no root.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pagetide trace
  pagetide trace redis-server --duration 10s --summary
  pagetide trace --reason numa_misplaced --stacks
  pagetide trace --duration 1m --flamegraph migrations.svg")]
pub(crate) struct Args {
    /// Only what concerns this process: its pid, or its name as `ps -e` shows it. By name, also
    /// processes that start later.
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Only what concerns processes of this cgroup and those below it.
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    cgroup: Option<String>,

    /// End after this time: 10s, 5m. Left out: at Ctrl-C, or when the process TARGET exits.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Only migrations for these reasons, in the kernel's words (compaction, numa_misplaced), or a
    /// part of one (syscall).
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,

    /// With the kernel's path of each migration. Needs CAP_SYSLOG; each migration takes a little longer.
    #[arg(long)]
    stacks: bool,

    /// Draw the time spent on each path as a flame graph. Takes stacks as --stacks does.
    #[arg(long, value_name = "FILE.svg")]
    flamegraph: Option<PathBuf>,

    /// Only the summary.
    #[arg(long)]
    summary: bool,

    /// Print one JSON object a line; the last one is the summary.
    #[arg(long)]
    json: bool,

    /// Say at the end what tracing itself cost.
    #[arg(long = "self")]
    own_cost: bool,

    /// Size of the kernel's buffer for each CPU (of the whole, under `pagetide run`): 16MiB. For storms in which events are lost.
    #[arg(long, value_name = "SIZE")]
    buffer: Option<Bytes>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Root::default();
    let (target, pidfd) = target(args, &root)?;
    // Before the trace: a picture that cannot be written should not cost one.
    let picture = args.flamegraph.as_deref().map(Replacement::begin).transpose()?;
    let stop = stop::on_signals(&[SIGINT, SIGTERM, SIGHUP])?;
    let options = Options {
        wanted: Wanted { reasons: args.reason.clone(), target },
        stacks: args.stacks || picture.is_some(),
        buffer: args.buffer,
    };
    let source = Source::start(&root, &options)?;
    let width = source.width();
    let (summary, ending) = watch(args, source, pidfd.as_ref(), &stop)?;
    print_summary(args, &summary, &ending)?;
    if let Some((picture, path)) = picture.zip(args.flamegraph.as_deref()) {
        draw(&summary, &width, picture, path)?;
    }
    Ok(Exit::Done)
}

/// Who tells of migrations.
enum Source {
    Kernel(Box<Session>),
    /// Under `pagetide run`, whose machine is a model.
    Model(Box<Supervised>),
}

impl Source {
    fn start(root: &Root, options: &Options) -> anyhow::Result<Self> {
        if let Some(name) = env::var_os(trace::stream::VARIABLE) {
            return Ok(Self::Model(Box::new(Supervised::start(root, &name, options)?)));
        }
        anyhow::ensure!(
            env::var_os(emulate::MARK).is_none(),
            "nothing to trace here: {} is set, so this machine is a model, but {} is not, which says \
             where its events are told",
            emulate::MARK,
            trace::stream::VARIABLE
        );
        let session = Session::start(root, options)?;
        for name in &session.leftovers {
            writeln!(io::stderr(), "pagetide: removed {name}, which an earlier trace left behind")?;
        }
        Ok(Self::Kernel(Box::new(session)))
    }

    fn next(&mut self, timeout: Duration) -> anyhow::Result<Vec<Event>> {
        Ok(match self {
            Self::Kernel(session) => session.next(timeout)?,
            Self::Model(supervised) => supervised.next(timeout)?,
        })
    }

    fn finish(self) -> anyhow::Result<(Vec<Event>, Ending)> {
        Ok(match self {
            Self::Kernel(session) => session.finish()?,
            Self::Model(supervised) => supervised.finish()?,
        })
    }

    /// What the width of a path in a flame graph is: the model's migrations take no time.
    const fn width(&self) -> Width {
        match self {
            Self::Kernel(_) => {
                Width { of: |sum| sum.duration_ns / 1000, unit: "us", title: "Time in migrations" }
            }
            Self::Model(_) => Width {
                of: |sum| sum.counts.succeeded_pages + sum.counts.failed_pages,
                unit: "pages",
                title: "Pages in migrations",
            },
        }
    }
}

struct Width {
    of: fn(&Sum) -> u64,
    unit: &'static str,
    title: &'static str,
}

/// Follows the trace to its end.
fn watch(
    args: &Args,
    mut source: Source,
    pidfd: Option<&OwnedFd>,
    stop: &AtomicBool,
) -> anyhow::Result<(Summary, Ending)> {
    let mut summary = Summary::default();
    let began = Instant::now();
    let left = |began: Instant| args.duration.map(|all| all.saturating_sub(began.elapsed()));
    if !args.summary && !args.json {
        trace_text::print_headings()?;
    }
    loop {
        let round = left(began).map_or(ROUND, |left| left.min(ROUND));
        show(args, &mut summary, &source.next(round)?)?;
        let is_over = left(began).is_some_and(|left| left.is_zero());
        let is_gone = pidfd.is_some_and(|pidfd| has_exited(pidfd).unwrap_or(true));
        if stop.load(Ordering::Relaxed) || is_over || is_gone {
            break;
        }
    }
    let (events, ending) = source.finish()?;
    show(args, &mut summary, &events)?;
    Ok((summary, ending))
}

fn show(args: &Args, summary: &mut Summary, events: &[Event]) -> anyhow::Result<()> {
    for event in events {
        summary.add(event);
    }
    if args.summary || events.is_empty() {
        return Ok(());
    }
    if args.json {
        return json::print_lines(events);
    }
    Ok(trace_text::print_events(events, args.stacks)?)
}

/// What `--json` prints last.
#[derive(Serialize)]
struct SummaryLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(flatten)]
    ending: &'a Ending,
}

fn print_summary(args: &Args, summary: &Summary, ending: &Ending) -> anyhow::Result<()> {
    if args.json {
        return json::print_lines(&[SummaryLine { event: "summary", summary, ending }]);
    }
    Ok(trace_text::print_summary(summary, ending, args.stacks, args.own_cost)?)
}

/// Whom the trace is about; a single process is held by a pidfd, so that its end is noticed.
fn target(args: &Args, root: &Root) -> anyhow::Result<(Option<Target>, Option<OwnedFd>)> {
    if let Some(path) = &args.cgroup {
        return Ok((Some(Target::Cgroup(Cgroup::open(root, path)?.path())), None));
    }
    let Some(text) = &args.target else { return Ok((None, None)) };
    let Ok(pid) = text.parse() else {
        return Ok((Some(Target::Name(text.clone())), None));
    };
    let pidfd = open_pidfd(pid).map_err(|_| TargetError::NoProcess { pid })?;
    Ok((Some(Target::Process(pid)), Some(pidfd)))
}

/// Draws into the place of an earlier picture; where there is nothing to draw, that one stays.
fn draw(summary: &Summary, width: &Width, picture: Replacement, path: &Path) -> anyhow::Result<()> {
    let mut svg = Vec::new();
    match flamegraph::draw(width.title, width.unit, &summary.folded(width.of), &mut svg) {
        Err(empty @ DrawError::Empty) => {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "pagetide: {empty}; {} is not written", path.display());
            Ok(())
        }
        drawn => {
            drawn.with_context(|| path.display().to_string())?;
            picture.finish(&svg)
        }
    }
}
