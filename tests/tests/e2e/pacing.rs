//! How a move goes on, and how it is stopped.

use lab::{Command, WindowSize};

use crate::host::Host;
use crate::moves::{About, Move, move_pages};
use crate::program::{Program, SIGINT};
use crate::target::Target;

on_each_kernel! {
    two_socket {
        two_threads_move_every_page_once
        in_portions_every_page_moves_but_those_that_are_pinned
    }
}

on_each_kernel_and_emulated! {
    two_socket {
        ctrl_c_stops_at_a_chunks_end_and_the_accounts_add_up
        a_rate_is_kept
        a_limit_on_the_stall_cuts_a_call_into_portions
        progress_is_lines_when_piped_and_nothing_when_quiet
        progress_is_a_bar_on_a_terminal
    }
}

fn ctrl_c_stops_at_a_chunks_end_and_the_accounts_add_up(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:64M");
    let words = format!("--to 1 --rate 2MiB/s --range {}", target.range("a", 0..16384));
    let moving = Move::start(host, &target, &words);
    moving.stop_midway(1);
    moving.mover.signal(SIGINT);
    moving.go_on();
    let outcome = moving.finish(&mut target, About::Areas(&["a"]));
    assert_eq!(outcome.end, "interrupted");
    assert!(outcome.moved_pages > 0, "{outcome:?}");
    assert_eq!(outcome.moved_pages + outcome.stayed_only("not_tried"), 16384, "{outcome:?}");

    // What the outcome advises: the same move again finishes it.
    let words = format!("--to 1 --range {}", target.range("a", 0..16384));
    let rest = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!(rest.moved_pages, outcome.stayed_pages());
    assert_eq!(rest.already_there_pages, outcome.moved_pages);
}

fn a_rate_is_kept(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:2M");
    let words = format!("--to 1 --rate 4MiB/s --range {}", target.range("a", 0..512));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert!(outcome.elapsed_ns >= 500_000_000, "2 MiB at 4 MiB/s: {outcome:?}");
    assert!(outcome.calls >= 5, "a tenth of a second at a time: {outcome:?}");
}

fn a_limit_on_the_stall_cuts_a_call_into_portions(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:1M,touch t=thp:4M");
    for (area, pages, portions) in [("a", 256, 4), ("t", 1024, 2)] {
        let words = format!("--to 1 --max-stall 1ms --range {}", target.range(area, 0..pages));
        let outcome = move_pages(host, &mut target, &words, About::Areas(&[area]));
        assert_eq!(outcome.moved_pages, pages);
        let hold_ns = outcome.longest_hold_ns.unwrap();
        assert!(hold_ns * portions <= outcome.longest_call_ns + portions, "{outcome:?}");
        assert_eq!(target.where_is(area), format!("1*{pages}"));
    }
}

fn in_portions_every_page_moves_but_those_that_are_pinned(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:4M,pin=5");
    let words = format!("--to 1 --max-stall 1ms --range {}", target.range("a", 0..1024));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_only("pinned_or_busy")), (1019, 5));
}

fn two_threads_move_every_page_once(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:16M,pin=5 t=thp:8M");
    let words =
        format!("--to 1 --threads 2 --max-stall 20ms --range {}", target.range("a", 0..4096));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["a"]));
    assert_eq!((outcome.moved_pages, outcome.stayed_only("pinned_or_busy")), (4091, 5));
    let words = format!("--to 1 --threads 2 --range {}", target.range("t", 0..2048));
    let outcome = move_pages(host, &mut target, &words, About::Areas(&["t"]));
    assert_eq!(outcome.moved_pages, 2048);
}

fn progress_is_lines_when_piped_and_nothing_when_quiet(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:8M");
    let (pid, range) = (target.pid(), target.range("a", 0..2048));
    let move_to = |node, option| {
        let words = format!("move {pid} --to {node} --range {range} --rate 16MiB/s {option}");
        let output = host.pagetide(&words);
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr_text().into_owned()
    };
    let said = move_to("1", "--threads=1");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("100%  8.0 MiB of 8.0 MiB"), "{said}");
    assert!(said.lines().count() > 2, "{said}");
    assert_eq!(move_to("0", "--quiet"), "");
    target.check();
}

fn progress_is_a_bar_on_a_terminal(host: &Host) {
    let mut target = Target::start(host, "--on-node 0 a=anon:8M");
    let (pid, range) = (target.pid(), target.range("a", 0..2048));
    let words = format!("pagetide move {pid} --to 1 --range {range} --rate 16MiB/s");
    let terminal = Some(WindowSize { rows: 24, columns: 120 });
    let env = vec![(b"TERM".to_vec(), b"xterm".to_vec())];
    let command = Command { terminal, env, ..Command::new(words.split(' ')) };
    let ended = Program::start_command(host, command).wait();
    let said = ended.stdout;
    assert_eq!(ended.code, 0, "{said}");
    assert!(said.contains("=>") && said.contains("MiB/s  ETA 0:00"), "a bar, rate, ETA: {said}");
    assert!(said.contains("\r") && said.contains("moved 2048 pages (8.0 MiB)"), "{said}");
    target.check();
}
