//! `pagetide run`: an unmodified program on a NUMA machine that this computer is not.
//!
//! A seccomp filter hands the few system calls that are about NUMA to a supervisor, which answers
//! them from [`model`]. Everything else runs in the kernel untouched. The program's memory stays its
//! own: which pages exist is read from the kernel, *where* they lie is the model's. docs/run.md
//! says how, and what it cannot do. It is no security boundary.
//!
//! # Who does what
//!
//! | module | what |
//! | --- | --- |
//! | `filter` | which calls are handed over: a BPF program |
//! | `launch` | forks the child, which shows itself the files, installs the filter and execs |
//! | `supervisor` | the loop: receives, answers, and never parks a call |
//! | `callers` | whether callers queue up, and how they are received and woken then |
//! | `keeper` | lets calls through when the supervisor has died |
//! | `world` | the machine of the model, and the processes that live on it |
//! | `settle` | places the pages that appeared since the last look |
//! | `first_touch` | pages that are known to be the first thread's, and not placed yet |
//! | `gone` | which files in memory no longer exist |
//! | `identity` | which file an inode number means, since the number of a deleted one comes again |
//! | `calls` | one function a system call: the caller's words to the model, its answer back |
//! | `namespace` | which namespace of a kind a thread is in |
//! | `pids` | what a pid of a caller in another pid namespace is here |
//! | `target` | the process that a call is about, and who may look into whom |
//! | `user` | the memory of a program that waits in a call |
//! | `shown` | the files that describe NUMA, as the emulated machine would have them |
//! | `explain` | a line for each call that was answered |
//! | `report` | what the run was like, recorded and written at its end |
//! | `tracers` | who traces inside the run: tells them what moved, as it happens |
//! | `sys` | every unsafe line |
//!
//! # How files are shown
//!
//! `shown::Shown` is called at these moments, and knows nothing else of the supervisor:
//!
//! 1. `prepare`: before the fork, in the supervisor. The machine exists, no process does.
//! 2. `enter`: in the child, single-threaded, before `no_new_privs`, the filter and exec. It makes
//!    namespaces and mounts as far as it may, and says as a byte what came of it. What it leaves in
//!    `self` is lost: the supervisor goes on with its own copy.
//! 3. `traps`: in the child, right after: calls to be handed over in addition: those that name a file where
//!    files cannot be mounted, and where they are, those by which a program gets a `/proc` of its own.
//! 4. `started`: in the supervisor, with that byte. The child waits in its first execve.
//! 5. `poll_fd` and `serve`: the supervisor polls this descriptor beside its own, and calls `serve`
//!    when it is readable: render text from the world, write it, return.
//! 6. `known`: a process was seen for the first time, or has a new program (its first call after
//!    exec waits meanwhile); `gone`: it has ended.
//! 7. `answer`: a call that is in `traps`, before anyone else looks at it.
//! 8. `close`: the last process has ended; ends the helper that made the mounts.

mod affinity;
mod call;
mod callers;
mod calls;
mod error;
mod explain;
mod filter;
mod first_touch;
mod gone;
mod identity;
mod image;
mod keeper;
mod launch;
mod namespace;
mod pids;
mod process;
mod remap;
mod report;
mod run;
mod scan;
mod settle;
mod shown;
mod signals;
mod supervisor;
mod sys;
mod target;
mod tracers;
mod user;
mod world;

pub use error::RunError;
pub use explain::Explain;
pub use launch::MARK;
pub use report::{Report, ReportFormat};
pub use run::{RunOptions, run};
pub use shown::Files;

use std::io::{self, Write as _};

/// Tells the user something, in one line, and goes on.
fn say(line: &str) {
    // When stderr is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "pagetide run: {line}");
}
