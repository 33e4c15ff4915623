//! The real kernel: migration system calls, and readers of procfs, sysfs and cgroup files.
pub mod sys;
