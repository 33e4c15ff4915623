//! A survey as text: nodes first, then each mapping with a strip that draws where its parts lie.

use std::collections::BTreeMap;
use std::io::{self, Write};

use engine::census::{Census, CensusLine};
use engine::finding::percent;
use engine::placement::{Kind, PageSize, Tally, TallyLine};
use engine::process::{MappingView, ProcessSurvey};
use engine::strip::Cell;
use linux::cgroup::NumaStat;
use machine::{Bytes, NodeId, printable};

use super::paint;
use super::table::{Align, Table};

/// Mappings that are shown one by one, at most and at least; the rest in one line.
const MAPPINGS_SHOWN: (usize, usize) = (20, 8);
/// Between the two, a mapping is shown if it holds this part of the whole.
const WORTH_A_LINE: u64 = 1000;
/// Characters of a mapping's name; longer ones are cut in the middle.
const NAME_WIDTH: usize = 28;

pub(crate) fn print(
    processes: &[ProcessSurvey],
    unreadable: usize,
    charged: Option<&NumaStat>,
) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if let [process] = processes {
        write_process(&mut out, process)?;
    } else {
        write_group(&mut out, processes)?;
    }
    write_unreadable(&mut out, unreadable)?;
    match charged {
        Some(charged) => write_charged(&mut out, charged),
        None => Ok(()),
    }
}

fn write_process(out: &mut dyn Write, process: &ProcessSurvey) -> io::Result<()> {
    let total = Bytes::from_pages(process.tally.pages());
    let who = format!("{} (pid {})", printable(&process.id.name), process.id.pid);
    writeln!(
        out,
        "{}  {total}, threads may run on node {}",
        paint::heading(who),
        process.cpu_nodes
    )?;
    if let Some(finding) = &process.finding {
        writeln!(out, "{} {finding}", paint::warn("!"))?;
    }
    write!(out, "\n{}", node_table(&process.tally))?;
    write_mappings(out, &process.mappings)?;
    for unseen in &process.unseen {
        writeln!(out, "{} not seen in full: {unseen}", paint::warn("!"))?;
    }
    Ok(())
}

/// A line a node: bytes and share, then by page size, then by kind. What nobody has has no column.
fn node_table(tally: &Tally) -> Table {
    let total = tally.pages();
    let by_node = tally.by_node();
    let mut table = Table::default();
    table.column("node", Align::Right, by_node.keys().map(ToString::to_string));
    table.column(
        "bytes",
        Align::Right,
        by_node.values().map(|&p| Bytes::from_pages(p).to_string()),
    );
    table.column(
        "share",
        Align::Right,
        by_node.values().map(|&p| format!("{}%", percent(p, total))),
    );
    let mut column = |heading: &str, keep: &dyn Fn(&TallyLine) -> bool| {
        if tally.pages_where(keep) == 0 {
            return;
        }
        let cell = |node: &NodeId| {
            let pages = tally.pages_where(|line| line.node == *node && keep(line));
            if pages == 0 { "-".to_owned() } else { Bytes::from_pages(pages).to_string() }
        };
        table.column(heading, Align::Right, by_node.keys().map(cell));
    };
    column("4 KiB", &|line| line.size == PageSize::Base);
    column("THP", &|line| line.size == PageSize::Thp);
    column("hugetlb", &|line| matches!(line.size, PageSize::Hugetlb(_)));
    for kind in Kind::ALL {
        column(kind.word(), &|line| line.kind == kind);
    }
    table
}

/// The mappings with most memory.
fn write_mappings(out: &mut dyn Write, mappings: &[MappingView]) -> io::Result<()> {
    let mut mappings: Vec<&MappingView> = mappings.iter().collect();
    mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.survey.tally.pages()));
    let total: u64 = mappings.iter().map(|mapping| mapping.survey.tally.pages()).sum();
    let is_large = |mapping: &&&MappingView| mapping.survey.tally.pages() * WORTH_A_LINE >= total;
    let large = mappings.iter().take_while(is_large).count();
    let (most, least) = MAPPINGS_SHOWN;
    let (shown, rest) = mappings.split_at(large.clamp(least, most).min(mappings.len()));
    writeln!(
        out,
        "\n{:>9}  {:5}  {:12}  {:28}  {:32}  policy",
        "bytes", "kind", "start", "mapping", "where"
    )?;
    for mapping in shown {
        write_mapping(out, mapping)?;
    }
    if !rest.is_empty() {
        let pages: u64 = rest.iter().map(|mapping| mapping.survey.tally.pages()).sum();
        writeln!(out, "and {} in {} more mappings", Bytes::from_pages(pages), rest.len())?;
    }
    writeln!(
        out,
        "{}",
        paint::faint("where: a digit is the node of that part, * more than one node, . no page")
    )
}

fn write_mapping(out: &mut dyn Write, view: &MappingView) -> io::Result<()> {
    let survey = &view.survey;
    let bytes = Bytes::from_pages(survey.tally.pages()).to_string();
    let cells = survey.strip.cells();
    let strip: String = cells.iter().map(|cell| sign(*cell)).collect();
    let pad = " ".repeat(32usize.saturating_sub(cells.len()));
    let asides = [(survey.shared_pages, "shared"), (survey.swapped_pages, "in swap or in flight")];
    let asides: String = asides
        .iter()
        .filter(|(pages, _)| *pages > 0)
        .map(|(pages, what)| format!(", {} {what}", Bytes::from_pages(*pages)))
        .collect();
    writeln!(
        out,
        "{bytes:>9}  {:5}  {:12x}  {:28}  {strip}{pad}  {}{}",
        survey.mapping.kind,
        survey.mapping.range.start(),
        middle_cut(&printable(&survey.mapping.name), NAME_WIDTH),
        view.policy.as_deref().unwrap_or("?"),
        paint::faint(asides),
    )?;
    if let Some(finding) = &view.finding {
        writeln!(out, "{:>9}  {} {finding}", "", paint::warn("!"))?;
    }
    Ok(())
}

