//! The gateway's thread: a tokio runtime of its own, the client port, and HTTP with its limits.
//!
//! Always: everything that an etcd client can make grow is bounded here or in what it calls: connections, streams of one
//! connection, lists of headers, bytes on their way in; a client that has vanished is found out. When the shard has
//! ended, so does this thread. Left out: what requests mean (`grpc`, `http`).

use super::Gate;
use super::gate::HASHES_AT_ONCE;
use super::socket::Socket;
use crate::limits::{
    GATEWAY_CONNECTIONS_MAX, GATEWAY_HEADER_LIST_BYTES_MAX, GATEWAY_KEEPALIVE_MILLIS, GATEWAY_PIECE_BYTES,
    GATEWAY_STREAMS_PER_CONNECTION_MAX, GATEWAY_STREAMS_RESET_MAX, GATEWAY_WINDOW_BYTES,
};
use crate::server::http::Front;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How long accepting rests when the machine has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client of HTTP/1 may take for the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long answers that are on their way have to leave when the shard has ended.
const END_PATIENCE: Duration = Duration::from_millis(100);

/// Starts the thread, on `cpus` unless that is empty.
pub(in super::super) fn start(
    listener: TcpListener,
    gate: Arc<Gate>,
    cpus: Vec<u32>,
) -> io::Result<thread::JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(HASHES_AT_ONCE)
        .build()?;
    thread::Builder::new().name("gateway".to_owned()).spawn(move || {
        if !cpus.is_empty()
            && let Err(error) = crate::io::run_on(&cpus)
        {
            tracing::warn!(?cpus, %error, "the gateway thread runs where the kernel puts it");
        }
        super::super::placement::take_short_slices();
        if let Err(error) = runtime.block_on(serve(listener, gate)) {
            tracing::error!(%error, "the gateway has ended: etcd clients are not served");
        }
    })
}

async fn serve(listener: TcpListener, gate: Arc<Gate>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let front = Arc::new(Front::new(Arc::clone(&gate)));
    let accepting = tokio::spawn(accept(listener, front));
    gate.run().await;
    accepting.abort();
    tokio::time::sleep(END_PATIENCE).await;
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, front: Arc<Front>) {
    let places = Arc::new(Semaphore::new(GATEWAY_CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!("too many connections of etcd clients: one more is refused");
                    continue;
                };
                let front = Arc::clone(&front);
                tokio::spawn(async move {
                    // How a connection ends is its client's affair.
                    let _ = converse(socket, front).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; listening again in a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    socket: TcpStream,
    front: Arc<Front>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    socket.set_nodelay(true)?;
    let (silence, patience) = GATEWAY_KEEPALIVE_MILLIS;
    let (connection_bytes, stream_bytes) = GATEWAY_WINDOW_BYTES;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(GATEWAY_STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(GATEWAY_HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(GATEWAY_STREAMS_RESET_MAX)
        .max_local_error_reset_streams(GATEWAY_STREAMS_RESET_MAX)
        .max_send_buf_size(4 * GATEWAY_PIECE_BYTES)
        .initial_connection_window_size(connection_bytes)
        .initial_stream_window_size(stream_bytes)
        .keep_alive_interval(Duration::from_millis(silence))
        .keep_alive_timeout(Duration::from_millis(patience));
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    });
    builder.serve_connection(TokioIo::new(Socket::new(socket)), service).await
}
