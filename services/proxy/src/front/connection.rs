//! One client connection, from its first byte to its last.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::admission::Place;
use super::exchange;
use super::guard::{Guard, Protocol};
use super::line::Line;
use super::settings::BUFFER_BYTES;
use super::shared::Shared;

/// hyper reads so many fields without being told; the guard has counted them before.
const FIELDS_BY_DEFAULT: usize = 100;
/// A silent HTTP/2 connection is asked whether it still lives, and has so long to say so.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);
const HTTP2_PING_WAIT: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, idles out, or the front ends.
pub(super) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, place: Place) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "small answers may be delayed");
    }
    let line = Arc::new(Line::new(peer, place));
    let mut guard = Guard::new(socket, line.clone(), &shared.settings);
    let greeted = tokio::select! {
        () = shared.stop.cancelled() => return,
        greeted = timeout(shared.settings.timeouts.head_read, guard.greet()) => greeted,
    };
    match greeted {
        Ok(Ok(Some(Protocol::Http1))) => http1(shared, line, guard).await,
        Ok(Ok(Some(Protocol::Http2))) => http2(shared, line, guard).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "the connection broke before its first request"),
        Err(_) => tracing::debug!(%peer, "the connection said nothing"),
    }
}

async fn http1(shared: Arc<Shared>, line: Arc<Line>, guard: Guard) {
    let (peer, head) = (line.peer, shared.settings.limits.head);
    let service = {
        let shared = shared.clone();
        service_fn(move |request| exchange::answer(shared.clone(), line.clone(), request))
    };
    let mut builder = http1::Builder::new();
    // The guard keeps the clock for heads, and answers when it runs out.
    builder.header_read_timeout(None).max_buf_size(BUFFER_BYTES.max(head.block_bytes_max * 2));
    if head.fields_max > FIELDS_BY_DEFAULT {
        builder.max_headers(head.fields_max);
    }
    let mut connection = pin!(builder.serve_connection(TokioIo::new(guard), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.cut.cancelled() => return,
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shared.cut.cancelled() => return,
            }
        }
    };
    note_end(peer, ended);
}

async fn http2(shared: Arc<Shared>, line: Arc<Line>, guard: Guard) {
    let peer = line.peer;
    let limits = &shared.settings.limits;
    let service = {
        let (shared, line) = (shared.clone(), line.clone());
        service_fn(move |request| {
            line.count_asked();
            exchange::answer(shared.clone(), line.clone(), request)
        })
    };
    let head_bytes_max = u32::try_from(limits.head.block_bytes_max).unwrap_or(u32::MAX);
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams_max)
            .max_header_list_size(head_bytes_max)
            .max_send_buf_size(BUFFER_BYTES)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PING_WAIT)
            .serve_connection(TokioIo::new(guard), service)
    );
    let idle = idle(&line, shared.settings.timeouts.keep_alive_idle);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.cut.cancelled() => return,
        () = line.stalls.any(&shared.settings.pace) => {
            tracing::debug!(%peer, "the client does not take an answer");
            return;
        }
        () = async { tokio::select! { () = shared.stop.cancelled() => {}, () = idle => {} } } => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shared.cut.cancelled() => return,
            }
        }
    };
    note_end(peer, ended);
}

/// Ends when an HTTP/2 connection has had no request for `limit`, give or take its own length.
async fn idle(line: &Line, limit: Duration) {
    let mut timer: Pin<Box<tokio::time::Sleep>> = Box::pin(sleep_until(Instant::now() + limit));
    let mut asked_before = u64::MAX;
    loop {
        timer.as_mut().await;
        let asked = line.asked();
        if asked == asked_before && line.answered() == asked {
            return;
        }
        asked_before = asked;
        timer.as_mut().reset(Instant::now() + limit);
    }
}

/// Clients go as they like; why is of interest only to whoever looks for it.
fn note_end(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "the connection broke off");
    }
}
