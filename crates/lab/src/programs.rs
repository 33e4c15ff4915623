//! Finds a program of this computer, and everything that it needs to start in a guest.
//!
//! Libraries: the program's own interpreter is asked (`ld.so --list`, which both glibc and musl
//! have). It is the one that will look for them in the guest; a reader of our own would have to
//! imitate its cache, its `RUNPATH` and its choice by CPU, and be wrong where it differs. Libraries
//! that a program opens while it runs (`dlopen`) are not seen: name them beside it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io, path};

use rustix::fs::{Access, access};

use crate::elf::Elf;

/// Looked at after `PATH`: where programs lie that an ordinary user's `PATH` leaves out.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// What process 1 of a guest mounts before any program starts.
const MOUNTS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Longest first line of a script that the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE_BYTES: usize = 256;

/// Why a program of this computer cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No such file, here or in `PATH`.
    #[error("no program {name} on this computer: install it, or give its path")]
    NotFound {
        /// As it was asked for.
        name: String,
    },
    /// It is there, and cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// It would not be seen in the guest.
    #[error(
        "cannot pack {path}: the guest has a {mount} of its own in front of it; copy it elsewhere, to /tmp",
        path = path.display()
    )]
    Hidden {
        /// The file.
        path: PathBuf,
        /// What is mounted there.
        mount: &'static str,
    },
    /// Its interpreter did not list its libraries.
    #[error("cannot list the libraries of {path}: {reason}", path = path.display())]
    Libraries {
        /// The program.
        path: PathBuf,
        /// What the interpreter said.
        reason: String,
    },
}

/// The file that a name or a path stands for. The path is absolute, without `..`; links in it are kept,
/// since programs look at the name by which they are called.
///
/// # Errors
///
/// [`ProgramError::NotFound`]; [`ProgramError::Read`].
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, ProgramError> {
    let path = look_up(name)?;
    without_dots(&path).map_err(|reason| ProgramError::Read { path, reason })
}

/// As [`find`], with each `..` that the path or `PATH` has.
fn look_up(name: &OsStr) -> Result<PathBuf, ProgramError> {
    let not_found = || ProgramError::NotFound { name: name.to_string_lossy().into_owned() };
    if name.as_bytes().contains(&b'/') {
        let path = path::absolute(name).map_err(|_| not_found())?;
        return if path.is_file() { Ok(path) } else { Err(not_found()) };
    }
    let search = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&search).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    find_in(folders, name).ok_or_else(not_found)
}

/// The first that can be executed, as a shell finds it.
fn find_in(folders: impl Iterator<Item = PathBuf>, name: &OsStr) -> Option<PathBuf> {
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates.find(|path| path.is_absolute() && executable(path))
}

/// An absolute path without its `..`, as the kernel walks it: up from where a link leads. Links behind
/// the last `..` are kept.
fn without_dots(path: &Path) -> io::Result<PathBuf> {
    let mut walked = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            walked = walked.canonicalize()?;
            walked.pop();
        } else {
            walked.push(part);
        }
    }
    Ok(walked)
}

/// The mount of the guest that hides what is packed below it.
pub(crate) fn hidden_by(path: &Path) -> Option<&'static str> {
    MOUNTS.into_iter().find(|mount| path.starts_with(mount))
}

/// Reads a file that goes into the guest.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    fs::read(path).map_err(|reason| ProgramError::Read { path: path.to_owned(), reason })
}

/// Files without which a program does not start: its interpreter and its libraries, by the absolute paths
/// by which they are opened. A script runs with what the guest `has` already.
///
/// # Errors
///
/// [`ProgramError::Libraries`], [`ProgramError::NotFound`].
pub(crate) fn needs(
    program: &Path,
    bytes: &[u8],
    has: impl Fn(&OsStr) -> bool,
) -> Result<Vec<PathBuf>, ProgramError> {
    if let Some(interpreter) = Elf::read(bytes).and_then(Elf::interpreter) {
        let mut files = libraries(&interpreter, program)?;
        files.push(interpreter);
        return Ok(files);
    }
    script_words(bytes).into_iter().filter(|word| !has(word)).map(look_up).collect()
}

