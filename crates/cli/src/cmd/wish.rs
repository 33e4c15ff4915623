//! Where memory is to go, and which: the arguments that `plan` and `move` share.

use std::ffi::OsString;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use engine::filter::{Filter, SizeClass};
use engine::memory::Sharing;
use engine::placement::Kind;
use engine::planner::{Wanted, Wish};
use engine::route::{Route, Weights};
use machine::{AddrRange, Bytes, NodeId, NodeSet, Topology};
use machine::{Device, NodeStringContext, parse_node_string};

/// Where memory is to go, and which.
#[derive(clap::Args)]
pub(crate) struct WishArgs {
    /// Take pages on these nodes only, as migratepages does: the first goes to the first of --to,
    /// the second to the second, and so on. Nodes as numactl writes them: 0-2,5, all, !0, +0.
    #[arg(long, value_name = "NODES", requires = "to")]
    from: Option<String>,

    /// Move everything to this node; with --from, to these nodes by position.
    #[arg(long, value_name = "NODES")]
    to: Option<String>,

    /// Spread pages over these nodes in turn, with weights if you like: 0,1 or 0=3,1=1.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["to", "from"])]
    interleave: Option<String>,

    /// Move everything to the node where the threads may run.
    #[arg(long, conflicts_with_all = ["to", "from", "interleave"])]
    near_cpus: bool,

    /// Only these addresses, as /proc/PID/maps writes them: 7f5c8c000000-7f5c8c200000.
    #[arg(long, value_name = "START-END")]
    range: Option<AddrRange>,

    /// Only mappings whose name holds this text, or matches it if it has a * in it: heap,
    /// /dev/shm/*, libc.
    #[arg(long, value_name = "PATTERN")]
    mapping: Option<String>,

    /// Only memory of these kinds.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<KindArg>,

    /// Only pages of this size.
    #[arg(long, value_name = "SIZE")]
    page_size: Option<SizeArg>,

    /// At most this much, in address order: 512MiB.
    #[arg(long, value_name = "BYTES")]
    limit: Option<Bytes>,

    /// Also pages that other processes map, for everybody who maps them (MPOL_MF_MOVE_ALL; needs
    /// CAP_SYS_NICE).
    #[arg(long)]
    include_shared: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindArg {
    Anon,
    File,
    Shmem,
    Heap,
    Stack,
}

#[derive(Clone, Copy, ValueEnum)]
enum SizeArg {
    #[value(name = "4k", alias = "base")]
    Base,
    Thp,
    Hugetlb,
}

impl WishArgs {
    /// Whether a route was named.
    pub(crate) fn is_named(&self) -> bool {
        self.to.is_some() || self.interleave.is_some() || self.near_cpus
    }

    /// What is asked for, on this machine.
    pub(crate) fn wish(&self, machine: &Topology) -> anyhow::Result<Wish> {
        Ok(Wish { route: self.route(machine)?, filter: self.filter(), sharing: self.sharing() })
    }

    pub(crate) fn sharing(&self) -> Sharing {
        if self.include_shared { Sharing::IncludeShared } else { Sharing::OwnOnly }
    }

    fn route(&self, machine: &Topology) -> anyhow::Result<Wanted> {
        let nodes = |option: &str, text: &str| {
            node_set(text, machine).with_context(|| format!("{option} {text}"))
        };
        let route = match (&self.from, &self.to, &self.interleave) {
            (Some(from), Some(to), _) => {
                let (from, to) = (nodes("--from", from)?, nodes("--to", to)?);
                ensure!(!from.is_empty() && !to.is_empty(), "--from and --to must name nodes");
                Route::FromTo { from, to }
            }
            (None, Some(to), _) => Route::To(one_node(nodes("--to", to)?, to)?),
            (_, _, Some(text)) if text.contains('=') => {
                Route::Interleave(text.parse().context("--interleave")?)
            }
            (_, _, Some(text)) => {
                let set = nodes("--interleave", text)?;
                let weights = Weights::equal(&set).context("--interleave must name nodes")?;
                Route::Interleave(weights)
            }
            _ if self.near_cpus => return Ok(Wanted::NearCpus),
            _ => bail!(
                "say where to: --to NODE, --from NODES --to NODES, --interleave NODES or --near-cpus"
            ),
        };
        Ok(Wanted::Route(route))
    }

    pub(crate) fn filter(&self) -> Filter {
        let kind = |kind: &KindArg| match kind {
            KindArg::Anon => Kind::Anon,
            KindArg::File => Kind::File,
            KindArg::Shmem => Kind::Shmem,
            KindArg::Heap => Kind::Heap,
            KindArg::Stack => Kind::Stack,
        };
        Filter {
            range: self.range,
            mapping: self.mapping.clone(),
            kinds: self.kind.iter().map(kind).collect(),
            page_size: self.page_size.map(|size| match size {
                SizeArg::Base => SizeClass::Base,
                SizeArg::Thp => SizeClass::Thp,
                SizeArg::Hugetlb => SizeClass::Hugetlb,
            }),
            limit: self.limit,
        }
    }
}

/// Reads nodes as numactl does, against the nodes of the machine that have memory.
fn node_set(text: &str, machine: &Topology) -> anyhow::Result<NodeSet> {
    let allowed = machine.memory_nodes();
    let memory_nodes = u16::try_from(allowed.len()).unwrap_or(NodeId::LIMIT);
    let context = NodeStringContext { allowed, memory_nodes, mask_bits: NodeId::LIMIT };
    let no_devices = |_: Device<'_>| {
        Err(OsString::from("devices stand for no node here: name the node by its number"))
    };
    Ok(parse_node_string(text.as_ref(), &context, no_devices)?)
}

fn one_node(nodes: NodeSet, text: &str) -> anyhow::Result<NodeId> {
    match (nodes.first(), nodes.len()) {
        (Some(node), 1) => Ok(node),
        _ => bail!(
            "--to {text} must be one node: to spread memory use --interleave {text}, to shift it --from NODES --to {text}"
        ),
    }
}
