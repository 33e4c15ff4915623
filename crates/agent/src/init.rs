//! Process 1 of a lab guest.
//!
//! Called by the `pagetide` binary, and only when it is process 1. It mounts what programs expect,
//! loads the modules that the lab packed, opens the port that the lab named on the kernel's
//! command line, and serves until the lab says enough or is gone; then it switches the guest off.
//!
//! It writes nothing but complaints, and those to the console, which the lab keeps and shows when
//! a guest fails.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;
use std::{env, thread};

use rustix::fs::OFlags;
use rustix::system::{RebootCommand, finit_module, reboot, sethostname};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::job::Environment;
use crate::mounts::{mount_all, report};
use crate::serve::serve;

/// Word of the kernel's command line that names the port's device; the kernel hands words that it
/// does not know to process 1 as environment.
pub const PORT_VARIABLE: &str = "pagetide_port";
/// The second serial port, which every kernel has.
pub const SERIAL_PORT: &str = "/dev/ttyS1";
/// The first port of a virtio console: a hundred times faster, where the kernel has the driver.
pub const VIRTIO_PORT: &str = "/dev/vport0p1";
/// Folder of the modules that are loaded before the port is opened, in the order of their names.
pub const MODULES: &str = "/lib/pagetide";

/// Runs the guest, and switches it off at the end. Must be process 1.
pub fn run() -> ! {
    mount_all();
    report("set the host name", sethostname(b"lab"));
    report("load modules", load_modules());
    report("bring up the loopback device", bring_up_loopback());
    report("serve the lab", open_port().and_then(|port| serve(port, Environment::Guest)));
    report("power off", reboot(RebootCommand::PowerOff));
    #[expect(clippy::exit, reason = "the end of process 1 panics the kernel: the lab sees that")]
    process::exit(1)
}

fn load_modules() -> io::Result<()> {
    let Ok(folder) = fs::read_dir(MODULES) else { return Ok(()) };
    let mut paths = folder.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    for path in paths {
        let what = format!("load {}", path.display());
        report(&what, File::open(&path).and_then(|file| Ok(finit_module(file, c"", 0)?)));
    }
    Ok(())
}

/// By busybox, which has the ioctl: ours would be unsafe code for one line of setup.
fn bring_up_loopback() -> io::Result<()> {
    Command::new("/usr/bin/busybox").args(["ifconfig", "lo", "up"]).status().map(drop)
}

fn open_port() -> io::Result<File> {
    let path = env::var(PORT_VARIABLE).unwrap_or_else(|_| SERIAL_PORT.to_owned());
    let port = wait_for(Path::new(&path))?;
    if rustix::termios::isatty(&port) {
        make_raw(&port)?;
    }
    Ok(port)
}

/// Opens a device; waits for one that its driver has not made yet.
fn wait_for(path: &Path) -> io::Result<File> {
    let noctty = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(noctty);
    const TRIES: u32 = 500;
    for _ in 1..TRIES {
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
    options.open(path)
}

/// Bytes pass as they are: no echo, no line editing, no signals from characters.
fn make_raw(port: &File) -> io::Result<()> {
    let mut attributes = tcgetattr(port)?;
    attributes.make_raw();
    Ok(tcsetattr(port, OptionalActions::Flush, &attributes)?)
}