/// One character of a strip.
fn sign(cell: Cell) -> String {
    match cell {
        Cell::Empty => ".".to_owned(),
        Cell::Mostly(node) => paint::node(node, '*'),
        Cell::On(node) => paint::node(node, digit(node)),
    }
}

/// A node as one character: digits, then letters, then `+`.
fn digit(node: NodeId) -> char {
    char::from_digit(u32::from(node.get()), 36).unwrap_or('+')
}

fn middle_cut(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let head: String = name.chars().take(width / 2 - 1).collect();
    let tail: String = name.chars().skip(length - (width - width / 2 - 1)).collect();
    format!("{head}..{tail}")
}

/// Several processes: a line each, and what they add up to.
fn write_group(out: &mut dyn Write, processes: &[ProcessSurvey]) -> io::Result<()> {
    let mut all = Tally::default();
    processes.iter().for_each(|process| all.merge(&process.tally));
    let nodes: Vec<NodeId> = all.by_node().into_keys().collect();
    let mut table = Table::default();
    table.column("pid", Align::Right, processes.iter().map(|p| p.id.pid.to_string()));
    table.column("name", Align::Left, processes.iter().map(|p| printable(&p.id.name).into()));
    table.column("CPUs on", Align::Left, processes.iter().map(|p| p.cpu_nodes.to_string()));
    for node in nodes {
        let cell = |process: &ProcessSurvey| {
            let pages = process.tally.pages_where(|line| line.node == node);
            Bytes::from_pages(pages).to_string()
        };
        table.column(format!("node {node}"), Align::Right, processes.iter().map(cell));
    }
    let finding = |process: &ProcessSurvey| {
        process.finding.as_ref().map_or(String::new(), |finding| format!("! {finding}"))
    };
    table.column("", Align::Left, processes.iter().map(finding));
    write!(
        out,
        "{table}\nall of them; pages that they share are counted in each\n{}",
        node_table(&all)
    )
}

/// What the cgroup is charged for; that differs from what its processes map.
fn write_charged(out: &mut dyn Write, charged: &NumaStat) -> io::Result<()> {
    let mut by_node: BTreeMap<NodeId, [u64; 2]> = BTreeMap::new();
    for (at, key) in ["anon", "file"].into_iter().enumerate() {
        for (node, bytes) in charged.get(key).into_iter().flatten() {
            by_node.entry(*node).or_default()[at] = *bytes;
        }
    }
    writeln!(
        out,
        "\ncharged to the cgroup (memory.numa_stat); page cache counts for its first user"
    )?;
    let mut table = Table::default();
    table.column("node", Align::Right, by_node.keys().map(ToString::to_string));
    for (at, key) in ["anon", "file"].into_iter().enumerate() {
        table.column(key, Align::Right, by_node.values().map(|b| Bytes::new(b[at]).to_string()));
    }
    write!(out, "{table}")
}

pub(crate) fn print_census(census: &Census) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let lines = &census.processes;
    let mut table = Table::default();
    let column = |table: &mut Table, heading, align, cell: &dyn Fn(&CensusLine) -> String| {
        table.column(heading, align, lines.iter().map(cell));
    };
    column(&mut table, "pid", Align::Right, &|line| line.pid.to_string());
    column(&mut table, "name", Align::Left, &|line| printable(&line.name).into());
    column(&mut table, "memory", Align::Right, &|line| line.bytes.to_string());
    column(&mut table, "away", Align::Right, &|line| line.away_bytes.to_string());
    column(&mut table, "local", Align::Right, &|line| {
        let local = line.bytes.saturating_sub(line.away_bytes);
        format!("{}%", percent(local.get(), line.bytes.get()))
    });
    column(&mut table, "CPUs on", Align::Left, &|line| line.cpu_nodes.to_string());
    column(&mut table, "memory on", Align::Left, &|line| {
        let on = line.bytes_by_node.iter().map(|(node, bytes)| format!("{node}: {bytes}"));
        on.collect::<Vec<_>>().join(", ")
    });
    write!(out, "{table}")?;
    if lines.iter().all(|line| line.away_bytes == Bytes::ZERO) {
        writeln!(out, "no process has memory away from the CPUs that it may use")?;
    }
    write_unreadable(&mut out, census.unreadable)
}

fn write_unreadable(out: &mut dyn Write, count: usize) -> io::Result<()> {
    let (noun, shown) = if count == 1 { ("process", "it") } else { ("processes", "them") };
    match count {
        0 => Ok(()),
        _ => writeln!(
            out,
            "{} {count} {noun} could not be read: CAP_SYS_PTRACE (root) shows {shown}",
            paint::warn("!")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_in_the_middle() {
        let name = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3";
        let cut = middle_cut(name, 28);
        assert_eq!(cut.chars().count(), 28);
        assert!(cut.starts_with("/usr/lib/x86_") && cut.ends_with("crypto.so.3"), "{cut}");
        assert_eq!(middle_cut("[heap]", 28), "[heap]");
    }

    #[test]
    fn nodes_beyond_nine_are_letters() {
        assert_eq!(digit(NodeId::new(3).unwrap()), '3');
        assert_eq!(digit(NodeId::new(11).unwrap()), 'b');
        assert_eq!(digit(NodeId::new(99).unwrap()), '+');
    }
}
