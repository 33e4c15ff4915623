//! Benchmarks: each measures pagetide beside its peer in one run, in turn, and prints the ratio of
//! medians. `benches/run` starts them, on this computer or in a lab guest; docs/performance.md says
//! what they mean. Nothing here is a test: a slow machine makes a row slower, not wrong.

mod load;
mod moving;
mod running;
mod sample;
mod surveying;
mod sys;
mod target;
mod trace_pages;

use std::io::{self, Write as _};
use std::process::ExitCode;

const USAGE: &str = "usage: pagetide-bench survey|tebibyte|move|stall|half-home|threads|call-sizes|own-cost|\
     run-programs [sort|build|redis]|run-calls|trace-pages";

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let result = match word.as_str() {
        "survey" => surveying::against_pagemap(),
        "tebibyte" => surveying::a_tebibyte(),
        "move" => moving::against_migrate_pages(),
        "stall" => moving::with_bounded_stall(),
        "half-home" => moving::half_home(),
        "threads" => moving::with_threads(),
        "call-sizes" => moving::call_sizes(),
        "run-programs" => running::programs(std::env::args().nth(2).as_deref()),
        "run-calls" => running::calls(),
        "load" => load::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        "trace-pages" => trace_pages::against_copying(),
        "own-cost" => moving::own_cost(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a stderr the exit status has to do.
            let _ = writeln!(io::stderr(), "pagetide-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
