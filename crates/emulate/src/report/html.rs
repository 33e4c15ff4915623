//! The report as one page of HTML that needs no other file and runs no script.
//!
//! maud escapes every text: command lines and paths are the program's.

use machine::Bytes;
use maud::{DOCTYPE, Markup, html};

use super::history::Moment;
use super::summary::{Move, Node, Placement, Summary};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--quiet:#777}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.quiet{color:var(--quiet)}
.bar{display:flex;height:.7rem;min-width:8rem;background:#8882}.bar i{display:block}
.key{display:inline-block;width:.7rem;height:.7rem;margin:0 .3rem 0 .8rem}
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:currentColor}
";

/// Told apart by those who see no red or green too.
const COLOURS: [&str; 8] =
    ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#994f00"];

fn colour(node: u16) -> &'static str {
    COLOURS[usize::from(node) % COLOURS.len()]
}

fn bytes(bytes: u64) -> String {
    Bytes::new(bytes).to_string()
}

/// The page.
pub(super) fn page(summary: &Summary) -> String {
    let command = summary.command.join(" ");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "pagetide run: " (command) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { code { (command) } }
                p { (headline(summary)) }
                (nodes(summary))
                (processes(summary))
                (moves(summary))
                (policies(summary))
                (calls(summary))
            }
        }
    };
    page.into_string()
}

fn headline(summary: &Summary) -> String {
    let moved = summary.moves.iter().map(|it| it.moved_pages).sum::<u64>();
    let moved = (moved + summary.moves_left_out.moved_pages) * 4096;
    let processes = summary.processes.len() as u64 + summary.processes_left_out.processes;
    format!(
        "On a machine of {} memory nodes, Linux {}: {processes} processes, {:.3} s, exit code {}; {} moved.",
        summary.nodes.len(),
        summary.kernel,
        std::time::Duration::from_millis(summary.elapsed_ms).as_secs_f64(),
        summary.exit_code,
        bytes(moved),
    )
}

fn nodes(summary: &Summary) -> Markup {
    html! {
        h2 { "Nodes" }
        (chart(&summary.nodes, &summary.history))
        table {
            tr { th { "node" } th { "CPUs" } th.n { "memory" } th.n { "most in use" } }
            @for node in &summary.nodes {
                tr {
                    td { (node.node) span.key style={ "background:" (colour(node.node)) } {} }
                    td { (node.cpus) }
                    td.n { (bytes(node.memory_bytes)) }
                    td.n { (bytes(node.peak_bytes)) }
                }
            }
        }
    }
}

const WIDTH: u64 = 900;
const HEIGHT: u64 = 200;
const FOOT: u64 = 20;

/// A line for each node: how much of it was in use over time.
fn chart(nodes: &[Node], history: &[Moment]) -> Markup {
    let end = history.last().map_or(1, |moment| moment.at_ms.max(1));
    let top = nodes.iter().map(|node| node.peak_bytes).max().unwrap_or(1).max(1);
    let points = |at: usize| {
        let point = |moment: &Moment| {
            let x = moment.at_ms * WIDTH / end;
            let used = moment.used_bytes.get(at).copied().unwrap_or(0).min(top);
            // In KiB, so that a terabyte times the height fits.
            let y = HEIGHT - (used >> 10) * (HEIGHT - FOOT) / (top >> 10).max(1);
            format!("{x},{y}")
        };
        history.iter().map(point).collect::<Vec<_>>().join(" ")
    };
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT + FOOT) } role="img"
            aria-label="memory in use on each node over time" {
            line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) stroke="#8888" {}
            @for (at, node) in nodes.iter().enumerate() {
                polyline points=(points(at)) fill="none" stroke-width="2" stroke=(colour(node.node)) {
                    title { "node " (node.node) }
                }
            }
            text x="0" y="12" { (bytes(top)) }
            text x="0" y=(HEIGHT + 14) { "0 s" }
            text x=(WIDTH) y=(HEIGHT + 14) text-anchor="end" { (seconds(end)) }
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn processes(summary: &Summary) -> Markup {
    let most = summary.processes.iter().map(|it| it.peak_total_bytes).max().unwrap_or(1).max(1);
    let left_out = summary.processes_left_out;
    html! {
        h2 { "Where memory was placed" }
        table {
            tr {
                th.n { "process" } th { "program" } th { "at the last look" }
                @for node in &summary.nodes { th.n { "node " (node.node) } }
                th.n { "peak" }
            }
            @for process in &summary.processes { (process_row(summary, process, most)) }
        }
        @if left_out.processes > 0 {
            p.quiet {
                "And " (left_out.processes) " processes with at most "
                (bytes(left_out.peak_total_bytes)) " each."
            }
        }
    }
}

