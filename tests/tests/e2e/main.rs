//! Tests that run the built `pagetide` inside real kernels, and hold what it says against what the
//! kernel and the target say.
//!
//! The target ([`target`]) is a process that knows its contents. After each move the outcome must
//! equal `/proc/PID/numa_maps` ([`moves`]), and the contents must be intact. Each (machine, kernel)
//! is booted once, when its first test begins, and serves one test at a time ([`host`]).
//!
//! A test is a function that takes a [`host::Host`]; [`on_each_kernel!`] makes a test of it for each
//! kernel. `cargo test -p pagetide-tests --test e2e undo` runs one theme,
//! `cargo test -p pagetide-tests --test e2e v6_12` one kernel; `--features newest-kernel` adds the
//! newest of Debian.
//!
//! Tests that are made by [`on_each_kernel_and_emulated!`] run without a guest too, under `pagetide run`:
//! `cargo test -p pagetide-tests --test e2e emulated`.
//!
//! It needs `cargo build -p pagetide-cli` of the same profile before it. No test depends on how fast
//! the guest is: what must happen midway is waited for, and the mover is stopped meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

/// Makes tests of functions that take a host: one for each kernel, named so that they lie next to
/// each other in the alphabet and run at the same time, each in a guest of its own.
macro_rules! on_each_kernel {
    ($($machine:ident { $($test:ident)* })*) => { $($(
        mod $test {
            #[test]
            fn v6_1() {
                super::$test(&$crate::host::host(stringify!($machine), "6.1"));
            }

            #[test]
            fn v6_12() {
                super::$test(&$crate::host::host(stringify!($machine), "6.12"));
            }

            #[cfg(feature = "newest-kernel")]
            #[test]
            fn newest() {
                super::$test(&$crate::host::host(stringify!($machine), "newest"));
            }
        }
    )*)* };
}

/// The same for tests of what must hold under `pagetide run` too, whoever starts it.
macro_rules! on_each_kernel_and_emulated {
    ($($machine:ident { $($test:ident)* })*) => {
        on_each_kernel! { $($machine { $($test)* })* }

        mod emulated { $($(
            mod $test {
                use crate::host::{Starter, emulated};

                #[test]
                fn by_root() {
                    super::super::$test(&emulated(stringify!($machine), Starter::Root));
                }

                #[test]
                fn by_a_user() {
                    super::super::$test(&emulated(stringify!($machine), Starter::User));
                }

                #[test]
                fn contained() {
                    super::super::$test(&emulated(stringify!($machine), Starter::Contained));
                }
            }
        )*)* }
    };
}

/// The same for tests of what a user without a capability may not do or see.
macro_rules! on_each_kernel_and_emulated_by_root {
    ($($machine:ident { $($test:ident)* })*) => {
        on_each_kernel! { $($machine { $($test)* })* }

        mod emulated_by_root { $($(
            #[test]
            fn $test() {
                use crate::host::{Starter, emulated};
                super::$test(&emulated(stringify!($machine), Starter::Root));
            }
        )*)* }
    };
}

mod host;
mod moves;
mod numa_maps;
mod program;
mod said;
mod target;

mod bad_input;
mod compare;
mod conformance;
mod emulating;
mod explain;
mod filters;
mod fuzz;
mod grown_lab;
mod huge;
mod jvm;
mod lasting;
mod leaving;
mod lifetime;
mod migratepages;
mod pacing;
mod permission;
mod pins;
mod plan_file;
mod room;
mod routes;
mod sharing;
mod show;
mod stat;
mod sweep;
mod trace;
mod undo;
mod whole;
