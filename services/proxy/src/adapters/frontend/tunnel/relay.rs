//! Copies bytes both ways between two sockets, until both have ended or no byte moves.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::adapters::frontend::access_log::ExchangeOutcome;

/// One end: its socket, and what was read from it before the tunnel began.
#[derive(Debug)]
pub(super) struct TunnelSide {
    pub(super) socket: TcpStream,
    pub(super) read_ahead: Bytes,
}

/// The bytes that have moved through a tunnel, and when the last one did.
#[derive(Debug)]
pub(super) struct TunnelTraffic {
    from_client: AtomicU64,
    from_upstream: AtomicU64,
    began: Instant,
    /// When a byte moved last, in milliseconds since the beginning.
    last_ms: AtomicU64,
}

impl Default for TunnelTraffic {
    fn default() -> Self {
        Self { from_client: 0.into(), from_upstream: 0.into(), began: Instant::now(), last_ms: 0.into() }
    }
}

impl TunnelTraffic {
    /// Bytes that came from the client.
    pub(super) fn client_bytes(&self) -> u64 {
        self.from_client.load(Ordering::Relaxed)
    }

    /// Bytes that came from the upstream.
    pub(super) fn upstream_bytes(&self) -> u64 {
        self.from_upstream.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Joins both ends. An end that closes its sending side can still receive.
pub(super) async fn join(
    client: TunnelSide,
    upstream: TunnelSide,
    idle_max: Duration,
    traffic: &TunnelTraffic,
) -> ExchangeOutcome {
    let mut to_client = Metered { socket: client.socket, read: &traffic.from_client, traffic };
    let mut to_upstream = Metered { socket: upstream.socket, read: &traffic.from_upstream, traffic };
    let joined = async {
        traffic.from_client.fetch_add(client.read_ahead.len() as u64, Ordering::Relaxed);
        traffic.from_upstream.fetch_add(upstream.read_ahead.len() as u64, Ordering::Relaxed);
        to_client.write_all(&upstream.read_ahead).await?;
        to_upstream.write_all(&client.read_ahead).await?;
        copy_bidirectional(&mut to_client, &mut to_upstream).await
    };
    tokio::select! {
        joined = joined => match joined {
            Ok(_) => ExchangeOutcome::Complete,
            // WebSocket clients commonly end by a reset. Which side reset is not recorded.
            Err(_) => ExchangeOutcome::ClientClosed,
        },
        () = idle(traffic, idle_max) => ExchangeOutcome::TunnelIdleTimeout,
    }
}

/// Ends when no byte has moved for `idle_max`.
async fn idle(traffic: &TunnelTraffic, idle_max: Duration) {
    loop {
        let deadline = traffic.last() + idle_max;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}

/// A socket that counts its bytes.
struct Metered<'a> {
    socket: TcpStream,
    read: &'a AtomicU64,
    traffic: &'a TunnelTraffic,
}

impl AsyncRead for Metered<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            this.read.fetch_add(count as u64, Ordering::Relaxed);
            this.traffic.touch();
        }
        polled
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        if polled.is_ready() {
            this.traffic.touch();
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
