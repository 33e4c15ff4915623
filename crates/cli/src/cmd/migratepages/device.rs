//! The node of a device, as libnuma finds it, for node strings such as `netdev:eth0`.
//!
//! What cannot be found is said in libnuma's words, which are part of what the drop-in keeps: they
//! end up behind `libnuma: Warning: ` on stderr. libnuma looks for the PCI device that a class
//! device hangs on and asks for its `numa_node`: the first one on the path, so a bridge rather than
//! what is behind it.
//!
//! Source: behaviour of libnuma 2.0.16 (`resolve_affinity`), seen on 6.1 and 6.18.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use machine::{Device, NodeId, NodeSet};
use rustix::fs::{major, minor};

use super::{route, warn};

/// The node that a device is on. `allowed` is how many nodes the caller may use: libnuma takes a
/// number beyond that count for no node.
pub(super) fn node_of(device: Device<'_>, allowed: usize) -> Result<NodeSet, OsString> {
    let lookup = Lookup { allowed };
    match device {
        Device::Net(name) => lookup.class("net", name),
        Device::Block(name) => lookup.class("block", name),
        Device::File(path) => lookup.file(path),
        Device::Pci(address) => lookup.pci(address),
        Device::Ip(host) => lookup.class("net", &route::interface_to(host)?),
    }
}

struct Lookup {
    allowed: usize,
}

/// Why there is no node: two cases that libnuma tells apart.
enum NoNode {
    /// `numa_node` holds -1.
    Unknown,
    /// It cannot be read, or holds no node that the caller may use.
    Unreadable,
}

impl Lookup {
    fn class(&self, class: &str, name: &OsStr) -> Result<NodeSet, OsString> {
        let name = OsStr::from_bytes(name.as_bytes().trim_ascii_start());
        if name.as_bytes().iter().any(|byte| b"/.".contains(byte)) {
            return Err(quoted("Illegal characters in `", name, "' specification"));
        }
        let link = Path::new("/sys/class").join(class).join(name);
        if let Some(device) = fs::read_link(&link).ok().as_deref().and_then(pci_device) {
            let file = format!("/sys{device}numa_node");
            return self.read(file.as_ref()).map_err(|no| no.reason("", device.as_ref()));
        }
        self.read(&link.join("device/numa_node")).map_err(|no| no.reason(class, name))
    }

    fn file(&self, path: &OsStr) -> Result<NodeSet, OsString> {
        let Ok(file) = fs::metadata(path) else {
            return Err(quoted("Cannot stat file ", path, ""));
        };
        let kind = file.file_type();
        let class = if kind.is_char_device() { "misc" } else { "block" };
        let is_device = kind.is_char_device() || kind.is_block_device();
        let number = if is_device { file.rdev() } else { file.dev() };
        let folder = Path::new("/sys/class").join(class);
        let Ok(devices) = fs::read_dir(&folder) else {
            return Err(format!("Cannot enumerate {class} devices in sysfs").into());
        };
        let mut last_seen = (0, 0);
        let mut has_warned = false;
        for name in devices.flatten().map(|device| device.file_name()) {
            match device_number(&name) {
                Some(seen) if seen == (major(number), minor(number)) => {
                    return self.class("block", &name);
                }
                Some(seen) => last_seen = seen,
                None if has_warned => {}
                None => {
                    warn(&quoted("Cannot parse sysfs device ", &name, ""));
                    has_warned = true;
                }
            }
        }
        let (major, minor) = last_seen;
        let found = format!("Cannot find block device {major:x}:{minor:x} in sysfs for `");
        Err(quoted(&found, path, "'"))
    }

    fn pci(&self, address: &OsStr) -> Result<NodeSet, OsString> {
        let [segment, bus, device, function] = pci_address(address.as_bytes())
            .ok_or_else(|| quoted("Cannot parse PCI device `", address, "'"))?;
        let file = format!(
            "/sys/devices/pci{segment:04x}:{bus:02x}/\
             {segment:04x}:{bus:02x}:{device:02x}.{function:x}/numa_node"
        );
        self.read(file.as_ref()).map_err(|no| no.reason("", address))
    }