fn process_row(summary: &Summary, process: &Placement, most: u64) -> Markup {
    let last = |node: &Node| process.last_bytes.get(&node.node).copied().unwrap_or(0);
    let peak = |node: &Node| process.peak_bytes.get(&node.node).copied().unwrap_or(0);
    html! {
        tr {
            td.n { (process.pid) }
            td { code { (process.command) } }
            td {
                div.bar {
                    @for node in &summary.nodes {
                        i title={ "node " (node.node) ": " (bytes(last(node))) }
                            style={
                                "width:" (last(node).saturating_mul(100) / most) "%;background:"
                                (colour(node.node))
                            } {}
                    }
                }
            }
            @for node in &summary.nodes {
                td.n title={ "peak " (bytes(peak(node))) } { (bytes(last(node))) }
            }
            td.n { (bytes(process.peak_total_bytes)) }
        }
    }
}

fn moves(summary: &Summary) -> Markup {
    let left_out = summary.moves_left_out;
    html! {
        h2 { "What moved" }
        @if summary.moves.is_empty() {
            p.quiet { "No page." }
        } @else {
            table {
                tr {
                    th.n { "at" } th.n { "thread" } th { "call, and the kernel's path" }
                    th { "why" } th.n { "moved" } th.n { "stayed" }
                }
                @for it in &summary.moves { (move_row(it)) }
            }
        }
        @if left_out.calls > 0 {
            p.quiet {
                "And " (left_out.calls) " later calls, which moved " (left_out.moved_pages)
                " pages; " (left_out.stayed_pages) " stayed."
            }
        }
    }
}

fn move_row(it: &Move) -> Markup {
    html! {
        tr {
            td.n { (seconds(it.at_ms)) }
            td.n { (it.thread) }
            td { code { (it.call) } br; code.quiet { (it.path.join(" > ")) } }
            td { (it.reason) br; span.quiet { (it.mode) } }
            td.n title={ (it.split_folios) " large folios were split" } { (bytes(it.moved_pages * 4096)) }
            td.n { (it.stayed_pages) " pages" }
        }
    }
}

fn policies(summary: &Summary) -> Markup {
    html! {
        h2 { "Policies that were set" }
        @if summary.policies.is_empty() {
            p.quiet { "None: pages are placed where they are touched first." }
        } @else {
            table {
                tr { th.n { "first at" } th.n { "thread" } th { "call" } th.n { "times" } }
                @for policy in &summary.policies {
                    tr {
                        td.n { (seconds(policy.at_ms)) }
                        td.n { (policy.thread) }
                        td { code { (policy.call) } }
                        td.n { (policy.times) }
                    }
                }
            }
        }
        @if summary.policies_left_out > 0 {
            p.quiet { "And " (summary.policies_left_out) " later calls that set others." }
        }
    }
}

fn calls(summary: &Summary) -> Markup {
    html! {
        h2 { "Calls that were intercepted" }
        table {
            tr { th { "call" } th.n { "calls" } th.n { "answered by the model" } th { "errors" } }
            @for (name, calls) in &summary.calls {
                tr {
                    td { code { (name) } }
                    td.n { (calls.calls) }
                    td.n { (calls.answered) }
                    td {
                        @for (error, times) in &calls.errors { (error) " " (times) " " }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::summary::{MovesLeftOut, ProcessesLeftOut, Supervisor};
    use super::*;

    fn summary(command: &str) -> Summary {
        let nothing = Supervisor { processes: 0, tasks: 1, descriptors: 3, resident_bytes: 0 };
        let mut process = Placement::new(7);
        process.command = command.to_owned();
        process.last_bytes = BTreeMap::from([(0, 1 << 20)]);
        process.peak_total_bytes = 1 << 20;
        Summary {
            schema: 1,
            command: vec![command.to_owned()],
            kernel: "6.12",
            exit_code: 0,
            elapsed_ms: 1500,
            nodes: vec![Node {
                node: 0,
                cpus: "0-1".to_owned(),
                memory_bytes: 1 << 50,
                peak_bytes: 1 << 49,
            }],
            processes: vec![process],
            processes_left_out: ProcessesLeftOut::default(),
            moves: Vec::new(),
            moves_left_out: MovesLeftOut::default(),
            policies: Vec::new(),
            policies_left_out: 0,
            calls: BTreeMap::new(),
            history: vec![Moment { at_ms: 1500, used_bytes: vec![1 << 49] }],
            supervisor: [nothing; 2],
        }
    }

    #[test]
    fn what_a_program_is_called_is_text_and_never_markup() {
        let page = page(&summary("<script>alert('x')</script>\" onload=\"y"));
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("\" onload"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn the_page_asks_for_no_other_file() {
        let page = page(&summary("true"));
        for word in ["http", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(word), "{word} in {page}");
        }
    }

    #[test]
    fn a_node_of_a_petabyte_fits_the_chart() {
        assert!(page(&summary("true")).contains(r#"points="900,20""#));
    }
}
