//! Fetches one package out of Debian's archive, beside the computer's own apt and not with it.
//!
//! apt is run with lists, caches and sources of its own in a folder that the caller removes; the
//! computer's proxies and certificates stay in force, its hooks do not. Every list is checked
//! against the keys of Debian's archive on this computer: a mirror that signs with another key is
//! refused. No root is needed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian::Mirrors;

/// Keys of Debian's archive, from the package debian-archive-keyring, under its two names.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Why a package could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AptError {
    /// apt's sources name no Debian mirror.
    #[error("apt has no source for Debian on this computer")]
    NoMirror,
    /// No keys to check the archive with.
    #[error("no keys of Debian's archive on this computer: apt install debian-archive-keyring")]
    NoKeyring,
    /// No suite has such a package.
    #[error("no cloud kernel of this name in {suites}")]
    NoPackage {
        /// The suites that were looked at.
        suites: String,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        reason: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// The program and its subcommand.
        program: &'static str,
        /// The first line that it printed about it.
        reason: String,
    },
    /// apt's private folder could not be prepared.
    #[error("cannot write {path}: {reason}", path = path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
}

/// An apt of its own.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Prepares `folder`, and reads the lists of these suites.
    ///
    /// # Errors
    ///
    /// [`AptError`].
    pub(crate) fn open(folder: &Path, suites: &[&str]) -> Result<Self, AptError> {
        let mirrors = Mirrors::of_this_computer().ok_or(AptError::NoMirror)?;
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
        let keyring = keyring.ok_or(AptError::NoKeyring)?;
        let failed = |reason| AptError::Write { path: folder.to_owned(), reason };
        for part in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(folder.join(part)).map_err(failed)?;
        }
        let apt = Self { folder: folder.to_owned() };
        fs::write(folder.join("sources.list"), sources(&mirrors, suites, keyring))
            .map_err(failed)?;
        fs::write(folder.join("state/status"), "").map_err(failed)?;
        fs::write(apt.configuration(), configuration(folder)).map_err(failed)?;
        // Else a list that cannot be had is a warning, and an older one would do.
        let strict = ["update", "-o", "APT::Update::Error-Mode=any"];
        apt.run("apt-get", "apt-get update", &strict, folder)?;
        Ok(apt)
    }

    /// Names of all packages that begin with `prefix`.
    ///
    /// # Errors
    ///
    /// [`AptError::Start`], [`AptError::Failed`].
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>, AptError> {
        let names =
            self.run("apt-cache", "apt-cache pkgnames", &["pkgnames", prefix], &self.folder)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it into `to`, without what else it depends on.
    ///
    /// # Errors
    ///
    /// [`AptError`].
    pub(crate) fn unpack(&self, package: &str, to: &Path) -> Result<(), AptError> {
        let downloads = self.folder.join("downloads");
        let failed = |reason| AptError::Write { path: downloads.clone(), reason };
        fs::create_dir_all(&downloads).map_err(failed)?;
        self.run("apt-get", "apt-get download", &["download", package], &downloads)?;
        for file in fs::read_dir(&downloads).map_err(failed)? {
            let file = file.map_err(failed)?.path();
            let words = [OsStr::new("--extract"), file.as_os_str(), to.as_os_str()];
            run(Command::new("dpkg-deb").args(words), "dpkg-deb", "dpkg-deb --extract")?;
        }
        Ok(())
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    fn run(
        &self,
        program: &'static str,
        what: &'static str,
        words: &[&str],
        folder: &Path,
    ) -> Result<String, AptError> {
        let mut command = Command::new(program);
        // Read after the computer's own configuration, so it has the last word.
        command.arg("-c").arg(self.configuration()).args(["-q", "-o", "Acquire::Retries=2"]);
        run(command.args(words).current_dir(folder), program, what)
    }
}

fn run(
    command: &mut Command,
    program: &'static str,
    what: &'static str,
) -> Result<String, AptError> {
    let command = command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().map_err(|reason| AptError::Start { program, reason })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = first_error(&said).map_or_else(|| output.status.to_string(), str::to_owned);
    Err(AptError::Failed { program: what, reason })
}

/// apt marks errors with `E:`, and the first is the cause of the others.
fn first_error(said: &str) -> Option<&str> {
    let marked = said.lines().find_map(|line| line.strip_prefix("E: "));
    marked.or(said.lines().next()).map(str::trim)
}

fn sources(mirrors: &Mirrors, suites: &[&str], keyring: &str) -> String {
    let mut lines = String::new();
    let mut add = |mirror: &str, suite: &str| {
        let options = format!("arch=amd64 target=Packages lang=none signed-by={keyring}");
        lines.push_str(&format!("deb [{options}] {mirror} {suite} main\n"));
    };
    for suite in suites {
        add(&mirrors.archive, suite);
        // Neither sid nor backports has security updates of its own.
        let stable = !suite.contains('-') && *suite != "sid";
        if let Some(mirror) = mirrors.security.as_deref().filter(|_| stable) {
            add(mirror, &format!("{suite}-security"));
        }
    }
    lines
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
APT::Architecture "amd64";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_suites_are_asked_for_security_updates_and_others_are_not() {
        let mirrors = Mirrors {
            archive: "http://mirror.example/debian".into(),
            security: Some("http://mirror.example/security".into()),
        };
        let lines = sources(&mirrors, &["trixie", "trixie-backports", "sid"], "/keys.gpg");
        let suites: Vec<_> = lines.lines().filter_map(|line| line.rsplit(' ').nth(1)).collect();
        assert_eq!(suites, ["trixie", "trixie-security", "trixie-backports", "sid"]);
        assert!(lines.lines().all(|line| line.contains("signed-by=/keys.gpg")), "{lines}");
    }

    #[test]
    fn the_reason_of_a_failure_is_apts_first_error() {
        let said = "W: a warning\nE: Failed to fetch list\nE: Some index files failed\n";
        assert_eq!(first_error(said), Some("Failed to fetch list"));
        assert_eq!(first_error("dpkg-deb: error: no space\n"), Some("dpkg-deb: error: no space"));
        assert_eq!(first_error(""), None);
    }
}
