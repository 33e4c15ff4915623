//! A page explained as text: a fact a line, then why it would move or stay, then what was tried.

use std::io::{self, Write};

use engine::page::trial::{Step, Trial};
use engine::page::{Destination, Frame, PageReport, PageState, Sharer, VmFlag, Would};
use engine::placement::PageSize;
use machine::printable;

use super::paint;

/// Columns of the words that lines begin with.
const LABEL: usize = 11;
/// Flags of a mapping that its permissions show too, or may show one day.
const SEEN_IN_PERMISSIONS: [&str; 8] = ["rd", "wr", "ex", "sh", "mr", "mw", "me", "ms"];
/// Sharers that are named.
const NAMED: usize = 8;

pub(crate) fn print(report: &PageReport) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let name = printable(&report.id.name);
    let who = format!("{name} (pid {}), page at {:#x}", report.id.pid, report.address);
    writeln!(out, "{}\n", paint::heading(who))?;
    for (label, text) in facts(report) {
        writeln!(out, "{label:LABEL$}{text}")?;
    }
    write_verdict(&mut out, report)?;
    if let Some(trial) = &report.trial {
        write_trial(&mut out, trial)?;
    }
    for unseen in &report.unseen {
        writeln!(out, "{} not seen in full: {unseen}", paint::warn("!"))?;
    }
    out.flush()
}

/// What is known, by the word that the line begins with; lines that go on begin with none.
fn facts(report: &PageReport) -> Vec<(&'static str, String)> {
    let mapping = &report.mapping;
    let kind = mapping.kind.map_or("of the kernel", engine::placement::Kind::word);
    let mut facts = vec![(
        "mapping",
        format!("{}  {}  {}  {kind}", mapping.range, mapping.permissions, printable(&mapping.name)),
    )];
    if let Some(offset) = mapping.file_offset_bytes {
        facts.push(("", format!("at byte {offset:#x} of the file")));
    }
    if let Some(flags) = &mapping.flags {
        let is_news = |flag: &&VmFlag| !SEEN_IN_PERMISSIONS.contains(&flag.letters.as_str());
        let word = |flag: &VmFlag| flag.meaning.unwrap_or(&flag.letters).to_owned();
        let words: Vec<String> = flags.iter().filter(is_news).map(word).collect();
        facts.extend((!words.is_empty()).then(|| ("", words.join(", "))));
    }
    if let Some(found) = &report.policy {
        facts.push(("policy", format!("{}: {}", found.policy, found.source.words())));
    }
    let cgroup = report.cgroup.as_deref().map(printable);
    let cgroup = cgroup.map(|path| format!(" (cgroup {path})")).unwrap_or_default();
    facts.push(("cpuset", format!("memory of node {} is allowed{cgroup}", report.allowed_nodes)));
    facts.push(("threads", format!("may run on node {}", report.cpu_nodes)));
    facts.push(("page", page(report)));
    if let Some(frame) = &report.frame {
        facts.extend(of_frame(frame));
    }
    facts.extend(mapped(report));
    facts.extend(bits(report));
    let may = if report.balancing.may_move { "may move it" } else { "does not move it" };
    facts.push(("balancing", format!("{may}: {}", report.balancing.text)));
    for (at, destination) in report.destinations.iter().enumerate() {
        facts.push((if at == 0 { "room" } else { "" }, room(destination)));
    }
    facts
}

/// What there is, in a few words.
fn page(report: &PageReport) -> String {
    let what = match report.state {
        PageState::Present => match report.size {
            Some(PageSize::Thp) => "a THP of 2 MiB".to_owned(),
            Some(PageSize::Hugetlb(size)) => format!("a hugetlb page of {size}"),
            Some(PageSize::Base) => base_page(report.frame.as_ref()),
            None => "a page".to_owned(),
        },
        PageState::Absent => "none: nothing is there yet, or no longer".to_owned(),
        PageState::Swapped => "in swap, or in flight between two nodes just now".to_owned(),
        PageState::Zero => "the zero page: the memory was only read".to_owned(),
        PageState::Guard => "a guard: an access faults".to_owned(),
        PageState::OffNode => "a frame of the kernel or of a device".to_owned(),
        PageState::KernelsOwn => "the kernel's own, none of the process".to_owned(),
    };
    match report.node {
        Some(node) => format!("on node {node}, {what}"),
        None => what,
    }
}

