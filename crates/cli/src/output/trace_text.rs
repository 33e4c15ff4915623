//! A trace as text: a line for each migration, and a table of sums.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use machine::{Bytes, printable};
use trace::event::{Counts, Event, Gap, KernelEvent, Migration, Occasion, Owner, Value, in_words};
use trace::session::Ending;
use trace::summary::{Sum, Summary};

use super::paint;
use super::progress::{per_second, time};
use super::table::{Align, Table};

/// Prints the headings of the lines that [`print_events`] prints.
pub(crate) fn print_headings() -> io::Result<()> {
    let line = format!(
        "{:12}  {:15}  {:>7}  {:17}  {:10}  {:>7}  {:>6}  {:>7}",
        "time (UTC)", "caused by", "pid", "reason", "mode", "moved", "failed", "took"
    );
    writeln!(anstream::stdout(), "{}", paint::heading(line))
}

/// Prints a line for each event, and its path below it.
pub(crate) fn print_events(events: &[Event], with_stacks: bool) -> io::Result<()> {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Migration(migration) => {
                text += &migration_line(migration);
                if with_stacks {
                    text += &path_line(&migration.stack);
                }
            }
            Event::Kernel(event) => text += &kernel_line(event),
            Event::Lost(gap) => text += &lost_line(*gap),
        }
    }
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `03:14:07.112  migratepages         179`
fn occasion(occasion: &Occasion) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(occasion.time_ns);
    let at = humantime::format_rfc3339_millis(at).to_string();
    let clock = at.get(11..23).unwrap_or(&at);
    let pid = occasion.pid.unwrap_or(occasion.tid);
    let process = caused_by(&occasion.process);
    format!("{}  {process:15}  {pid:>7}", paint::faint(clock))
}

/// A process by its name, if that is known.
fn caused_by(process: &str) -> Cow<'_, str> {
    if process.is_empty() { "?".into() } else { printable(process) }
}

fn migration_line(migration: &Migration) -> String {
    let Migration { counts, duration_ns, .. } = migration;
    let reason = paint::word(format!("{:17}", in_words(&migration.reason)));
    let failed = format!("{:>6}", counts.failed_pages);
    let failed = if counts.failed_pages > 0 { paint::warn(failed) } else { failed };
    let took = duration_ns.map_or_else(|| "?".to_owned(), |ns| time(Duration::from_nanos(ns)));
    let mut line = format!(
        "{}  {reason}  {:10}  {:>7}  {failed}  {took:>7}",
        occasion(&migration.occasion),
        mode(&migration.mode),
        counts.succeeded_pages,
    );
    let owner = migration.pages_of.as_ref();
    if let Some(Owner { pid, name }) =
        owner.filter(|owner| Some(owner.pid) != migration.occasion.pid)
    {
        let _ = write!(line, "  pages of {} ({pid})", printable(name));
    }
    let thps = [
        (counts.thp_succeeded, "moved whole"),
        (counts.thp_failed, "not"),
        (counts.thp_split, "split"),
    ];
    let thps = thps.iter().filter(|(count, _)| *count > 0);
    let thps: Vec<_> = thps.map(|(count, fate)| format!("{count} {fate}")).collect();
    if !thps.is_empty() {
        let _ = write!(line, "  THPs: {}", thps.join(", "));
    }
    if let Some(split) = counts.large_folio_split.filter(|&split| split > counts.thp_split) {
        let _ = write!(line, "  large folios: {split} split");
    }
    line + "\n"
}

/// `MIGRATE_SYNC_LIGHT` as `sync light`.
fn mode(mode: &str) -> String {
    in_words(&mode.strip_prefix("MIGRATE_").unwrap_or(mode).to_lowercase())
}

fn path_line(stack: &[String]) -> String {
    if stack.is_empty() {
        return String::new();
    }
    format!("    {}\n", paint::faint(stack.join(" < ")))
}

fn kernel_line(event: &KernelEvent) -> String {
    let mut line = format!("{}  {}", occasion(&event.occasion), paint::faint(&event.name));
    for (name, value) in &event.fields {
        let _ = match value {
            Value::Number(number) => write!(line, " {name}={number}"),
            Value::Word(word) => write!(line, " {name}={word}"),
        };
    }
    line + "\n"
}

