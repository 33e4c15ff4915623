//! The network interface of the route to a host, for node strings such as `ip:192.0.2.1`.
//!
//! Asks the kernel over rtnetlink, as `ip route get` does: one request, one answer. Both are a
//! header, a fixed part and attributes, all in the byte order of this machine:
//!
//! ```text
//! nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32
//! rtmsg:    family u8, prefix length u8, ten more bytes
//! rtattr:   length u16, type u16, value, padding to four bytes
//! ```
//!
//! Source: netlink(7), rtnetlink(7).

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};

use rustix::net::netdevice::index_to_name;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// Bytes of nlmsghdr and rtmsg together.
const HEADER_BYTES: usize = 16 + 12;

/// Name of the interface over which packets to `host` leave; else what libnuma says.
pub(super) fn interface_to(host: &OsStr) -> Result<OsString, OsString> {
    let index = interface_index(resolve(host)?)?;
    let name = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| index_to_name(socket, index));
    name.map(OsString::from).map_err(|_| format!("Cannot resolve network interface {index}").into())
}

fn resolve(host: &OsStr) -> Result<IpAddr, OsString> {
    let host = host.to_string_lossy();
    let unresolved = |reason: &str| format!("Cannot resolve {host}: {reason}").into();
    match (host.as_ref(), 0).to_socket_addrs() {
        Ok(mut addresses) => match addresses.next() {
            Some(address) => Ok(address.ip()),
            None => Err(unresolved("Name or service not known")),
        },
        Err(error) => {
            let reason = error.to_string();
            let library = reason.strip_prefix("failed to lookup address information: ");
            Err(unresolved(library.unwrap_or(&reason)))
        }
    }
}

fn interface_index(address: IpAddr) -> Result<u32, OsString> {
    let answer = ask(&request(address))
        .map_err(|error| format!("Cannot request rtnetlink route: {}", super::strerror(&error)))?;
    outgoing_interface(&answer).ok_or_else(|| "rtnetlink query did not return interface".into())
}

/// `RTM_GETROUTE` for one address.
fn request(address: IpAddr) -> Vec<u8> {
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::INET6, address.octets().to_vec()),
    };
    let attribute_bytes = 4 + destination.len();
    let as_byte = |number: u16| number.to_le_bytes()[0];
    let as_u16 = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let length = HEADER_BYTES + attribute_bytes;
    let mut request = Vec::with_capacity(length);
    request.extend(u32::from(as_u16(length)).to_ne_bytes());
    request.extend(RTM_GETROUTE.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([as_byte(family.as_raw()), as_byte(as_u16(8 * destination.len()))]);
    request.extend([0; 10]);
    request.extend(as_u16(attribute_bytes).to_ne_bytes());
    request.extend(RTA_DST.to_ne_bytes());
    request.extend(destination);
    request
}

fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    // Protocol 0 of the netlink family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, request, SendFlags::empty())?;
    let mut answer = vec![0; 8192];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    if u16_at(&answer, 4) == Some(NLMSG_ERROR) {
        let errno = u32_at(&answer, 16).map_or(0, |negated| negated.cast_signed().wrapping_neg());
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(answer)
}

/// The value of the attribute `RTA_OIF`.
fn outgoing_interface(answer: &[u8]) -> Option<u32> {
    if u16_at(answer, 4)? != RTM_NEWROUTE {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(u16_at(answer, at)?);
        if u16_at(answer, at + 2)? == RTA_OIF {
            return u32_at(answer, at + 4);
        }
        // A length below that of its own header would keep us here for ever.
        at += length.max(4).next_multiple_of(4);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_route_to_ourselves_is_the_loopback_interface() {
        for host in ["127.0.0.1", "127.0.0.5"] {
            assert_eq!(interface_to(OsStr::new(host)).unwrap(), "lo", "{host}");
        }
    }

    #[test]
    fn a_name_that_is_no_host_is_named_in_the_reason() {
        let reason = interface_to(OsStr::new("no.such.host.invalid")).unwrap_err();
        let reason = reason.into_string().unwrap();
        assert!(reason.starts_with("Cannot resolve no.such.host.invalid: "), "{reason}");
    }

    #[test]
    fn the_interface_is_found_behind_other_attributes() {
        let mut answer = vec![0; HEADER_BYTES];
        answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        answer.extend([5u16, RTA_DST].iter().flat_map(|word| word.to_ne_bytes()));
        answer.extend([9, 0, 0, 0]);
        assert_eq!(outgoing_interface(&answer), None);
        answer.extend([8u16, RTA_OIF, 3, 0].iter().flat_map(|word| word.to_ne_bytes()));
        assert_eq!(outgoing_interface(&answer), Some(3));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic_or_hang(
            mut answer in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(kind) = answer.get_mut(4..6) {
                kind.copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
            }
            let _ = outgoing_interface(&answer);
        }
    }
}
