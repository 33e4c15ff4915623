//! The seccomp filter: which calls are handed to the supervisor, as a classic BPF program.
//!
//! A filter that decides by number alone uses the kernel's bitmap of calls that are always allowed,
//! so that all others stay native. Arguments are looked at only where most calls of a number do
//! not concern us (mmap without `MAP_FIXED`, madvise that drops nothing).
//!
//! Source: seccomp(2); kernel, Documentation/userspace-api/seccomp_filter.rst.

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}
