//! Where the kernel's file systems are: `/` on a real machine, a made-up folder in a test.
//!
//! All openers of this crate go through here, so that a failed read becomes the same
//! [`ReadError`] everywhere.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::{Errno, Malformed, ReadError};

/// The folder that has `proc` and `sys` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Root {
    /// Another folder than `/`, with `proc` and `sys` in it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The full path of `relative`, which may begin with a slash.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        let relative = relative.as_ref();
        self.0.join(relative.strip_prefix("/").unwrap_or(relative))
    }

    /// Reads a file whole. Bytes that are no UTF-8 (a file's name in maps) become `U+FFFD`: names
    /// are for people here; nothing is opened by them.
    ///
    /// # Errors
    ///
    /// [`ReadError`], never as malformed.
    pub fn read(&self, relative: impl AsRef<Path>) -> Result<String, ReadError> {
        Ok(String::from_utf8(self.read_bytes(relative)?)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Reads a file whole, as it is.
    ///
    /// # Errors
    ///
    /// [`ReadError`], never as malformed.
    pub fn read_bytes(&self, relative: impl AsRef<Path>) -> Result<Vec<u8>, ReadError> {
        self.bytes_of(self.open(&relative)?, relative)
    }

    /// Reads an open file to its end; `relative` is where it is.
    pub(crate) fn bytes_of(
        &self,
        mut file: File,
        relative: impl AsRef<Path>,
    ) -> Result<Vec<u8>, ReadError> {
        // The kernel's files have no length: room for most of them saves a dozen short reads of each.
        let mut bytes = Vec::with_capacity(8192);
        let read = file.read_to_end(&mut bytes);
        read.map_err(|error| self.error(&self.path(relative), &error))?;
        Ok(bytes)
    }

    /// Reads a file whole, and hands it to `parse`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn parse<T>(
        &self,
        relative: impl AsRef<Path>,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T, ReadError> {
        let text = self.read(&relative)?;
        parse(&text)
            .map_err(|malformed| ReadError::Malformed { path: self.path(relative), malformed })
    }

    /// Reads a file of one line that holds one value.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn value<T>(&self, relative: impl AsRef<Path>) -> Result<T, ReadError>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        self.parse(relative, |text| text.trim().parse().map_err(|error| Malformed::new(1, error)))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn open(&self, relative: impl AsRef<Path>) -> Result<File, ReadError> {
        let path = self.path(relative);
        File::open(&path).map_err(|error| self.error(&path, &error))
    }

    /// Names in a folder, in no order. One that is no UTF-8 is left out: the kernel has none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn names(&self, relative: impl AsRef<Path>) -> Result<Vec<String>, ReadError> {
        let path = self.path(relative);
        let entries = fs::read_dir(&path).map_err(|error| self.error(&path, &error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(&path, &error))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Numbers in the names of a folder's entries that consist of `prefix`, a number and `suffix`.
    pub(crate) fn numbers(
        &self,
        relative: impl AsRef<Path>,
        prefix: &str,
        suffix: &str,
    ) -> Result<Vec<u64>, ReadError> {
        let number = |name: &String| {
            let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let mut numbers: Vec<_> = self.names(relative)?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What a failed operation on the file at `path` means.
    pub(crate) fn error(&self, path: &Path, error: &io::Error) -> ReadError {
        let path = path.to_path_buf();
        match (Errno::from(error), self.process(&path)) {
            (Errno::ESRCH, Some((pid, _))) => ReadError::NoProcess { pid },
            (Errno::ENOENT, Some((pid, folder))) if !folder.exists() => {
                ReadError::NoProcess { pid }
            }
            (Errno::ENOENT | Errno::ENOTDIR, _) => ReadError::NotFound { path },
            (errno @ (Errno::EACCES | Errno::EPERM), _) => {
                ReadError::NotPermitted { needs: needed_for(&path), path, errno }
            }
            (errno, _) => ReadError::Io { path, errno },
        }
    }

    /// The process that a file under `proc` is about, and its folder.
    fn process(&self, path: &Path) -> Option<(u32, PathBuf)> {
        let proc = self.path("proc");
        let Component::Normal(name) = path.strip_prefix(&proc).ok()?.components().next()? else {
            return None;
        };
        Some((name.to_str()?.parse().ok()?, proc.join(name)))
    }
}

/// Capabilities that open a file of another user's process, as measured on 6.12.
fn needed_for(path: &Path) -> &'static str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("maps" | "numa_maps" | "smaps") => "the process's owner, or CAP_SYS_PTRACE",
        Some("pagemap") => {
            "the process's owner, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (frame numbers: \
             CAP_SYS_ADMIN too)"
        }
        Some("kpageflags" | "kpagecount") => "CAP_DAC_READ_SEARCH",
        _ => "root",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_process_is_told_apart_from_a_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/7")).unwrap();
        let root = Root::new(folder.path());
        assert!(matches!(root.read("proc/7/maps"), Err(ReadError::NotFound { .. })));
        assert!(matches!(root.read("proc/8/maps"), Err(ReadError::NoProcess { pid: 8 })));
        assert!(matches!(root.read("proc/vmstat"), Err(ReadError::NotFound { .. })));
    }

    #[test]
    fn a_process_that_exits_while_we_read_is_no_process() {
        let error = io::Error::from(Errno::ESRCH);
        let root = Root::default();
        let error = root.error(Path::new("/proc/7/numa_maps"), &error);
        assert_eq!(error.to_string(), "process 7 has exited, or never was");
    }

    #[test]
    fn a_refusal_names_the_capability() {
        let error = io::Error::from(Errno::EACCES);
        let error = Root::default().error(Path::new("/proc/1/numa_maps"), &error);
        assert_eq!(
            error.to_string(),
            "no permission to read /proc/1/numa_maps: EACCES (permission denied); it needs the \
             process's owner, or CAP_SYS_PTRACE"
        );
    }

    #[test]
    fn a_malformed_value_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("number"), "x\n").unwrap();
        let error = Root::new(folder.path()).value::<u64>("number").unwrap_err().to_string();
        assert!(error.ends_with("number: line 1: invalid digit found in string"), "{error}");
    }

    #[test]
    fn only_names_that_fit_whole_give_a_number() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["node0", "node12", "node", "nodes3", "node-1", "node+1", "xnode2"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(Root::new(folder.path()).numbers("", "node", "").unwrap(), [0, 12]);
    }
}