fn lost_line(gap: Gap) -> String {
    let events = gap.events.map_or_else(|| "some".to_owned(), |events| events.to_string());
    let cpu = gap.cpu.map_or_else(String::new, |cpu| format!(" of CPU {cpu}"));
    paint::warn(format!("! {events} events{cpu} were lost here")) + "\n"
}

/// Prints the sums, what the kernel counted itself, and what was lost.
pub(crate) fn print_summary(
    summary: &Summary,
    ending: &Ending,
    with_stacks: bool,
    with_cost: bool,
) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let elapsed = Duration::from_nanos(ending.elapsed_ns);
    let total = &summary.total;
    writeln!(out, "\n{} in {}", runs(total.migrations), time(elapsed))?;
    if total.migrations > 0 {
        write_table(&mut out, summary, with_stacks)?;
    }
    if !summary.kernel_events.is_empty() {
        let seen = summary.kernel_events.iter().map(|(name, count)| format!("{name} {count}"));
        writeln!(out, "also seen: {}", seen.collect::<Vec<_>>().join(", "))?;
    }
    if let Some(vmstat) = &ending.vmstat {
        writeln!(out, "{}", compared(&total.counts, vmstat))?;
    }
    if ending.lost_events > 0 || ending.bad_pages > 0 {
        let Ending { lost_events, read_events, bad_pages, .. } = ending;
        let unreadable = match bad_pages {
            0 => String::new(),
            bad => format!(", {bad} pages of the buffer made no sense"),
        };
        writeln!(
            out,
            "{} {lost_events} of {} events were lost{unreadable}: the sums are too small; a larger --buffer loses fewer",
            paint::warn("!"),
            lost_events + read_events,
        )?;
    }
    if with_cost {
        writeln!(out, "{}", cost(ending))?;
    }
    Ok(())
}

fn runs(count: u64) -> String {
    format!("{count} migration{}", if count == 1 { "" } else { "s" })
}

fn write_table(out: &mut dyn io::Write, summary: &Summary, with_stacks: bool) -> io::Result<()> {
    let lines = summary.lines();
    let sums: Vec<Sum> = lines.iter().map(|line| line.sum).chain([summary.total]).collect();
    let cells = |cell: fn(&Sum) -> String| sums.iter().map(cell).collect::<Vec<_>>();
    let reasons = lines.iter().map(|line| in_words(line.reason)).chain(["total".to_owned()]);
    let processes = lines.iter().map(|line| caused_by(line.process).into_owned());
    let mut table = Table::default();
    table.column("reason", Align::Left, reasons);
    table.column("caused by", Align::Left, processes);
    table.column("runs", Align::Right, cells(|sum| sum.migrations.to_string()));
    table.column("moved", Align::Right, cells(|sum| sum.counts.succeeded_pages.to_string()));
    table.column("failed", Align::Right, cells(|sum| sum.counts.failed_pages.to_string()));
    table.column("THPs", Align::Right, cells(|sum| sum.counts.thp_succeeded.to_string()));
    table.column(
        "bytes",
        Align::Right,
        cells(|sum| Bytes::from_pages(sum.counts.succeeded_pages).to_string()),
    );
    table.column(
        "time",
        Align::Right,
        cells(|sum| timed(sum, time(Duration::from_nanos(sum.duration_ns)))),
    );
    table.column(
        "rate",
        Align::Right,
        cells(|sum| {
            let seconds = Duration::from_nanos(sum.duration_ns).as_secs_f64();
            timed(sum, format!("{}/s", per_second(sum.timed_pages, seconds)))
        }),
    );
    let text = table.to_string();
    let mut rows = text.lines();
    writeln!(out, "{}", paint::heading(rows.next().unwrap_or_default()))?;
    for (at, row) in rows.enumerate() {
        writeln!(out, "{row}")?;
        let stack = lines.get(at).filter(|_| with_stacks).map_or(&[][..], |line| line.stack);
        write!(out, "{}", path_line(stack))?;
    }
    Ok(())
}

