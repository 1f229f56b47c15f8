//! Sockets before they belong to a ring: listening ones, and ones about to connect.

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen as listen_on, socket_with, sockopt,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections that may wait to be accepted.
///
/// Chosen: a burst of reconnecting clients after a failover.
const BACKLOG: i32 = 1_024;

fn stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )?;
    Ok(socket)
}

/// A socket that listens on `address`.
///
/// # Errors
/// The kernel's, among them that the address is in use or not ours.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen_on(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket of the right family for `address`, not connected yet.
///
/// # Errors
/// The kernel's; in practice only that there are no descriptors left.
pub fn connect_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream(address)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// The address that a listening socket really has: the kernel's choice where port 0 was asked for.
///
/// # Errors
/// The kernel's.
pub fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("a TCP socket has an IP address"))
}

/// Sends small answers at once instead of waiting for more (TCP_NODELAY).
///
/// # Errors
/// The kernel's.
pub fn send_at_once(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(())
}

/// Lets this process open as many descriptors as its hard limit allows; the soft one is often 1,024.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A refusal leaves the limit that there was.
    let _ = setrlimit(Resource::Nofile, limit);
}
