//! Kernels for guests: Debian's cloud kernels by name, fetched once and never installed, or any
//! image by path.
//!
//! The store is a folder for each name, `$XDG_CACHE_HOME/pagetide/kernels/6.12/` and so on, with
//! the kernel (`vmlinuz`), the modules that its port needs (`modules/`) and a line that says which
//! package it is (`package`). A folder is made aside, under a lock, and renamed when it is complete;
//! one without a kernel in it is replaced. To have a newer kernel of the same name, delete its
//! folder. A computer without a network can be given a store that was made on another one
//! (`PAGETIDE_KERNEL_DIR`).
//!
//! What a kernel needs to boot in the lab is built into Debian's: NUMA, serial ports, tmpfs. The
//! driver of the fast port is a module in 6.1, and built in from 6.12 on.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, path};

use rustix::fs::{FlockOperation, flock};

use crate::apt::{Apt, AptError};

/// A kernel that the lab can get by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelName {
    /// 6.1, of Debian 12.
    V6_1,
    /// 6.12, of Debian 13.
    #[default]
    V6_12,
    /// The newest in Debian's archive.
    Newest,
}

impl KernelName {
    /// Every name, oldest kernel first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    /// As a user types it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    /// Suites of the archive that have it; security updates of the same name are looked at too.
    const fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["trixie"],
            Self::Newest => &["trixie-backports", "sid"],
        }
    }

    /// Numbers with which the version begins.
    const fn version(self) -> &'static [u64] {
        match self {
            Self::V6_1 => &[6, 1],
            Self::V6_12 => &[6, 12],
            Self::Newest => &[],
        }
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// Out of the store; fetched from Debian when it is not there.
    Named(KernelName),
    /// This image. Its port is the serial one, since nothing is known of its drivers.
    Image(PathBuf),
}

impl Default for KernelSource {
    fn default() -> Self {
        Self::Named(KernelName::default())
    }
}

/// A text that is neither the name of a kernel nor the path of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kernel {text:?}: use 6.1, 6.12, newest, or the path of a kernel image (vmlinuz)")]
pub struct UnknownKernel {
    text: String,
}

impl FromStr for KernelSource {
    type Err = UnknownKernel;

    fn from_str(text: &str) -> Result<Self, UnknownKernel> {
        if let Some(name) = KernelName::ALL.into_iter().find(|name| name.as_str() == text) {
            return Ok(Self::Named(name));
        }
        match path::absolute(text) {
            Ok(path) if path.is_file() => Ok(Self::Image(path)),
            _ => Err(UnknownKernel { text: text.to_owned() }),
        }
    }
}

/// The device over which the guest's agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The second serial port: in every kernel, and slow.
    Serial,
    /// A virtio port: fast, and in need of drivers.
    Virtio,
}

impl Port {
    /// Its path in the guest.
    pub(crate) const fn device(self) -> &'static str {
        match self {
            Self::Serial => agent::init::SERIAL_PORT,
            Self::Virtio => agent::init::VIRTIO_PORT,
        }
    }

    /// Bytes that may be under way to the guest at a time. The guest's tty drops what comes while
    /// its buffer of 64 KiB is full, each byte with a flag beside it.
    pub(crate) const fn input_window(self) -> usize {
        match self {
            Self::Serial => 16 << 10,
            Self::Virtio => 256 << 10,
        }
    }
}

/// A kernel to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// Modules that the agent loads, in this order.
    pub modules: Vec<PathBuf>,
    /// The port that it can serve.
    pub port: Port,
}

impl Kernel {
    /// The kernel that a user has given: nothing is known of its drivers.
    pub(crate) fn of_image(image: &Path) -> Self {
        Self { image: image.to_owned(), modules: Vec::new(), port: Port::Serial }
    }
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No folder to keep kernels in.
    #[error("no folder for kernels: set XDG_CACHE_HOME, HOME, or PAGETIDE_KERNEL_DIR")]
    NoFolder,
    /// The folder given by the user has not got this one.
    #[error(
        "no kernel {name} in PAGETIDE_KERNEL_DIR: there is no {path}, or it is empty",
        path = path.display()
    )]
    NotInFolder {
        /// The kernel.
        name: KernelName,
        /// The file that should be there.
        path: PathBuf,
    },
    /// The store cannot be written or read.
    #[error("cannot keep kernel {name} in {path}: {reason}", path = path.display())]
    Store {
        /// The kernel.
        name: KernelName,
        /// The folder.
        path: PathBuf,
        /// What the kernel of this computer said.
        reason: io::Error,
    },
    /// The package holds no kernel where Debian puts it.
    #[error("package {package} holds no vmlinuz")]
    NoImage {
        /// The package.
        package: String,
    },
    /// apt or dpkg failed.
    #[error(
        "cannot fetch kernel {name}: {reason}; without a network, give --kernel the path of a vmlinuz"
    )]
    Fetch {
        /// The kernel.
        name: KernelName,
        /// What failed.
        reason: AptError,
    },
}

