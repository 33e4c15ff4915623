//! Placeholder opened by the workspace skeleton.
#![forbid(unsafe_code)]