/// `?` where no run was timed.
fn timed(sum: &Sum, text: String) -> String {
    if sum.duration_ns == 0 { "?".to_owned() } else { text }
}

/// The sums beside the kernel's own counters.
fn compared(seen: &Counts, vmstat: &Counts) -> String {
    let pairs = [
        (seen.succeeded_pages, vmstat.succeeded_pages, "moved"),
        (seen.failed_pages, vmstat.failed_pages, "failed"),
    ];
    let counted = pairs.map(|(_, counted, what)| format!("{counted} pages {what}")).join(", ");
    if pairs.iter().all(|(seen, counted, _)| seen == counted) {
        return format!("/proc/vmstat counted the same: {counted}");
    }
    format!(
        "{} /proc/vmstat counted {counted}: what differs was lost, or under way at the beginning or the end",
        paint::warn("!")
    )
}

/// What tracing itself cost.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn cost(ending: &Ending) -> String {
    let share = 100.0 * ending.own_cpu_ns as f64 / ending.elapsed_ns.max(1) as f64;
    let seconds = Duration::from_nanos(ending.elapsed_ns).as_secs_f64().max(1e-9);
    format!(
        "pagetide itself: {share:.2}% of one CPU ({} in {}); {} events read, {:.0} a second; {} lost",
        time(Duration::from_nanos(ending.own_cpu_ns)),
        time(Duration::from_nanos(ending.elapsed_ns)),
        ending.read_events,
        ending.read_events as f64 / seconds,
        ending.lost_events,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration() -> Migration {
        Migration {
            occasion: Occasion {
                time_ns: 11_647_112_345_678,
                cpu: 3,
                tid: 180,
                pid: Some(179),
                process: "migratepages".to_owned(),
            },
            reason: "syscall_or_cpuset".to_owned(),
            mode: "MIGRATE_SYNC_LIGHT".to_owned(),
            counts: Counts { succeeded_pages: 792, thp_split: 1, ..Counts::default() },
            duration_ns: Some(29_778_000),
            pages_of: Some(Owner { pid: 139, name: "db".to_owned() }),
            stack: ["migrate_pages".to_owned(), "migrate_to_node".to_owned()].into(),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_migration_is_one_line_below_its_headings() {
        let line = plain(&migration_line(&migration()));
        assert_eq!(
            line,
            "03:14:07.112  migratepages         179  syscall or cpuset  sync light      792       0  29.8 ms  pages of db (139)  THPs: 1 split\n"
        );
    }

    #[test]
    fn a_process_that_moves_its_own_pages_is_not_named_twice() {
        let owner = Owner { pid: 179, name: "migratepages".to_owned() };
        let own = Migration { pages_of: Some(owner), ..migration() };
        assert!(!migration_line(&own).contains("pages of"));
    }

    #[test]
    fn a_path_reads_from_the_engine_outwards() {
        let line = plain(&path_line(&migration().stack));
        assert_eq!(line, "    migrate_pages < migrate_to_node\n");
    }

    #[test]
    fn sums_that_differ_from_the_counters_of_the_kernel_are_marked() {
        let seen = migration().counts;
        assert!(compared(&seen, &seen).starts_with("/proc/vmstat counted the same: 792 pages"));
        assert!(plain(&compared(&seen, &Counts::default())).starts_with('!'));
    }

    #[test]
    fn a_process_by_whatever_name_is_one_line_and_one_row() {
        let name = || "a\x1b[2Jb\nc".to_owned();
        let mut odd = migration();
        odd.occasion.process = name();
        odd.pages_of = Some(Owner { pid: 139, name: name() });
        let line = migration_line(&odd);
        assert_eq!(line.matches("a?[2Jb?c").count(), 2, "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        let mut summary = Summary::default();
        summary.add(&Event::Migration(odd));
        let mut table = Vec::new();
        write_table(&mut table, &summary, false).unwrap();
        let table = String::from_utf8(table).unwrap();
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows.len() == 3 && rows[1].contains("  a?[2Jb?c  "), "{table}");
    }
}
