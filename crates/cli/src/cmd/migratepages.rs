//! `migratepages PID FROM TO`: a drop-in for numactl's tool of that name.
//!
//! Scripts rely on that tool, so everything it does is kept, byte for byte: arguments, which
//! mistake is reported first, streams, texts, exit status, and the one call of migrate_pages(2)
//! that makes no difference between pages that moved and pages that stayed. What it lacks is added
//! on stderr, and only when there is something to add: one line that says how many pages stayed,
//! and why. For everything else there is `pagetide move`.
//!
//! `tests/golden/migratepages.txt` holds command lines that are played through both tools.
//!
//! Source: migratepages(8); behaviour of numactl 2.0.16.

mod device;
mod getopt;
mod route;
mod stayed;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use engine::route::pairs_in_kernel_order;
use linux::proc::numa_maps;
use linux::proc::status::{self, Status};
use linux::{Errno, Root, sys};
use machine::{NodeId, NodeSet, NodeStringContext, NodeStringError, parse_node_string, strtoul};

use self::getopt::Parsed;
use self::stayed::Stayed;

const USAGE: &str = "usage: migratepages pid from-nodes to-nodes\n\n\
    nodes is a comma delimited list of node numbers or A-B ranges or all.\n";

/// Why the command ends with status 1.
enum Refusal {
    /// A mistake in the command line, with what getopt says of it; or a call for help.
    Usage(Option<OsString>),
    /// The kernel is built without NUMA.
    NoNuma,
    /// A node string that cannot be read.
    NodeString { text: OsString, error: NodeStringError },
    /// The kernel refused, or stopped midway; then some pages may have stayed.
    Kernel { error: io::Error, stayed: Option<String> },
}

