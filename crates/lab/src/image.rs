//! What is in a guest: our binary, a shell with small tools, and programs of this computer.
//!
//! The guest has no disk: all of it is one archive that the kernel unpacks into memory, on the node
//! of its first CPU. It is not compressed: unpacking costs an emulated CPU more time than QEMU
//! needs to load the larger file.
//!
//! In the guest `/bin`, `/sbin` and `/lib*` are links into `/usr`, whatever this computer has.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Archive;
use crate::elf::Elf;
use crate::programs::{self, ProgramError};

const MERGED: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];
const PAGETIDE: &str = "/usr/bin/pagetide";
const BUSYBOX: &str = "/usr/bin/busybox";

/// Why a guest's content cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The shell of every guest.
    #[error("no busybox on this computer: apt install busybox-static")]
    NoBusybox,
    /// It is there, but does not say what it can do.
    #[error("cannot list the tools of {path}: {reason}", path = path.display())]
    Busybox {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A program that the guest should have.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The content of a guest.
#[derive(Clone, Debug)]
pub struct Image {
    archive: Archive,
}

impl Image {
    /// A guest with `pagetide` (a binary that runs [`agent::init::run`] as process 1), the same
    /// under the name `migratepages`, and busybox.
    ///
    /// # Errors
    ///
    /// [`ImageError`].
    pub fn new(pagetide: &Path) -> Result<Self, ImageError> {
        let mut image = Self { archive: Archive::default() };
        for name in MERGED {
            let (link, target) = (Path::new("/").join(name), Path::new("usr").join(name));
            image.archive.folder(&Path::new("/").join(&target));
            image.archive.link(&link, &target);
        }
        image.add_busybox()?;
        image.add_as(Path::new(PAGETIDE), pagetide)?;
        image.archive.link(Path::new("/init"), Path::new("usr/bin/pagetide"));
        image.archive.link(Path::new("/usr/bin/migratepages"), Path::new("pagetide"));
        image.add_settings();
        Ok(image)
    }

    /// Adds a program of this computer, by name or path, with its interpreter and libraries; it
    /// replaces a tool of busybox with the same path. A file that is no program is copied.
    ///
    /// # Errors
    ///
    /// [`ImageError::Program`].
    pub fn add(&mut self, name: &OsStr) -> Result<(), ImageError> {
        let path = programs::find(name)?;
        self.add_as(&path, &path)
    }

    /// Makes sure that the guest has the program that a command starts, and returns how to call it
    /// there: a relative path becomes an absolute one.
    ///
    /// # Errors
    ///
    /// [`ImageError::Program`] when neither guest nor this computer has it.
    pub fn add_command(&mut self, program: &OsStr) -> Result<OsString, ImageError> {
        if self.has(program) {
            return Ok(program.to_owned());
        }
        let path = programs::find(program)?;
        self.add_as(&path, &path)?;
        Ok(path.into_os_string())
    }

    /// Adds a kernel module, to be loaded by the agent in the order of adding.
    ///
    /// # Errors
    ///
    /// [`ImageError::Program`].
    pub fn add_module(&mut self, number: usize, module: &Path) -> Result<(), ImageError> {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let path = Path::new(agent::init::MODULES).join(format!("{number:02}-{name}"));
        self.archive.file(&merged(&path), 0o644, programs::read(module)?);
        Ok(())
    }

    /// Bytes of memory that the content takes in the guest.
    pub fn bytes(&self) -> u64 {
        self.archive.file_bytes()
    }

    /// Writes the archive.
    ///
    /// # Errors
    ///
    /// What writing gave.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        self.archive.write(to)
    }

    fn has(&self, program: &OsStr) -> bool {
        if program.as_bytes().contains(&b'/') {
            return self.archive.contains(&merged(Path::new(program)));
        }
        let folders = ["/usr/local/bin", "/usr/sbin", "/usr/bin"];
        folders.iter().any(|folder| self.archive.contains(&Path::new(folder).join(program)))
    }

    fn add_busybox(&mut self) -> Result<(), ImageError> {
        let path = programs::find(OsStr::new("busybox")).map_err(|_| ImageError::NoBusybox)?;
        let failed = |reason| ImageError::Busybox { path: path.clone(), reason };
        let listed = Command::new(&path).arg("--list-full").output();
        let listed = listed.map_err(|error| failed(error.to_string()))?;
        if !listed.status.success() {
            return Err(failed(listed.status.to_string()));
        }
        for tool in String::from_utf8_lossy(&listed.stdout).lines() {
            self.archive.link(&merged(&Path::new("/").join(tool)), Path::new(BUSYBOX));
        }
        self.add_as(Path::new(BUSYBOX), &path)
    }

    fn add_settings(&mut self) {
        let mut settings = |path: &str, text: &str| {
            self.archive.file(Path::new(path), 0o644, text.as_bytes().to_vec());
        };
        settings(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        );
        settings("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
        settings("/etc/hosts", "127.0.0.1 localhost lab\n");
        self.archive.folder(Path::new("/root"));
        // Where libraries lie that are in none of the loader's default folders. Without the file
        // there are none.
        if let Ok(cache) = fs::read("/etc/ld.so.cache") {
            self.archive.file(Path::new("/etc/ld.so.cache"), 0o644, cache);
        }
    }

    /// Adds a file of this computer under a path of the guest, and what it needs to start.
    fn add_as(&mut self, path: &Path, source: &Path) -> Result<(), ImageError> {
        let bytes = programs::read(source)?;
        let mode = fs::metadata(source).map_or(0o755, |found| found.permissions().mode());
        let needs = programs::needs(source, &bytes)?;
        let small = Elf::read(&bytes).and_then(Elf::without_debug_information);
        self.archive.file(&merged(path), mode, small.unwrap_or(bytes));
        for file in needs {
            // Also ends the recursion of a script that names itself.
            if !self.archive.contains(&merged(&file)) {
                self.add_as(&file, &file)?;
            }
        }
        Ok(())
    }
}

/// Where a path lies in the guest, whose `/bin` and the like are links.
fn merged(path: &Path) -> PathBuf {
    let inner = path.strip_prefix("/").unwrap_or(path);
    if MERGED.iter().any(|name| inner.starts_with(name)) {
        Path::new("/usr").join(inner)
    } else {
        Path::new("/").join(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_merged_folder_lies_under_usr() {
        assert_eq!(merged(Path::new("/lib64/ld.so")), Path::new("/usr/lib64/ld.so"));
        assert_eq!(merged(Path::new("/usr/bin/sh")), Path::new("/usr/bin/sh"));
        assert_eq!(merged(Path::new("/library/x")), Path::new("/library/x"));
    }

    #[test]
    fn a_program_is_packed_with_all_that_it_needs() {
        let program = std::env::current_exe().unwrap();
        let mut image = Image { archive: Archive::default() };
        image.add(program.as_os_str()).unwrap();
        for file in programs::needs(&program, &fs::read(&program).unwrap()).unwrap() {
            assert!(image.has(file.as_os_str()), "{}", file.display());
        }
    }

    #[test]
    fn a_command_that_the_guest_has_is_not_looked_for_here() {
        let mut image = Image { archive: Archive::default() };
        image.archive.link(Path::new("/usr/sbin/only-in-the-guest"), Path::new(BUSYBOX));
        let name = OsStr::new("only-in-the-guest");
        assert_eq!(image.add_command(name).unwrap(), name);
        assert!(image.add_command(OsStr::new("/sbin/only-in-the-guest")).is_ok());
        assert!(image.add_command(OsStr::new("nowhere-at-all")).is_err());
    }
}