fn base_page(frame: Option<&Frame>) -> String {
    match frame.map(|frame| frame.folio) {
        Some(folio) if folio.pages > 1 => format!(
            "a base page of a large folio of {} (number {} of {})",
            machine::Bytes::from_pages(folio.pages),
            folio.index,
            folio.pages
        ),
        Some(_) => "a base page of 4 KiB".to_owned(),
        None => "a base page of 4 KiB, perhaps of a large folio".to_owned(),
    }
}

fn of_frame(frame: &Frame) -> [(&'static str, String); 2] {
    let flags: Vec<String> = frame.flags.words().collect();
    let folio = frame.folio;
    let place = match folio.pages {
        1 => String::new(),
        pages => format!(", number {} of the {pages} of its folio", folio.index),
    };
    [("frame", format!("{:#x}{place}", frame.number)), ("flags", flags.join(", "))]
}

fn mapped(report: &PageReport) -> Vec<(&'static str, String)> {
    let Some(count) = report.frame.as_ref().and_then(|frame| frame.mapcount) else {
        return Vec::new();
    };
    if report.state != PageState::Present {
        return Vec::new();
    }
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let mut lines = vec![("mapped", times)];
    let line = |sharer: &Sharer| {
        let Sharer { pid, name, address } = sharer;
        ("", format!("also by {} (pid {pid}) at {address:#x}", printable(name)))
    };
    lines.extend(report.sharers.iter().take(NAMED).map(line));
    let more = report.sharers.len().saturating_sub(NAMED);
    if more > 0 {
        lines.push(("", format!("and {more} more")));
    }
    let found = report.sharers.len() as u64 + 1;
    if count > found {
        lines.push((
            "",
            format!("{} of them not found (KSM, moved memory, hidden processes)", count - found),
        ));
    }
    lines
}

fn bits(report: &PageReport) -> Option<(&'static str, String)> {
    let entry = report.entry?;
    if !matches!(report.state, PageState::Present | PageState::Swapped) {
        return None;
    }
    let words = [
        (entry.exclusive, "mapped here alone"),
        (entry.file_or_shared, "of a file or shared memory"),
        (entry.soft_dirty, "soft-dirty"),
        (entry.write_protected, "write-protected by userfaultfd"),
    ];
    let set: Vec<&str> =
        words.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
    (!set.is_empty()).then(|| ("bits", set.join(", ")))
}

fn room(destination: &Destination) -> String {
    let distance = destination.distance.map(|d| format!(", distance {d}")).unwrap_or_default();
    let but = match (destination.is_allowed, destination.has_room) {
        (false, _) => "; the cpuset does not allow it",
        (true, false) => "; too little",
        (true, true) => "",
    };
    format!("node {} has {}{distance}{but}", destination.node, destination.room_bytes)
}

fn write_verdict(out: &mut dyn Write, report: &PageReport) -> io::Result<()> {
    let word = match report.verdict.would {
        Would::Move => match report.destinations.iter().find(|node| node.is_open()) {
            Some(to) => format!("It would migrate, to node {} say.", to.node),
            None => "It would migrate.".to_owned(),
        },
        Would::Stay => "It would not migrate.".to_owned(),
        Would::Unknown => "Whether it would migrate is not known.".to_owned(),
    };
    writeln!(out, "\n{}", paint::heading(word))?;
    report.verdict.because.iter().try_for_each(|text| writeln!(out, "- {text}"))
}

fn write_trial(out: &mut dyn Write, trial: &Trial) -> io::Result<()> {
    writeln!(out, "\n{}", paint::heading("Tried:"))?;
    let step = |way: &str, step: &Step| {
        let became = if step.moved { "moved" } else { "stayed" };
        format!("- {way} to node {}: {became}; the kernel says: {}", step.to, step.answer)
    };
    for (way, taken) in [("there,", &trial.there), ("back,", &trial.back)] {
        if let Some(taken) = taken {
            writeln!(out, "{}", step(way, taken))?;
        }
    }
    match &trial.note {
        Some(note) => writeln!(out, "{} {note}", paint::warn("!")),
        None => Ok(()),
    }
}