/// Runs the drop-in. `words` are the command line, the program's name first.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let (program, arguments) =
        words.split_first().map_or((OsStr::new(""), words), |(name, rest)| (name, rest));
    match migrate(arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(stayed)) => {
            say(&stayed);
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            refusal.print(program);
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line asks for. Returns the line about pages that stayed, if any did.
fn migrate(arguments: &[OsString]) -> Result<Option<String>, Refusal> {
    let stops_at_operand = env::var_os("POSIXLY_CORRECT").is_some();
    let operands = match getopt::parse(arguments, stops_at_operand) {
        Parsed::Operands(operands) => operands,
        Parsed::Usage(complaint) => return Err(Refusal::Usage(complaint)),
    };
    let [pid, from, to] = operands[..] else { return Err(Refusal::Usage(None)) };
    if sys::get_thread_policy().is_err_and(|error| Errno::from(&error) == Errno::ENOSYS) {
        return Err(Refusal::NoNuma);
    }
    let pid = pid_of(pid).ok_or(Refusal::Usage(None))?;
    let caller = Caller::look();
    let from = caller.nodes(from)?;
    let to = caller.nodes(to)?;
    caller.migrate(pid, &from, &to)
}

/// The pid as C reads it: a number of any base, cut to 32 bits.
fn pid_of(text: &OsStr) -> Option<u32> {
    match strtoul(text.as_bytes()) {
        Some((number, [])) => u32::try_from(number & u64::from(u32::MAX)).ok(),
        _ => None,
    }
}

/// What this process may do, and what the node strings are read against.
struct Caller {
    nodes: NodeStringContext,
    may_move_shared: bool,
}

impl Caller {
    /// Looks at this process and this computer. What cannot be read is taken as libnuma takes it.
    fn look() -> Self {
        let root = Root::default();
        let text = root.read("proc/self/status").unwrap_or_default();
        let with_memory: Option<NodeSet> = root.value("sys/devices/system/node/has_memory").ok();
        let memory_nodes = with_memory.map_or(0, |nodes| nodes.len());
        Self {
            nodes: NodeStringContext {
                allowed: sys::get_allowed_nodes().unwrap_or_default(),
                memory_nodes: u16::try_from(memory_nodes).unwrap_or(NodeId::LIMIT),
                mask_bits: mask_bits(&text).unwrap_or(NodeId::LIMIT),
            },
            may_move_shared: is_in_initial_user_namespace(&root)
                && status::parse(&text).is_ok_and(|status| status.is_capable(Status::CAP_SYS_NICE)),
        }
    }

    fn nodes(&self, text: &OsStr) -> Result<NodeSet, Refusal> {
        let allowed = self.nodes.allowed.len();
        parse_node_string(text, &self.nodes, |device| device::node_of(device, allowed))
            .map_err(|error| Refusal::NodeString { text: text.to_owned(), error })
    }

    fn migrate(&self, pid: u32, from: &NodeSet, to: &NodeSet) -> Result<Option<String>, Refusal> {
        let moves = pairs_in_kernel_order(from, &to.intersection(&self.nodes.allowed));
        // Pid 0 is this very process, whose pages nobody waits for.
        let survey = || numa_maps::read(&Root::default(), pid).ok();
        let before = if moves.is_empty() || pid == 0 { None } else { survey() };
        let result = sys::migrate_pages(pid, from, to);
        let line = |only_shared, full| {
            Stayed::between(&before?, &survey()?, &moves, only_shared)
                .line(self.may_move_shared, full)
        };
        match result {
            // Nothing is left that the kernel tried to move; shared pages it may not have tried.
            Ok(0) if self.may_move_shared => Ok(None),
            Ok(not_moved) => Ok(line(not_moved == 0, None)),
            Err(error) => {
                let is_full = Errno::from(&error) == Errno::ENOMEM;
                let stayed = if is_full { line(false, Some(to)) } else { None };
                Err(Refusal::Kernel { error, stayed })
            }
        }
    }
}

/// Whether capabilities count for the whole computer: those of a container's own user namespace do
/// not let it move shared pages. The initial namespace maps every user to itself.
fn is_in_initial_user_namespace(root: &Root) -> bool {
    let map = root.read("proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Bits of the kernel's node mask: libnuma takes them from the length of `Mems_allowed`, where nine
/// characters stand for 32 bits.
fn mask_bits(status: &str) -> Option<u16> {
    let mask = status.lines().find_map(|line| line.strip_prefix("Mems_allowed:\t"))?;
    u16::try_from((mask.len() + "\n".len()) * 32 / 9).ok()
}

impl Refusal {
    fn print(&self, program: &OsStr) {
        match self {
            Self::Usage(complaint) => {
                if let Some(complaint) = complaint {
                    write_to(
                        io::stderr(),
                        &[program.as_bytes(), b": ", complaint.as_bytes(), b"\n"],
                    );
                }
                write_to(io::stderr(), &[USAGE.as_bytes()]);
            }
            Self::NoNuma => say("numactl: This system does not support NUMA functionality"),
            Self::NodeString { text, error } => {
                if let Some(warning) = warning_of(error) {
                    warn(&warning);
                }
                write_to(io::stdout(), &[b"<", text.as_bytes(), b"> is invalid\n"]);
            }
            Self::Kernel { error, stayed } => {
                say(&format!("migrate_pages: {}", strerror(error)));
                if let Some(stayed) = stayed {
                    say(stayed);
                }
            }
        }
    }
}

/// What libnuma warns of. Its texts about numbers end with a newline of their own.
fn warning_of(error: &NodeStringError) -> Option<OsString> {
    let quoted = |before: &str, rest: &OsStr, after: &str| {
        let mut text = OsString::from(before);
        text.push(rest);
        text.push(after);
        Some(text)
    };
    match error {
        NodeStringError::Unparseable { rest } => {
            quoted("unparseable node description `", rest, "'\n")
        }
        NodeStringError::NoRangeEnd { rest } => quoted("missing node argument ", rest, "\n"),
        NodeStringError::NotAllowed { number, is_range_end, .. } => {
            let is = if *is_range_end { "" } else { "is " };
            Some(format!("node argument {} {is}out of range\n", as_c_int(*number)).into())
        }
        NodeStringError::Device { reason } => Some(reason.clone()),
        _ => None,
    }
}

/// A number as C's `printf` shows it when it is told that it is an int.
fn as_c_int(number: u64) -> i32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// The C library's text for an errno; Rust puts the number behind it.
fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

fn warn(text: &OsStr) {
    write_to(io::stderr(), &[b"libnuma: Warning: ", text.as_bytes(), b"\n"]);
}

fn say(line: &str) {
    write_to(io::stderr(), &[line.as_bytes(), b"\n"]);
}

/// Writes at once. A stream that cannot be written changes nothing, as in C.
fn write_to(mut stream: impl io::Write, parts: &[&[u8]]) {
    let _ = stream.write_all(&parts.concat()).and_then(|()| stream.flush());
}
