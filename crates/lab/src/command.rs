//! `pagetide lab`: boot a guest for one command, or for a shell, and give back its exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use agent::protocol::Command;
use anyhow::{Context, ensure};
use machine::Topology;
use signal_hook::consts::SIGWINCH;

use crate::guest::{Guest, GuestConfig};
use crate::image::Image;
use crate::kernels::{Kernel, KernelSource, KernelStore};
use crate::kvm;
use crate::qemu::Accel;
use crate::run::{Control, Input};
use crate::terminal::{self, RawTerminal};

/// Time limit of a guest when nobody gives one.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(600);

/// What the guest of a command should be.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// The machine.
    pub topology: Topology,
    /// The kernel.
    pub kernel: KernelSource,
    /// Programs of this computer that the guest should have, by name or path.
    pub with: Vec<OsString>,
    /// What the CPUs are made of. [`Accel::Kvm`] is refused where a probe boot fails.
    pub accel: Accel,
    /// The guest is killed after this time.
    pub time_limit: Duration,
    /// The `pagetide` binary for the guest.
    pub pagetide: PathBuf,
    /// More words for the kernel's command line.
    pub extra_cmdline: String,
}

impl LabOptions {
    /// The running binary in a guest of this machine, and a default for everything else.
    ///
    /// # Errors
    ///
    /// When the running binary cannot be found.
    pub fn new(topology: Topology) -> anyhow::Result<Self> {
        let pagetide = env::current_exe().context("cannot find the running binary")?;
        Ok(Self {
            topology,
            kernel: KernelSource::default(),
            with: Vec::new(),
            accel: Accel::default(),
            time_limit: DEFAULT_TIME_LIMIT,
            pagetide,
            extra_cmdline: String::new(),
        })
    }

    /// Boots such a guest; `argv[0]` is packed too, and changed to how it is called there. `note`
    /// hears of what takes long: the fetching of a kernel.
    ///
    /// # Errors
    ///
    /// One line for what is missing or went wrong; the console's last lines when the guest failed.
    pub fn boot(&self, argv: &mut [OsString], note: &mut dyn FnMut(&str)) -> anyhow::Result<Guest> {
        let kernel = match &self.kernel {
            KernelSource::Image(image) => Kernel::of_image(image),
            // Only here a folder for kernels is needed.
            named => KernelStore::of_this_user()?.get(named, note)?,
        };
        let mut image = Image::new(&self.pagetide)?;
        for name in &self.with {
            image.add(name)?;
        }
        if let Some(program) = argv.first_mut() {
            *program = image.add_command(program)?;
        }
        for (number, module) in kernel.modules.iter().enumerate() {
            image.add_module(number, module)?;
        }
        ensure!(
            self.accel != Accel::Kvm || kvm::boots(&kernel, &image),
            "a probe boot with KVM failed on this computer: leave KVM out"
        );
        let guest = Guest::boot(&GuestConfig {
            topology: self.topology.clone(),
            kernel,
            image,
            accel: self.accel,
            time_limit: self.time_limit,
            extra_cmdline: self.extra_cmdline.clone(),
        })?;
        Ok(guest)
    }
}

/// Where a command's bytes come from and go to.
pub struct Streams<'a> {
    /// Its input; read on a thread of its own, which may outlive the command.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// For its output.
    pub stdout: &'a mut dyn Write,
    /// For its errors, and for notes of what takes long.
    pub stderr: &'a mut dyn Write,
}

/// Boots a guest, runs one command in it, and switches it off. The command's exit code, as a shell
/// gives it.
///
/// # Errors
///
/// See [`LabOptions::boot`]. A command that fails is no error.
pub fn run_command(
    options: &LabOptions,
    argv: &[OsString],
    streams: Streams<'_>,
) -> anyhow::Result<u8> {
    let mut argv = argv.to_vec();
    let guest = options.boot(&mut argv, &mut |text| note(streams.stderr, text))?;
    let mut running = guest.start(Command::new(&argv))?;
    if let (Some(stdin), Some(input)) = (streams.stdin, running.take_input()) {
        thread::spawn(move || feed(stdin, input));
    }
    let code = running.wait(streams.stdout, streams.stderr)?;
    guest.power_off()?;
    Ok(code)
}

/// Boots a guest and gives it the user's terminal: for `argv`, or a shell when that is empty. The
/// exit code, as a shell gives it.
///
/// # Errors
///
/// See [`LabOptions::boot`].
pub fn interactive(options: &LabOptions, argv: &[OsString]) -> anyhow::Result<u8> {
    let mut argv = argv.to_vec();
    if argv.is_empty() {
        argv.push("sh".into());
    }
    let guest = options.boot(&mut argv, &mut |text| note(&mut io::stderr(), text))?;
    let mut running = guest.start(Command {
        env: vec![(
            b"TERM".to_vec(),
            env::var_os("TERM").unwrap_or("linux".into()).into_encoded_bytes(),
        )],
        cwd: b"/root".to_vec(),
        terminal: Some(terminal::size()),
        ..Command::new(&argv)
    })?;
    let raw = RawTerminal::new().context("cannot switch the terminal to raw mode")?;
    follow_size(running.control()).context("cannot watch the terminal's size")?;
    if let Some(input) = running.take_input() {
        thread::spawn(move || feed(io::stdin(), input));
    }
    let code = running.wait(&mut io::stdout(), &mut io::stderr())?;
    drop(raw);
    guest.power_off()?;
    Ok(code)
}

/// Copies until either end is closed; neither is an error of ours.
fn feed(mut from: impl Read, mut to: Input) {
    let mut buffer = vec![0; agent::port::CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Tells the guest whenever the size of our terminal changes.
fn follow_size(control: Control) -> io::Result<()> {
    let (mut changes, signal) = io::pipe()?;
    signal_hook::low_level::pipe::register(SIGWINCH, signal)?;
    thread::spawn(move || {
        while let Ok(1..) = changes.read(&mut [0; 16]) {
            if control.resize(terminal::size()).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Says something that is nice to know; who cannot be told does not want to know.
fn note(to: &mut dyn Write, text: &str) {
    let _ = writeln!(to, "pagetide lab: {text}");
}
