//! The loops.

use super::{Loop, Memory, Switches, Thread};

/// Shorter times than the kernel's own, so that a second shows several scans.
const FAST: Switches = Switches {
    mode: 1,
    scan_delay_ms: 100,
    scan_period_min_ms: 100,
    scan_period_max_ms: 1000,
    hot_threshold_ms: 1000,
};

/// 8 MiB on node 0, used by one thread on node 1.
const WHOLE: Loop = Loop {
    name: "whole",
    shows: "a thread brings all that it uses to its own node",
    machine: "two-socket",
    memory: Memory::Anon,
    pages: 2048,
    node: 0,
    threads: &[Thread { cpu: 2, from: 0, upto: 2048 }],
    writes: false,
    passes: 50,
    beat_ms: 20,
    switches: FAST,
};

/// 1 MiB on node 0, used by a thread on each node.
const SHARED: Loop = Loop {
    name: "shared",
    shows: "two threads on two nodes use the same pages: nobody's pages settle for good",
    pages: 256,
    threads: &[Thread { cpu: 0, from: 0, upto: 256 }, Thread { cpu: 2, from: 0, upto: 256 }],
    passes: 30,
    beat_ms: 40,
    ..WHOLE
};

/// Memory on the slower node of a machine with two tiers, under tiering alone.
const SLOW: Loop = Loop {
    machine: "dram-cxl",
    node: 2,
    switches: Switches { mode: 2, hot_threshold_ms: 60, ..FAST },
    ..WHOLE
};

/// Every loop, in the order of the table.
pub const LOOPS: &[Loop] = &[
    WHOLE,
    Loop {
        name: "whole-written",
        shows: "writing leads to the same as reading",
        writes: true,
        ..WHOLE
    },
    Loop {
        name: "hot-tenth",
        shows: "what is not used stays, and is marked once",
        threads: &[Thread { cpu: 2, from: 0, upto: 205 }],
        ..WHOLE
    },
    Loop {
        name: "halves",
        shows: "with two threads local pages are marked too, again and again",
        threads: &[
            Thread { cpu: 0, from: 0, upto: 1024 },
            Thread { cpu: 2, from: 1024, upto: 2048 },
        ],
        ..WHOLE
    },
    SHARED,
    Loop { name: "shared-written", writes: true, ..SHARED },
    Loop {
        name: "thp",
        passes: 35,
        shows: "a THP comes whole, at one fault",
        memory: Memory::Thp,
        ..WHOLE
    },
    Loop {
        name: "thp-halves",
        shows: "THPs of two threads",
        memory: Memory::Thp,
        threads: &[
            Thread { cpu: 0, from: 0, upto: 1024 },
            Thread { cpu: 2, from: 1024, upto: 2048 },
        ],
        ..WHOLE
    },
    Loop {
        name: "memfd",
        shows: "shared memory is balanced since 6.12, and marked where it is local too",
        memory: Memory::Memfd,
        passes: 35,
        ..WHOLE
    },
    Loop {
        name: "promoted",
        shows: "in tiering mode what is used comes up from the slower node, soon after it was marked",
        pages: 2048,
        threads: &[Thread { cpu: 0, from: 0, upto: 512 }],
        ..SLOW
    },
    Loop {
        name: "lukewarm",
        shows: "what is used later than the hot threshold after it was marked stays down",
        pages: 512,
        threads: &[Thread { cpu: 0, from: 0, upto: 512 }],
        passes: 3,
        beat_ms: 500,
        ..SLOW
    },
    Loop {
        name: "file",
        shows: "a file that is only read is passed over",
        memory: Memory::ReadOnlyFile,
        ..WHOLE
    },
];
