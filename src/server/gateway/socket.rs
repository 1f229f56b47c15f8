//! A client's socket, as HTTP/2 is best told of it.
//!
//! Always: bytes pass unchanged. What it is for: `h2` copies the payload of a DATA frame behind its HEADERS, so that both and
//! the trailers leave in one system call, if the payload is shorter than 256 bytes, or than 1,024 where a socket says that it
//! cannot gather; it asks that once, before it writes. So this socket says so until its first write, and gathers after it.
//! Left out: what is said (`thread`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that owns up to gathering only once it has been written to.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    was_written: bool,
}

impl<S> Socket<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, was_written: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.was_written = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.was_written = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.was_written && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_gathers_only_after_its_first_write() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut socket = Socket::new(ours);
        assert!(socket.stream.is_write_vectored() && !socket.is_write_vectored());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut socket).poll_write(&mut context, b"settings").is_ready());
        assert!(socket.is_write_vectored());
    }
}
