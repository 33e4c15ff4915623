//! `pagetide machine [FILE]`: what a machine is made of: this computer, a machine.toml, or a
//! built-in machine.
//!
//! As text it is meant to be read like `numactl -H`; `--export` writes the machine.toml that `lab`
//! takes, so that a computer can be tried in the lab; `--json` is for programs.

use std::io::{self, Write as _};

use anyhow::Context as _;
use linux::Root;
use linux::sysfs::topology;
use machine::{Bytes, Node, Topology};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::table::{Align, Table};

/// Show the nodes, CPUs, memory and distances of this computer, or of a machine file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A machine.toml, or a built-in machine: two-socket, four-socket, snc-4, dram-cxl. Left out:
    /// this computer.
    #[arg(value_name = "FILE")]
    file: Option<String>,

    /// Print it as a machine.toml.
    #[arg(long, conflicts_with = "json")]
    export: bool,

    /// Print one JSON document; sizes are integers, in bytes.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    machine: &'a Topology,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let machine = match &args.file {
        Some(name_or_path) => machine::load(name_or_path)?,
        None => topology::read(&Root::default(), "this-computer")?,
    };
    let text = if args.export {
        machine.check_description().context(
            "this computer cannot be written as a machine.toml, for it would be none (numa=fake?)",
        )?;
        machine.to_toml()
    } else if args.json {
        serde_json::to_string_pretty(&Document { schema: 1, machine: &machine })? + "\n"
    } else {
        describe(&machine)
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

/// The machine in three parts: a summary, its nodes, the distances between them.
fn describe(machine: &Topology) -> String {
    let memory: Bytes = machine.nodes().iter().map(|node| node.memory).sum();
    let count = |number: usize, noun: &str| {
        format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
    };
    format!(
        "{}: {}, {}, {memory}\n\n{}\ndistances\n{}",
        machine.name,
        count(machine.nodes().len(), "node"),
        count(machine.cpus().len(), "CPU"),
        node_table(machine.nodes()),
        distance_table(machine),
    )
}

/// A line a node. What is not known of any node has no column.
fn node_table(nodes: &[Node]) -> Table {
    let mut table = Table::default();
    let mut column = |heading: &str, align: Align, cell: &dyn Fn(&Node) -> Option<String>| {
        let cells: Vec<Option<String>> = nodes.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            table.column(heading, align, cells.into_iter().map(|cell| cell.unwrap_or("-".into())));
        }
    };
    column("node", Align::Right, &|node| Some(node.id.to_string()));
    column("CPUs", Align::Left, &|node| {
        Some(node.cpus.to_string()).filter(|cpus| !cpus.is_empty())
    });
    column("memory", Align::Right, &|node| Some(node.memory.to_string()));
    column("free", Align::Right, &|node| node.free.map(|free| free.to_string()));
    column("tier", Align::Right, &|node| node.tier.map(|tier| tier.to_string()));
    column("latency", Align::Right, &|node| node.latency_ns.map(|ns| format!("{ns} ns")));
    column("bandwidth", Align::Right, &|node| node.bandwidth_per_s.map(|rate| format!("{rate}/s")));
    table
}

/// From the node of the line to the node of the column.
fn distance_table(machine: &Topology) -> Table {
    let mut table = Table::default();
    table.column("node", Align::Right, machine.nodes().iter().map(|node| node.id.to_string()));
    for (to, node) in machine.nodes().iter().enumerate() {
        let cells = machine.distances().iter().map(|row| row[to].to_string());
        table.column(node.id.to_string(), Align::Right, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_shown_with_what_is_known_of_it() {
        assert_eq!(
            describe(&machine::load("dram-cxl").unwrap()),
            [
                "dram-cxl: 3 nodes, 4 CPUs, 2.0 GiB",
                "",
                "node  CPUs   memory  tier  latency   bandwidth",
                "   0  0-1   768 MiB     0    80 ns   100 GiB/s",
                "   1  2-3   768 MiB     0    80 ns   100 GiB/s",
                "   2  -     512 MiB     1   250 ns  25.0 GiB/s",
                "",
                "distances",
                "node   0   1   2",
                "   0  10  21  24",
                "   1  21  10  34",
                "   2  24  34  10",
                "",
            ]
            .join("\n")
        );
    }

    #[test]
    fn a_machine_of_one_node_says_so_and_what_is_not_known_has_no_column() {
        let text = "name = \"one\"\n[[node]]\ncpus = \"0\"\nmemory = \"1GiB\"\n";
        assert_eq!(
            describe(&Topology::from_toml(text, "one.toml").unwrap()),
            "one: 1 node, 1 CPU, 1.0 GiB\n\n\
             node  CPUs   memory\n   0  0     1.0 GiB\n\n\
             distances\nnode   0\n   0  10\n"
        );
    }
}
