//! Guests that the tests share: each machine with each kernel is booted once.
//!
//! They live as long as the test binary; each QEMU dies with it. A guest serves one test at a time,
//! since tests fill nodes and write sysctls. At most six are booted, of 2 GiB each.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lab::{Accel, Guest, GuestConfig, Image, KernelStore, Output};
use machine::Topology;

/// Far above what all tests take; a guest that hangs ends with it.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// A booted machine.
pub(crate) struct Host {
    pub(crate) guest: &'static Guest,
    /// No guest, but the agent under `pagetide run`.
    pub(crate) is_emulated: bool,
    /// The target program there.
    pub(crate) target: &'static str,
    /// What plays scripts there.
    pub(crate) subject: &'static str,
}

/// Who starts `pagetide run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Starter {
    Root,
    /// User nobody, who may make user namespaces where this computer lets users do so.
    User,
    /// Root of a container: without a capability, and without the right to make a namespace.
    Contained,
}

impl Starter {
    pub(crate) const ALL: [Self; 3] = [Self::Root, Self::User, Self::Contained];

    /// What starts a command so.
    fn words(self) -> Vec<&'static str> {
        match self {
            Self::Root => vec![],
            Self::User => {
                vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            }
            Self::Contained => pagetide_tests::contained(),
        }
    }
}

/// The booted machine of this name (as built in, with `_` for `-`) with this kernel, for one test. A guest
/// that has died is replaced, so that one death fails one test.
pub(crate) fn host(machine: &'static str, kernel: &'static str) -> MutexGuard<'static, Host> {
    let booted =
        slot((machine, kernel, None)).get_or_init(|| Mutex::new(Host::boot(machine, kernel)));
    // A test that failed poisons the lock; what it started has been ended all the same.
    let mut host = booted.lock().unwrap_or_else(PoisonError::into_inner);
    if host.guest.death().is_some() {
        *host = Host::boot(machine, kernel);
    }
    host.write("/proc/sys/kernel/numa_balancing", "0");
    host
}

/// The emulated machine of this name, for one test.
pub(crate) fn emulated(machine: &'static str, starter: Starter) -> MutexGuard<'static, Host> {
    let slot = slot((machine, "6.12", Some(starter)));
    let started = slot.get_or_init(|| Mutex::new(Host::emulate(machine, starter)));
    started.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine, a kernel, and who emulates it, if it is no guest.
type Key = (&'static str, &'static str, Option<Starter>);
type Slot = OnceLock<Mutex<Host>>;

fn slot(key: Key) -> &'static Slot {
    static SLOTS: Mutex<BTreeMap<Key, &Slot>> = Mutex::new(BTreeMap::new());
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    slots.entry(key).or_insert_with(|| Box::leak(Box::default()))
}

impl Host {
    fn boot(machine: &str, kernel: &str) -> Self {
        // Its path in the guest is its path here, and /usr/bin/migratepages is ours there.
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("migratepages");
        fs::copy("/usr/bin/migratepages", &theirs)
            .expect("numactl is installed: apt install numactl");
        let mut files: Vec<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
        files.extend([TARGET, SUBJECT].map(PathBuf::from));
        files.push(theirs.clone());
        files.extend(python_modules());
        let guest = Box::leak(Box::new(boot(built_in(machine), kernel, &files, "")));
        let host = Self { guest, is_emulated: false, target: TARGET, subject: SUBJECT };
        host.sh(&format!("mkdir /root/theirs /root/ours && mv {} /root/theirs", theirs.display()));
        host.sh("ln -s /usr/bin/pagetide /root/ours/migratepages");
        host
    }

    /// The agent under `pagetide run`, in a mount namespace of its own: our programs are where everybody
    /// finds them, and `/root` and `/dev/shm` are everybody's, and of this host alone.
    fn emulate(machine: &str, starter: Starter) -> Self {
        const STAGE: &str = "mount --bind \"$0\" /mnt && mount --bind \"$1\" /root && \
                             mount -t tmpfs shm /dev/shm && shift && exec \"$@\"";
        let name = format!("{}-{starter:?}", machine.replace('_', "-"));
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o1777)).unwrap();
        let binary = pagetide_binary();
        let folder = binary.parent().expect("a file is in a folder");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", STAGE]).arg(folder).arg(home).args(starter.words());
        // Last, since who becomes somebody else loses the signal.
        command.args(["setpriv", "--pdeathsig", "KILL", "--", "/mnt/pagetide"]);
        command.args(["run", "--machine", &machine.replace('_', "-"), "--", "/mnt/pagetide-agent"]);
        command.env("PATH", format!("/mnt:{}", env::var("PATH").unwrap())).env("HOME", "/root");
        let guest = Guest::attach(&name, command, TIME_LIMIT);
        let guest = Box::leak(Box::new(guest.unwrap_or_else(|error| panic!("{error}"))));
        let (target, subject) = ("/mnt/pagetide-target", "/mnt/numa-subject");
        Self { guest, is_emulated: true, target, subject }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.guest.run(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs a line of shell that must succeed, and gives what it printed.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.run(&["sh", "-c", line]);
        assert_eq!(output.code, 0, "{line}: {}", output.stderr_text());
        output.stdout_text().into_owned()
    }

    /// What starts a command as a user without a capability, who has a home of his own.
    pub(crate) fn as_user(&self) -> [&'static str; 5] {
        self.sh("mkdir -p /home/user && chown 1000 /home/user");
        ["env", "HOME=/home/user", self.target, "as-user", "1000"]
    }

    /// Writes a line to a file of the guest's kernel.
    pub(crate) fn write(&self, path: &str, text: &str) {
        self.sh(&format!("echo '{text}' > {path}"));
    }

    /// Runs `pagetide` with these words to its end.
    pub(crate) fn pagetide(&self, words: &str) -> Output {
        let words = ["pagetide"].into_iter().chain(words.split(' '));
        self.run(&words.collect::<Vec<_>>())
    }
}