/// Drivers of the virtio port, each after those that it needs.
const PORT_MODULES: [&str; 6] = [
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_pci_legacy_dev.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_pci.ko",
    "virtio_console.ko",
];

/// The store of kernels.
#[derive(Clone, Debug)]
pub struct KernelStore {
    folder: PathBuf,
    /// False for a store that somebody else keeps.
    may_fetch: bool,
}

impl KernelStore {
    /// The store of this user: `PAGETIDE_KERNEL_DIR`, else `pagetide/kernels` in the XDG cache
    /// folder.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoFolder`].
    pub fn of_this_user() -> Result<Self, KernelError> {
        if let Some(folder) = env::var_os("PAGETIDE_KERNEL_DIR") {
            return Ok(Self { folder: folder.into(), may_fetch: false });
        }
        let cache = cache_folder().ok_or(KernelError::NoFolder)?;
        Ok(Self { folder: cache.join("kernels"), may_fetch: true })
    }

    /// The kernel; `note` is told when it has to be fetched, which takes a network and some time.
    ///
    /// # Errors
    ///
    /// [`KernelError`].
    pub fn get(
        &self,
        source: &KernelSource,
        note: &mut dyn FnMut(&str),
    ) -> Result<Kernel, KernelError> {
        match source {
            KernelSource::Image(image) => Ok(Kernel::of_image(image)),
            KernelSource::Named(name) => self.named(*name, note),
        }
    }

    fn named(&self, name: KernelName, note: &mut dyn FnMut(&str)) -> Result<Kernel, KernelError> {
        let folder = self.folder.join(name.as_str());
        if let Some(kernel) = in_folder(&folder) {
            return Ok(kernel);
        }
        if !self.may_fetch {
            return Err(KernelError::NotInFolder { name, path: folder.join("vmlinuz") });
        }
        let failed = |reason| KernelError::Store { name, path: self.folder.clone(), reason };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        // Held until this function returns: of two that want the same kernel, one fetches it.
        let lock = File::create(self.folder.join("lock")).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        if let Some(kernel) = in_folder(&folder) {
            return Ok(kernel);
        }
        let aside = self.folder.join("aside");
        let made = make_anew(&aside).map_err(failed)?;
        let package = fetch(name, &aside, note).and_then(|package| {
            fill(&made, &aside.join("package"), &package).map_err(failed)?;
            Ok(package)
        });
        let kept = package.and_then(|package| match in_folder(&made) {
            Some(_) => settle(&made, &folder).map_err(failed),
            None => Err(KernelError::NoImage { package }),
        });
        // What stays is removed by the next fetch.
        let _ = fs::remove_dir_all(&aside);
        kept?;
        in_folder(&folder).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }
}

/// The folder in which pagetide may keep what it can make again.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or(absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("pagetide"))
}

fn in_folder(folder: &Path) -> Option<Kernel> {
    let image = folder.join("vmlinuz");
    let modules = PORT_MODULES.map(|name| folder.join("modules").join(name));
    let whole = fs::metadata(&image).is_ok_and(|found| found.is_file() && found.len() > 0);
    whole.then(|| Kernel {
        image,
        modules: modules.into_iter().filter(|module| module.exists()).collect(),
        port: Port::Virtio,
    })
}

/// Makes `aside`, without what an interrupted fetch has left in it, and a folder for the kernel.
fn make_anew(aside: &Path) -> io::Result<PathBuf> {
    if aside.exists() {
        fs::remove_dir_all(aside)?;
    }
    let made = aside.join("kernel");
    fs::create_dir_all(&made)?;
    Ok(made)
}

