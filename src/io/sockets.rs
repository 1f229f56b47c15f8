//! Sockets before they belong to a ring: listening ones, and ones about to connect.

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen as listen_on, socket_with, sockopt,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Connections that may wait to be accepted.
///
/// Chosen: a burst of reconnecting clients after a failover.
const BACKLOG: i32 = 1_024;

/// A TCP socket that sends small messages at once, and on which an end that vanished without a word is noticed:
/// what it does not acknowledge within `vanished_millis`, probes included, ends the connection.
fn stream(address: SocketAddr, vanished_millis: u32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )?;
    // Whole seconds: an idle connection is probed twice before it is given up.
    let probe = Duration::from_secs(u64::from(vanished_millis / 3_000).max(1));
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_user_timeout(&socket, vanished_millis)?;
    sockopt::set_tcp_keepidle(&socket, probe)?;
    sockopt::set_tcp_keepintvl(&socket, probe)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(socket)
}

/// A socket that listens on `address`. Accepted ones inherit how it notices that the other end has vanished.
///
/// # Errors
/// The kernel's, among them that the address is in use or not ours.
pub fn listen(address: SocketAddr, vanished_millis: u32) -> io::Result<OwnedFd> {
    let socket = stream(address, vanished_millis)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen_on(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket of the right family for `address`, not connected yet.
///
/// # Errors
/// The kernel's; in practice only that there are no descriptors left.
pub fn connect_socket(address: SocketAddr, vanished_millis: u32) -> io::Result<OwnedFd> {
    stream(address, vanished_millis)
}

/// The address that a listening socket really has: the kernel's choice where port 0 was asked for.
///
/// # Errors
/// The kernel's.
pub fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::other("a TCP socket has an IP address"))
}

/// Lets this process open as many descriptors as its hard limit allows; the soft one is often 1,024.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A refusal leaves the limit that there was.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{accept, connect};

    #[test]
    fn an_accepted_socket_inherits_what_its_listener_was_told() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen(loopback, 6_000).expect("a free port");
        let client = connect_socket(loopback, 3_000).expect("a socket");
        let _ = connect(&client, &local_address(&listener).expect("it listens"));
        let mut waiting = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waiting, None).expect("it comes");
        let accepted = accept(&listener).expect("it is there");
        assert_eq!(sockopt::tcp_user_timeout(&accepted).expect("told"), 6_000);
        assert_eq!(sockopt::tcp_keepidle(&accepted).expect("told"), Duration::from_secs(2));
        assert!(sockopt::socket_keepalive(&accepted).expect("told"));
        assert!(sockopt::tcp_nodelay(&accepted).expect("told"));
        assert_eq!(sockopt::tcp_user_timeout(&client).expect("told"), 3_000);
    }
}