/// Where a program lies that its name is only a link to: its libraries are sought from there (`$ORIGIN`).
/// `None` for what is no link, or no dynamic program, which looks for none.
pub(crate) fn behind_link(path: &Path, bytes: &[u8]) -> Option<PathBuf> {
    Elf::read(bytes)?.interpreter()?;
    path.canonicalize().ok().filter(|real| real != path)
}

/// The interpreter of a script; when that is `env`, the program that it looks for as well, behind options
/// and variables.
fn script_words(bytes: &[u8]) -> Vec<&OsStr> {
    let line = bytes.strip_prefix(b"#!").and_then(|rest| rest.split(|&byte| byte == b'\n').next());
    let line = line.filter(|line| line.len() < SCRIPT_LINE_BYTES).unwrap_or_default();
    let mut words =
        line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let Some(interpreter) = words.next() else { return Vec::new() };
    let is_env = Path::new(interpreter).file_name() == Some(OsStr::new("env"));
    let is_program = |word: &[u8]| !word.starts_with(b"-") && !word.contains(&b'=');
    let sought = words.find(|word| is_env && is_program(word.as_bytes()));
    [Some(interpreter), sought].into_iter().flatten().collect()
}

fn libraries(interpreter: &Path, program: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let failed = |reason| ProgramError::Libraries { path: program.to_owned(), reason };
    let output = Command::new(interpreter)
        .arg("--list")
        .arg(program)
        // In the guest these are not set, so what only they find must be missed here and now.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot start {}: {error}", interpreter.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().or(text.lines().next()).unwrap_or("no reason given");
        return Err(failed(said.to_owned()));
    }
    parse_list(&text).map_err(|missing| failed(format!("this computer has no {missing}")))
}

/// Paths out of lines like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`; the name
/// of the first that was not found is the error. Lines without a path name what the kernel brings.
fn parse_list(text: &str) -> Result<Vec<PathBuf>, &str> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, found) = line.split_once(" => ").unwrap_or((line, line));
        if found == "not found" {
            return Err(name);
        }
        // The address stands last; a path may have spaces in it.
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn libraries_are_read_from_what_the_interpreter_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibnuma.so.1 => /opt/my libs/libnuma.so.1 (0x00007f12)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f34)\n";
        let paths = ["/opt/my libs/libnuma.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_list(text), Ok(paths.map(PathBuf::from).to_vec()));
    }

    #[test]
    fn a_library_that_is_missing_is_named() {
        let text = "\tlibnuma.so.1 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n";
        assert_eq!(parse_list(text), Err("libnuma.so.1"));
    }

    #[test]
    fn a_dynamic_program_needs_its_interpreter_and_its_c_library() {
        let program = env::current_exe().unwrap();
        let files = needs(&program, &read(&program).unwrap(), |_| false).unwrap();
        assert!(files.iter().all(|file| file.is_absolute() && file.is_file()), "{files:?}");
        assert!(files.len() >= 2, "{files:?}");
    }

    #[test]
    fn a_script_needs_its_interpreter_and_what_env_looks_for() {
        let words = |text: &'static str| script_words(text.as_bytes());
        assert_eq!(words("#!/bin/sh -e\necho\n"), ["/bin/sh"]);
        assert_eq!(words("#! /usr/bin/env -S python3 -u\n"), ["/usr/bin/env", "python3"]);
        assert_eq!(words("#!/usr/bin/env -S X=1 sh\n"), ["/usr/bin/env", "sh"]);
        assert_eq!(words("just text"), Vec::<&str>::new());
    }

    #[test]
    fn a_name_is_sought_as_a_shell_seeks_it_so_a_file_that_cannot_be_executed_is_passed_by() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            let path = folder.path().join("tool");
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let found = find_in(folders.into_iter(), OsStr::new("tool"));
        assert_eq!(found, Some(second.path().join("tool")));
    }

    #[test]
    fn a_program_that_is_not_there_is_named_as_it_was_asked_for() {
        let error = find(OsStr::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(
            error,
            "no program no-such-program on this computer: install it, or give its path"
        );
    }

    proptest! {
        #[test]
        fn no_output_of_an_interpreter_makes_the_parser_panic(text in "(.|\n)*") {
            let _ = parse_list(&text);
        }
    }
}