    fn read(&self, file: &Path) -> Result<NodeSet, NoNode> {
        let text = fs::read_to_string(file).map_err(|_| NoNode::Unreadable)?;
        let number: i64 = text.trim().parse().map_err(|_| NoNode::Unreadable)?;
        if number < 0 {
            return Err(NoNode::Unknown);
        }
        let node = u16::try_from(number).ok().and_then(NodeId::new);
        let node = node.filter(|node| node.index() < self.allowed).ok_or(NoNode::Unreadable)?;
        Ok(NodeSet::only(node))
    }
}

impl NoNode {
    fn reason(&self, class: &str, device: &OsStr) -> OsString {
        let space = if class.is_empty() { "" } else { " " };
        let before = match self {
            Self::Unknown => format!("Kernel does not know node mask for{space}{class} device `"),
            Self::Unreadable => format!("Cannot read node mask for {class} device `"),
        };
        quoted(&before, device, "'")
    }
}

fn quoted(before: &str, quoted: &OsStr, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(quoted);
    text.push(after);
    text
}

/// `/devices/pci0000:00/0000:00:03.0/` of the link of a class device, if it hangs on a PCI device.
fn pci_device(link: &Path) -> Option<String> {
    let link = link.to_str()?;
    let device = &link[link.find("/devices/pci")?..];
    let bus_end = device.find('.')?;
    let is_bus = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'/';
    let bus = device[..bus_end].strip_prefix("/devices/pci")?;
    let function_end = bus_end + device[bus_end..].find('/')?;
    let function = &device[bus_end + 1..function_end];
    let fits = !bus.is_empty()
        && bus.bytes().all(is_bus)
        && !function.is_empty()
        && function.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| device[..=function_end].to_owned())
}

/// `[SEG:]BUS:DEV[.FUNC]`, in hexadecimal; what follows is ignored.
fn pci_address(text: &[u8]) -> Option<[u32; 4]> {
    match *scan_hex(text, b"::.") {
        [segment, bus, device] => Some([segment, bus, device, 0]),
        [segment, bus, device, function] => Some([segment, bus, device, function]),
        _ => match *scan_hex(text, b":.") {
            [bus, device] => Some([0, bus, device, 0]),
            [bus, device, function] => Some([0, bus, device, function]),
            _ => None,
        },
    }
}

/// Hexadecimal numbers with these separators between them, as many as can be read.
fn scan_hex(text: &[u8], separators: &[u8]) -> Vec<u32> {
    let mut rest = text;
    let mut numbers = Vec::new();
    for separator in separators.iter().map(Some).chain([None]) {
        rest = rest.trim_ascii_start();
        let length = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let digits = str::from_utf8(&rest[..length]).unwrap_or_default();
        let Ok(number) = u32::from_str_radix(digits, 16) else { break };
        numbers.push(number);
        match (&rest[length..], separator) {
            ([first, next @ ..], Some(separator)) if first == separator => rest = next,
            _ => break,
        }
    }
    numbers
}

/// Major and minor number of a block device, from its `dev` file.
fn device_number(name: &OsStr) -> Option<(u32, u32)> {
    let file: PathBuf = Path::new("/sys/class/block").join(name).join("dev");
    let text = fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pci_device_on_the_path_is_taken() {
        for (link, device) in [
            (
                "../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0",
                Some("/devices/pci0000:00/0000:00:03.0/"),
            ),
            (
                "../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net/eth1",
                Some("/devices/pci0000:00/0000:00:1c.0/"),
            ),
            ("../../devices/virtual/net/lo", None),
            ("../../devices/pci0000:00/x:03.0/net/eth0", None),
            ("../../devices/pci0000:00/0000:00:03.0", None),
        ] {
            assert_eq!(pci_device(Path::new(link)).as_deref(), device, "{link}");
        }
    }

    #[test]
    fn segment_and_function_of_a_pci_address_may_be_left_out() {
        for (text, address) in [
            ("0001:3a:1f.2", Some([1, 0x3a, 0x1f, 2])),
            ("0001:3a:1f", Some([1, 0x3a, 0x1f, 0])),
            ("3a:1f.2", Some([0, 0x3a, 0x1f, 2])),
            ("3a:1f", Some([0, 0x3a, 0x1f, 0])),
            ("3a:1f.zz", Some([0, 0x3a, 0x1f, 0])),
            ("3a", None),
            ("zz", None),
            ("", None),
        ] {
            assert_eq!(pci_address(text.as_bytes()), address, "{text}");
        }
    }
}
