//! The agent of the lab's guests, as a program of its own: it serves on its standard input. Under
//! `pagetide run` it is for the end-to-end tests what a guest is to them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

fn main() -> io::Result<()> {
    agent::serve_on(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}
