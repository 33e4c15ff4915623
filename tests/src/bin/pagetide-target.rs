//! The process that tests move about: it holds memory of a stated shape, proves its contents, and
//! misbehaves on request.
//!
//! ```text
//! pagetide-target --on-node 0 a=anon:64M h=thp:8M p=anon:1M,pin t=anon:16M,touch
//! ready pid=4711 a=0x7f2a4c201000-0x7f2a50201000 h=... p=... t=...
//! ```
//!
//! # Areas: `NAME=KIND:SIZE[,option...]`
//!
//! | kind | memory |
//! | --- | --- |
//! | `anon` | private anonymous, base pages |
//! | `thp` | private anonymous, all of it THPs; it fails when it cannot have them |
//! | `hugetlb`, `hugetlb-1g` | private pages of 2 MiB or 1 GiB from the hugetlb pools |
//! | `shm` | shared anonymous |
//! | `memfd` | a shared mapping of a memfd that is called as the area |
//! | `file,path=PATH` | a shared mapping of PATH, **which is created or overwritten** |
//! | `file,path=PATH,private` | a private one, written: anonymous memory in a file's VMA |
//! | `file,path=PATH,read` | contents in the file, only read through the mapping; with `private` too it is what a program's text is |
//! | `heap` | the heap, grown by brk: within `[heap]` of /proc/PID/maps |
//! | `stack` | the lower end of the main thread's stack, at most 64 MiB |
//! | `zero` | private anonymous, only read: the zero page |
//!
//! SIZE has K, M or G and is a multiple of the kind's page size.
//! THPs are forbidden (`MADV_NOHUGEPAGE`) in every kind but `thp` and `stack`. Each area is one VMA,
//! except `stack`, and `heap` where it has no advice or policy of its own.
//!
//! | option | effect |
//! | --- | --- |
//! | `node=N` | allocated on node N; no mempolicy stays |
//! | `nodes=0,1` | page by page on these nodes in turn; no mempolicy stays |
//! | `bind=N` | bound to node N by mbind(2); the mempolicy stays |
//! | `mlock` | locked in memory, after it was filled |
//! | `pin`, `pin=K` | an extra reference to each page, or to the first K (pages of the kind's size), held by pipes |
//! | `shared-with-child` | a forked child maps it too, and sleeps. Private memory is shared copy-on-write, so that a touch ends it |
//! | `touch` | a thread writes one word of every page in a loop |
//!
//! `--on-node N` is `node=N` for all areas after it that name no node.
//!
//! Every word of every page follows from area, page and word number ([`pattern`]): a page that was
//! lost, torn or swapped is noticed. In a touched area one word of each page is the touch thread's,
//! which checks it itself ([`touch`]).
//!
//! # Answers
//!
//! After `ready` (with ` child=PID` before the areas when there is one), one line for each line on
//! stdin. What cannot be done is answered by `error` and the reason, and the process goes on.
//!
//! | command | answer |
//! | --- | --- |
//! | `check` | `ok NAME...`, or `bad NAME page=K` (base pages from 0); then the exit code will be 1 |
//! | `where NAME` | run lengths over base pages: `0*256 1*256 -*3 -EFAULT*2`; `-` is absent, the zero page is `-EFAULT` |
//! | `stall` | `stall_us_max=12.345`: longest time between two touches since the last `stall` |
//! | `unpin` | `ok`; all extra references are gone |
//! | `unmap NAME` | `ok` |
//! | `cut NAME SIZE` | `ok`; the last SIZE of the area is unmapped, also within a huge page |
//! | `rebind NAME N` | `ok`; the VMA is bound to node N, its pages stay |
//! | `mbind NAME N` | `ok`; the same, and its pages are moved there |
//! | `bounce NAME N,N... TIMES` | `ok`; TIMES times one page was moved, each in a call of its own: all pages to the first node, then all to the next |
//! | `storm NAME N,N... TIMES` | `ok`; TIMES calls moved all pages, neighbours to different nodes, so that the kernel migrates each alone |
//! | `exit` | `ok` |
//!
//! Exit codes: 0, 1 when contents were bad, 2 for a wrong command line, 3 when the kernel refused or gave
//! something else than what was asked for.
//!
//! # Other tasks
//!
//! - `hog NODE LEAVE_BYTES` fills a node until only LEAVE_BYTES are free there, or what its min
//!   watermarks keep; says `ready pid=PID held_bytes=N free_bytes=N`; sleeps.
//! - `recycle PID COMMAND...` runs COMMAND as process PID (which must have gone), for tests of pid
//!   reuse; COMMAND dies with it.
//! - `as-user UID COMMAND...` runs COMMAND as that user, without groups or capabilities.
//! - `loop AREA PASSES BEAT_MS MODE ACCESS THREAD...` uses memory pass by pass under NUMA balancing and says
//!   what that led to ([`access_loop`]).
//!
//! It uses nothing of pagetide's own crates: what proves them must not share their mistakes.