/// Unpacks the newest package of this name into `aside/package`; its name and version.
fn fetch(
    name: KernelName,
    aside: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<String, KernelError> {
    let failed = |reason| KernelError::Fetch { name, reason };
    note(&format!("fetching kernel {name} from Debian's archive, once"));
    let apt = Apt::open(&aside.join("apt"), name.suites()).map_err(failed)?;
    let names = apt.packages("linux-").map_err(failed)?;
    let missing = || AptError::NoPackage { suites: name.suites().join(", ") };
    let package = newest(&names, name.version()).ok_or_else(missing).map_err(failed)?;
    note(&format!("unpacking {package}"));
    apt.unpack(&package, &aside.join("package")).map_err(failed)?;
    Ok(package)
}

/// The package that holds the newest cloud kernel whose version begins with `prefix`.
fn newest(packages: &[String], prefix: &[u64]) -> Option<String> {
    let version_of = |package: &str| {
        let text = package.strip_prefix("linux-image-")?.strip_suffix("-cloud-amd64")?;
        let numbers: Vec<u64> = text
            .split(|digit: char| !digit.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        // Two numbers are the name of a package that holds nothing but a dependency.
        let is_kernel = text.starts_with(|first: char| first.is_ascii_digit()) && numbers.len() > 2;
        (is_kernel && numbers.starts_with(prefix)).then(|| (numbers, text.to_owned()))
    };
    let (_, version) = packages.iter().filter_map(|package| version_of(package)).max()?;
    // Newer packages are split: the image is in one of its own, on which the other depends.
    let split = format!("linux-binary-{version}-cloud-amd64");
    let whole = format!("linux-image-{version}-cloud-amd64");
    Some(if packages.contains(&split) { split } else { whole })
}

/// Copies what the lab keeps out of an unpacked package.
fn fill(folder: &Path, package: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(folder.join("modules"))?;
    fs::write(folder.join("package"), format!("{name}\n"))?;
    for file in files_below(package)? {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
        if name == "vmlinuz" || name.starts_with("vmlinuz-") {
            fs::copy(&file, folder.join("vmlinuz"))?;
        } else if PORT_MODULES.contains(&name) {
            fs::copy(&file, folder.join("modules").join(name))?;
        }
    }
    Ok(())
}

/// Puts a kernel that is complete where it is looked for, in place of a folder that is not. Its files are
/// on the disk before it has its name. The lock is held.
fn settle(made: &Path, folder: &Path) -> io::Result<()> {
    for file in files_below(made)? {
        File::open(file)?.sync_all()?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(made, folder),
    }
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_kernel_is_chosen_by_number_and_not_by_letter() {
        let names = packages(&[
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-cloud-amd64-dbg",
            "linux-image-6.1.0-59-amd64",
            "linux-image-6.12.100+deb12-cloud-amd64",
            "linux-image-cloud-amd64",
        ]);
        assert_eq!(newest(&names, &[6, 1]).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
    }

    #[test]
    fn a_package_that_only_depends_on_the_kernel_is_not_taken_for_it() {
        let names = packages(&["linux-image-6.12-cloud-amd64", "linux-image-6.12.9-cloud-amd64"]);
        assert_eq!(newest(&names, &[6, 12]).unwrap(), "linux-image-6.12.9-cloud-amd64");
        assert_eq!(newest(&names[..1], &[6, 12]), None);
    }

    #[test]
    fn of_a_split_package_the_part_with_the_image_is_chosen() {
        let names = packages(&[
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
        ]);
        assert_eq!(newest(&names, &[]).unwrap(), "linux-binary-7.3.4+deb13-cloud-amd64");
    }

    #[test]
    fn only_the_image_and_the_drivers_of_the_port_are_kept_of_a_package() {
        let aside = tempfile::tempdir().unwrap();
        let package = aside.path().join("package");
        let drivers = package.join("lib/modules/6.1.0/kernel/drivers/virtio");
        fs::create_dir_all(&drivers).unwrap();
        fs::create_dir_all(package.join("boot")).unwrap();
        fs::write(package.join("boot/vmlinuz-6.1.0"), "image").unwrap();
        fs::write(package.join("boot/config-6.1.0"), "config").unwrap();
        fs::write(drivers.join("virtio_ring.ko"), "ring").unwrap();
        fs::write(drivers.join("virtio_balloon.ko"), "balloon").unwrap();
        let folder = aside.path().join("6.1");
        fill(&folder, &package, "linux-image-6.1.0").unwrap();
        let kernel = in_folder(&folder).unwrap();
        assert_eq!(fs::read(kernel.image).unwrap(), b"image");
        assert_eq!(kernel.modules, [folder.join("modules/virtio_ring.ko")]);
        assert!(!folder.join("modules/virtio_balloon.ko").exists());
    }

    #[test]
    fn an_image_without_content_is_no_kernel() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vmlinuz"), "").unwrap();
        assert_eq!(in_folder(folder.path()), None);
    }

    #[test]
    fn a_fetched_kernel_takes_the_place_of_a_folder_without_one() {
        let store = tempfile::tempdir().unwrap();
        let (made, folder) = (store.path().join("aside"), store.path().join("6.1"));
        for (folder, file) in [(&made, "vmlinuz"), (&folder, "package")] {
            fs::create_dir_all(folder.join("modules")).unwrap();
            fs::write(folder.join(file), "content").unwrap();
        }
        settle(&made, &folder).unwrap();
        assert!(in_folder(&folder).is_some());
        assert!(!folder.join("package").exists() && !made.exists());
        // The usual case: nothing is there.
        fs::rename(&folder, &made).unwrap();
        settle(&made, &folder).unwrap();
        assert!(in_folder(&folder).is_some());
    }

    #[test]
    fn a_kernel_is_a_name_or_a_file_and_anything_else_is_told_what_it_could_be() {
        assert_eq!("6.12".parse(), Ok(KernelSource::Named(KernelName::V6_12)));
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = file.path().to_str().unwrap();
        assert_eq!(text.parse(), Ok(KernelSource::Image(file.path().to_owned())));
        assert_eq!(
            "5.4".parse::<KernelSource>().unwrap_err().to_string(),
            "no kernel \"5.4\": use 6.1, 6.12, newest, or the path of a kernel image (vmlinuz)"
        );
    }

    #[test]
    fn a_store_that_somebody_else_keeps_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = KernelStore { folder: folder.path().to_owned(), may_fetch: false };
        let error = store.get(&KernelSource::default(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, KernelError::NotInFolder { name: KernelName::V6_12, .. }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
