//! The links between members, through which their bytes pass, so that they can be cut.
//!
//! ```text
//!   member a ──connects──► our port for (a, b) ──────────────► member b
//!                              │ cut: what comes is thrown away, either way, and nothing breaks
//!                              └ mended: a connection that was open meanwhile ends; whoever made it makes another
//! ```
//!
//! What always holds: what comes while a link is cut is not passed on; bytes are passed on whole and in order, or the
//! connection ends. What it leaves out: delay and loss within a connection, which TCP hides from members anyway; cuts that
//! are over within two hundredths of a second, which connections may not notice.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at whether a link is cut, or mended.
const GLANCE: Duration = Duration::from_millis(10);

/// Bytes passed on at a time.
const PIECE_BYTES: usize = 64 * 1_024;

/// One way from a member to another; what the other answers on it comes back the same way.
#[derive(Debug)]
struct Link {
    from: usize,
    to: usize,
    /// Where the first one connects.
    at: SocketAddr,
    /// Where the other listens.
    behind: SocketAddr,
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

/// All links of a cluster.
#[derive(Debug)]
pub(super) struct Links {
    all: Vec<Arc<Link>>,
}

impl Links {
    /// A link from each of the members that listen at `peers` to each other one.
    ///
    /// # Errors
    /// There are no ports left.
    pub(super) fn open(peers: &[SocketAddr]) -> io::Result<Self> {
        let mut links = Self { all: Vec::new() };
        for (from, _) in peers.iter().enumerate() {
            for (to, behind) in peers.iter().enumerate().filter(|(to, _)| *to != from) {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let link = Arc::new(Link {
                    from,
                    to,
                    at: listener.local_addr()?,
                    behind: *behind,
                    is_cut: AtomicBool::new(false),
                    is_over: AtomicBool::new(false),
                });
                links.all.push(Arc::clone(&link));
                std::thread::spawn(move || listen(&link, &listener));
            }
        }
        Ok(links)
    }

    /// For each link: from whom, to whom, and where the first finds the other.
    pub(super) fn routes(&self) -> impl Iterator<Item = (usize, usize, SocketAddr)> + '_ {
        self.all.iter().map(|link| (link.from, link.to, link.at))
    }

    /// Nothing passes between `member` and any other until they are mended.
    pub(super) fn cut_off(&self, member: usize) {
        for link in self.all.iter().filter(|link| link.from == member || link.to == member) {
            link.is_cut.store(true, Ordering::SeqCst);
        }
    }

    /// All links pass everything on again.
    pub(super) fn mend(&self) {
        for link in &self.all {
            link.is_cut.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in &self.all {
            link.is_over.store(true, Ordering::SeqCst);
            // Wakes whoever listens; if that fails, nobody does.
            let _ = TcpStream::connect(link.at);
        }
    }
}

fn listen(link: &Arc<Link>, listener: &TcpListener) {
    for near in listener.incoming() {
        if link.is_over.load(Ordering::SeqCst) {
            return;
        }
        // A connection that came to nothing is its member's to make again.
        let Ok(near) = near else { continue };
        let link = Arc::clone(link);
        std::thread::spawn(move || {
            // Whatever breaks ends the connection, which is all that its members need to know.
            let _ = relay(&link, &near);
        });
    }
}

fn relay(link: &Arc<Link>, near: &TcpStream) -> io::Result<()> {
    while link.is_cut.load(Ordering::SeqCst) {
        // Nobody unparks this thread: the connection waits, and what it carries is passed on once the link is mended.
        std::thread::park_timeout(GLANCE);
    }
    let far = TcpStream::connect(link.behind)?;
    for socket in [near, &far] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GLANCE))?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(link, &far, near));
        pass_on(link, near, &far);
    });
    Ok(())
}

/// Passes on what comes, until either end closes, or the link was cut and is mended.
fn pass_on(link: &Link, mut from: &TcpStream, mut to: &TcpStream) {
    let mut piece = vec![0; PIECE_BYTES];
    let mut was_cut = false;
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        if link.is_cut.load(Ordering::SeqCst) {
            was_cut = true;
            continue;
        }
        let Some(piece) = piece.get(..count).filter(|_| !was_cut) else { break };
        if to.write_all(piece).is_err() {
            break;
        }
    }
    // The other end, and the other direction, are to know.
    for socket in [from, to] {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members that listen, and what the first one has to the second: its end and the second one's.
    fn connected() -> (Links, TcpStream, TcpStream) {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are ports");
        let listeners = [listen(), listen()];
        let peers = listeners.each_ref().map(|it| it.local_addr().expect("it listens"));
        let links = Links::open(&peers).expect("there are ports");
        let (_, _, at) = links.routes().find(|(from, to, _)| (*from, *to) == (0, 1)).expect("there is one");
        let near = TcpStream::connect(at).expect("somebody listens");
        let (far, _) = listeners[1].accept().expect("it is passed on");
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("that can be set");
        }
        (links, near, far)
    }

    fn read(mut socket: &TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        socket.read_exact(&mut bytes).expect("it comes");
        bytes
    }

    #[test]
    fn bytes_pass_both_ways() {
        let (_links, mut near, mut far) = connected();
        near.write_all(b"there").expect("it leaves");
        assert_eq!(read(&far, 5), b"there");
        far.write_all(b"and back").expect("it leaves");
        assert_eq!(read(&near, 8), b"and back");
    }

    #[test]
    fn a_cut_link_passes_nothing_and_ends_when_it_is_mended() {
        let (links, mut near, mut far) = connected();
        links.cut_off(1);
        near.write_all(b"lost").expect("it leaves");
        let mut byte = [0];
        far.set_read_timeout(Some(Duration::from_millis(200))).expect("that can be set");
        assert!(far.read(&mut byte).is_err(), "nothing comes, and nothing ends");
        links.mend();
        far.set_read_timeout(Some(Duration::from_secs(10))).expect("that can be set");
        assert_eq!(far.read(&mut byte).expect("it ends in good order"), 0);
    }
}