#[path = "../target/access_loop.rs"]
mod access_loop;
#[path = "../target/area.rs"]
mod area;
#[path = "../target/args.rs"]
mod args;
#[path = "../target/error.rs"]
mod error;
#[path = "../target/hog.rs"]
mod hog;
#[path = "../target/hold.rs"]
mod hold;
#[path = "../target/pattern.rs"]
mod pattern;
#[path = "../target/placement.rs"]
mod placement;
#[path = "../target/run_as.rs"]
mod run_as;
#[path = "../target/spec.rs"]
mod spec;
#[path = "../target/sys.rs"]
mod sys;
#[path = "../target/touch.rs"]
mod touch;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::Task;
use crate::error::{Error, Result, Tried};

const USAGE: &str = "\
pagetide-target [OPTION]... [--on-node N | AREA]...   hold memory, answer commands on stdin
pagetide-target hog NODE LEAVE_BYTES                  fill a node
pagetide-target recycle PID COMMAND...                run COMMAND as process PID
pagetide-target as-user UID COMMAND...                run COMMAND as user UID
pagetide-target loop AREA PASSES BEAT_MS MODE read|write CPU:FROM-UPTO...
                                                      use memory under NUMA balancing

AREA is NAME=KIND:SIZE[,option...]
  kinds     anon thp hugetlb hugetlb-1g shm memfd file heap stack zero
  options   node=N nodes=N,N... bind=N mlock pin[=K] shared-with-child touch
            for file: path=PATH private read

  --on-node N           node of the areas after it
  --cpu N               run on CPU N, from before the areas are filled
  --uid N               become user N when the areas are filled
  --name NAME           be called NAME
  --threads K           have K idle threads
  --thread-cpus LIST    bind them to these CPUs in turn
  --exit-after MS       exit after that time
  --stay                stay when stdin ends

Commands: check, where NAME, stall, unpin, unmap NAME, cut NAME SIZE, rebind NAME NODE,
          mbind NAME NODE, bounce NAME NODE,NODE... TIMES,
          storm NAME NODE,NODE... TIMES, exit
";

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell when stderr is closed too.
            drop(writeln!(io::stderr(), "pagetide-target: {error}"));
            ExitCode::from(match error {
                Error::Usage(_) => 2,
                Error::Unmet(_) | Error::Kernel { .. } => 3,
            })
        }
    }
}

fn run(task: Task) -> Result<u8> {
    match task {
        Task::Help => {
            let printed = io::stdout().write_all(USAGE.as_bytes());
            printed.map(|()| 0).tried(|| "cannot write to stdout".to_owned())
        }
        Task::Hold(hold) => hold::run(hold).map(|held| u8::from(!held)),
        Task::Hog { node, leave_bytes } => hog::run(node, leave_bytes).map(|()| 0),
        Task::Recycle { pid, command } => run_as::recycle(pid, &command),
        Task::AsUser { uid, command } => run_as::as_user(uid, &command),
        Task::Loop(wanted) => access_loop::run(wanted).map(|()| 0),
    }
}
