//! A file that is replaced whole: a reader finds the old one or the new one, and what fails leaves the old one.
//!
//! Used for what somebody reads while it is written anew (`stat --output`), and for what is there at the end of a
//! long command only (`trace --flamegraph`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context as _;

/// The new one, until it is whole.
pub(crate) struct Replacement {
    path: PathBuf,
    file: File,
    /// Where it lies until then; none for a device or a pipe, which is written to as it is.
    unfinished: Option<PathBuf>,
}

impl Replacement {
    /// Shows that the file can be written, and leaves what is there.
    pub(crate) fn begin(path: &Path) -> anyhow::Result<Self> {
        Self::open(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn open(path: &Path) -> anyhow::Result<Self> {
        let path = match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(path)?;
                return Ok(Self { path: path.to_owned(), file, unfinished: None });
            }
            // A link goes on leading there.
            Ok(_) => fs::canonicalize(path)?,
            Err(_) => path.to_owned(),
        };
        let name = path.file_name().context("it names no file")?;
        // The collector of Prometheus reads `*.prom`: what is being written has another name.
        let unfinished =
            path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), process::id()));
        let file = create(&unfinished)?;
        Ok(Self { path, file, unfinished: Some(unfinished) })
    }

    /// Puts this in the place of what was there.
    pub(crate) fn finish(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.put(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        if let Some(unfinished) = &self.unfinished {
            fs::rename(unfinished, &self.path)?;
            self.unfinished = None;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            // What matters has been told; nobody reads a file of this name.
            let _ = fs::remove_file(unfinished);
        }
    }
}

/// Makes a file that was not there: where others may write, no link of theirs is followed.
fn create(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // A process of our number was killed before it was whole.
            fs::remove_file(path)?;
            File::create_new(path)
        }
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
        Replacement::begin(path)?.finish(text.as_bytes())
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pagetide.prom");
        fs::write(&path, "old\n").unwrap();
        replace(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = replace(&folder.path().join("no/such.prom"), "x").unwrap_err();
        assert!(format!("{error:#}").contains("such.prom"), "{error:#}");
    }

    #[test]
    fn what_is_never_finished_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        fs::write(&path, "old\n").unwrap();
        drop(Replacement::begin(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_still_leads_to_the_file_that_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (link, path) = (folder.path().join("link"), folder.path().join("x.svg"));
        fs::write(&path, "old\n").unwrap();
        symlink("x.svg", &link).unwrap();
        replace(&link, "new\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_pipe_is_written_to_and_stays() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        replace(Path::new(&path), "new\n").unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "new\n");
    }
}
