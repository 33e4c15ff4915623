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
use std::path::{Component, Path, PathBuf};
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
        self.add_file(&merged(&path), &path)
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
        self.add_file(&merged(&path), &path)?;
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
            // A relative path is a file of this computer: the guest knows nothing of our folder.
            let path = Path::new(program);
            return path.is_absolute() && self.archive.contains(&merged(path));
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

    /// Adds a file of this computer, and what it needs to start. A program that its name is only a link to
    /// lies where it lies here: its libraries are sought from there.
    fn add_file(&mut self, path: &Path, source: &Path) -> Result<(), ImageError> {
        if let Some(mount) = programs::hidden_by(path) {
            return Err(ProgramError::Hidden { path: source.to_owned(), mount }.into());
        }
        let real = programs::behind_link(source, &programs::read(source)?)
            .filter(|real| merged(real) != path && programs::hidden_by(real).is_none());
        match real {
            Some(real) => {
                self.archive.link(path, &merged(&real));
                self.add_as(&merged(&real), &real)
            }
            None => self.add_as(path, source),
        }
    }

    /// Adds a file of this computer under a path of the guest, and what it needs to start.
    fn add_as(&mut self, path: &Path, source: &Path) -> Result<(), ImageError> {
        let bytes = programs::read(source)?;
        let mode = fs::metadata(source).map_or(0o755, |found| found.permissions().mode());
        let needs = programs::needs(source, &bytes, |word| self.has(word))?;
        let small = Elf::read(&bytes).and_then(Elf::without_debug_information);
        self.archive.file(path, mode, small.unwrap_or(bytes));
        for file in needs {
            let path = self.walk(&file);
            // Also ends the recursion of a script that names itself.
            if !self.archive.contains(&path) {
                self.add_file(&path, &file)?;
            }
        }
        Ok(())
    }

    /// Where a path of a program leads in the guest, which has a folder of its own in place of a link to
    /// one. The folders from which the path goes up (`$ORIGIN/../lib`) must be there.
    fn walk(&mut self, path: &Path) -> PathBuf {
        let mut walked = PathBuf::from("/");
        for part in path.components() {
            if part != Component::ParentDir {
                walked = merged(&walked.join(part));
                continue;
            }
            if walked.parent().is_some() && !self.archive.contains(&walked) {
                self.archive.folder(&walked);
            }
            walked.pop();
        }
        walked
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
    use std::os::unix::fs::symlink;

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
        for file in programs::needs(&program, &fs::read(&program).unwrap(), |_| false).unwrap() {
            let path = image.walk(&file);
            assert!(image.archive.contains(&path), "{}", file.display());
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

    #[test]
    fn a_relative_path_is_a_file_of_this_computer_whatever_the_guest_has_by_that_path() {
        let mut image = Image { archive: Archive::default() };
        image.archive.link(Path::new("/usr/bin/only-in-the-guest"), Path::new(BUSYBOX));
        for path in ["bin/only-in-the-guest", "./usr/bin/only-in-the-guest"] {
            assert!(image.add_command(OsStr::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_path_that_goes_up_is_packed_where_it_leads_and_hides_no_folder_of_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir_all(folder.join("inner/deep")).unwrap();
        symlink(folder.join("inner/deep"), folder.join("link")).unwrap();
        fs::write(folder.join("inner/tool"), "text").unwrap();
        let mut image = Image { archive: Archive::default() };
        image.archive.link(Path::new("/bin"), Path::new("usr/bin"));
        let path = folder.join("link/../tool");
        let tool = folder.join("inner/tool");
        assert_eq!(image.add_command(path.as_os_str()).unwrap(), tool.as_os_str());
        assert!(image.archive.contains(&tool));
        let up = "../".repeat(folder.components().count() - 1);
        let path = folder.join(up).join("bin/sh");
        assert_eq!(image.add_command(path.as_os_str()).unwrap(), "/bin/sh");
        let mut without = image.archive.clone();
        without.link(Path::new("/bin"), Path::new("usr/bin"));
        assert!(without == image.archive, "/bin is no link any more");
    }

    #[test]
    fn a_library_is_packed_where_its_path_leads_in_the_guest_and_so_are_the_folders_on_the_way() {
        let mut image = Image { archive: Archive::default() };
        assert_eq!(image.walk(Path::new("/o/bin/../lib/x.so")), Path::new("/o/lib/x.so"));
        assert_eq!(image.walk(Path::new("/lib64/sub/../x.so")), Path::new("/usr/lib64/x.so"));
        for folder in ["/o/bin", "/usr/lib64/sub"] {
            assert!(image.archive.contains(Path::new(folder)), "{folder}");
        }
    }

    #[test]
    fn a_script_may_want_what_only_the_guest_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut image = Image { archive: Archive::default() };
        for tool in ["/usr/bin/only-in-the-guest", "/usr/bin/env"] {
            image.archive.link(Path::new(tool), Path::new(BUSYBOX));
        }
        for line in ["#!/bin/only-in-the-guest", "#!/usr/bin/env only-in-the-guest"] {
            let script = folder.path().join("script");
            fs::write(&script, format!("{line}\n")).unwrap();
            image.add(script.as_os_str()).unwrap();
            assert!(image.has(script.as_os_str()), "{line}");
        }
    }

    #[test]
    fn a_program_behind_a_link_lies_where_its_libraries_are_sought_from() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (program, link) = (folder.join("o/bin/prog"), folder.join("l/prog"));
        fs::create_dir_all(folder.join("o/bin")).unwrap();
        fs::create_dir_all(folder.join("l")).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        symlink("../o/bin/prog", &link).unwrap();
        let mut image = Image { archive: Archive::default() };
        assert_eq!(image.add_command(link.as_os_str()).unwrap(), link.as_os_str());
        assert!(image.archive.contains(&program));
        let mut linked = image.archive.clone();
        linked.link(&link, &program);
        assert!(linked == image.archive, "the name is no link to the program");
    }

    #[test]
    fn what_the_guest_would_hide_below_its_own_mounts_is_refused() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let mut image = Image { archive: Archive::default() };
        let error = image.add_command(script.as_os_str()).unwrap_err().to_string();
        let expected = format!(
            "cannot pack {}: the guest has a /dev of its own in front of it; copy it elsewhere, to /tmp",
            script.display()
        );
        assert_eq!(error, expected);
    }
}
