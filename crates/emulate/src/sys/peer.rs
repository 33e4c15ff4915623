//! Who is at the other end of a Unix socket.
//!
//! rustix has this call too, but its pid cannot be 0, which it is for a process that our pid namespace
//! does not know.
//!
//! Source: unix(7), `SO_PEERCRED`.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// The process that connected, by its number here; `None`: it has none here.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn pid(stream: &UnixStream) -> io::Result<Option<u32>> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which has as many and for which
    // every value is valid, and the count to `length`. The descriptor is open while `stream` lives.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(peer.pid).ok().filter(|&pid| pid != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_ours_has_us_at_its_ends() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(pid(&one).unwrap(), Some(std::process::id()));
    }
}
