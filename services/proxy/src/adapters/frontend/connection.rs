//! One client connection, from its first byte to its last.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::client_socket::{ClientSocket, Protocol};
use super::connection_limit::ConnectionPermit;
use super::connection_state::ConnectionState;
use super::exchange;
use super::settings::BUFFER_BYTES;
use super::shared::FrontendShared;

/// hyper's own limit of fields; `ClientSocket` has counted them before.
const HYPER_FIELDS_MAX: usize = 100;
/// How often a silent HTTP/2 connection is pinged, and how long the reply may take.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, is idle for too long, or the frontend stops.
pub(super) async fn serve(
    shared: Arc<FrontendShared>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY; small responses may be delayed");
    }
    let state = Arc::new(ConnectionState::new(peer, permit));
    let mut socket = ClientSocket::new(socket, state.clone(), &shared.settings);
    let protocol = tokio::select! {
        () = shared.stop.cancelled() => return,
        protocol = timeout(shared.settings.timeouts.head_read, socket.protocol()) => protocol,
    };
    match protocol {
        Ok(Ok(Some(Protocol::Http1))) => http1(shared, state, socket).await,
        Ok(Ok(Some(Protocol::Http2))) => http2(shared, state, socket).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "the connection failed before its first request"),
        Err(_) => tracing::debug!(%peer, "the client sent nothing in time"),
    }
}

async fn http1(shared: Arc<FrontendShared>, state: Arc<ConnectionState>, socket: ClientSocket) {
    let (peer, head) = (state.peer, shared.settings.limits.head);
    let service = {
        let shared = shared.clone();
        service_fn(move |request| exchange::handle(shared.clone(), state.clone(), request))
    };
    let mut builder = http1::Builder::new();
    // `ClientSocket` has the timeout of heads, and sends the error page for it.
    builder.header_read_timeout(None).max_buf_size(BUFFER_BYTES.max(head.head_bytes_max * 2));
    if head.fields_max > HYPER_FIELDS_MAX {
        builder.max_headers(head.fields_max);
    }
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.abort.cancelled() => return,
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shared.abort.cancelled() => return,
            }
        }
    };
    log_end(peer, ended);
}

async fn http2(shared: Arc<FrontendShared>, state: Arc<ConnectionState>, socket: ClientSocket) {
    let peer = state.peer;
    let limits = &shared.settings.limits;
    let service = {
        let (shared, state) = (shared.clone(), state.clone());
        service_fn(move |request| {
            state.count_request();
            exchange::handle(shared.clone(), state.clone(), request)
        })
    };
    let head_bytes_max = u32::try_from(limits.head.head_bytes_max).unwrap_or(u32::MAX);
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams_max)
            .max_header_list_size(head_bytes_max)
            .max_send_buf_size(BUFFER_BYTES)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service)
    );
    let idle = idle(&state, shared.settings.timeouts.keep_alive_idle);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.abort.cancelled() => return,
        () = state.response_deadlines.missed(&shared.settings.slow_transfer) => {
            tracing::debug!(%peer, "the client does not read a response");
            return;
        }
        () = async { tokio::select! { () = shared.stop.cancelled() => {}, () = idle => {} } } => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shared.abort.cancelled() => return,
            }
        }
    };
    log_end(peer, ended);
}

/// Ends when an HTTP/2 connection has had no request for `idle_max` to twice `idle_max`.
async fn idle(state: &ConnectionState, idle_max: Duration) {
    let mut timer: Pin<Box<tokio::time::Sleep>> = Box::pin(sleep_until(Instant::now() + idle_max));
    let mut requests_before = u64::MAX;
    loop {
        timer.as_mut().await;
        let requests = state.requests();
        if requests == requests_before && state.completed() == requests {
            return;
        }
        requests_before = requests;
        timer.as_mut().reset(Instant::now() + idle_max);
    }
}

/// Clients close connections at any time: worth a line only when debugging.
fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "the client connection failed");
    }
}