/// The machine of this name, with `_` for `-`.
pub(crate) fn built_in(machine: &str) -> Topology {
    machine::load(&machine.replace('_', "-")).unwrap()
}

/// Boots this machine with this kernel, these programs and files, and these words for the kernel.
pub(crate) fn boot(topology: Topology, kernel: &str, files: &[PathBuf], cmdline: &str) -> Guest {
    let store = KernelStore::of_this_user().unwrap();
    let kernel = store.get(&kernel.parse().unwrap(), &mut |_| ()).unwrap();
    let mut image = Image::new(&pagetide_binary()).unwrap();
    for (number, module) in kernel.modules.iter().enumerate() {
        image.add_module(number, module).unwrap();
    }
    for file in files {
        image.add(file.as_os_str()).unwrap_or_else(|error| panic!("{error}"));
    }
    let config = GuestConfig {
        topology,
        kernel,
        image,
        accel: Accel::default(),
        time_limit: TIME_LIMIT,
        extra_cmdline: cmdline.to_owned(),
    };
    Guest::boot(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// Programs whose output in a guest is compared with that under `pagetide run`.
const PROGRAMS: [&str; 12] = [
    "numactl",
    "numastat",
    "memhog",
    "migspeed",
    "taskset",
    "lscpu",
    "lstopo-no-graphics",
    "hwloc-bind",
    "hwloc-calc",
    "stress-ng",
    "redis-server",
    "/usr/bin/python3",
];

/// What Python must read before it runs a line that imports nothing but what is built in.
fn python_modules() -> [PathBuf; 3] {
    let version = fs::read_link("/usr/bin/python3").expect("Debian's Python is installed");
    let encodings = Path::new("/usr/lib").join(version).join("encodings");
    ["__init__.py", "aliases.py", "utf_8.py"].map(|name| encodings.join(name))
}

/// The target program, here and in a guest.
const TARGET: &str = env!("CARGO_BIN_EXE_pagetide-target");
/// What plays scripts under `pagetide run`.
const SUBJECT: &str = env!("CARGO_BIN_EXE_numa-subject");
/// `pagetide` of the same profile. It is the binary of another package, so cargo does not build it
/// for these tests.
pub(crate) fn pagetide_binary() -> PathBuf {
    let path = Path::new(TARGET).with_file_name("pagetide");
    assert!(path.is_file(), "no {}: run `cargo build -p pagetide-cli` first", path.display());
    path
}
