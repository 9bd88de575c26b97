//! Two sockets, joined until both have ended or nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::front::access::Outcome;

/// One end: its socket, and what was read from it before the tunnel began.
#[derive(Debug)]
pub(super) struct End {
    pub(super) socket: TcpStream,
    pub(super) early: Bytes,
}

/// What has moved through a tunnel.
#[derive(Debug)]
pub(super) struct Moved {
    from_client: AtomicU64,
    from_machine: AtomicU64,
    began: Instant,
    /// When something moved last, in milliseconds since the beginning.
    last_ms: AtomicU64,
}

impl Default for Moved {
    fn default() -> Self {
        Self { from_client: 0.into(), from_machine: 0.into(), began: Instant::now(), last_ms: 0.into() }
    }
}

impl Moved {
    /// Bytes that came from the client.
    pub(super) fn client_bytes(&self) -> u64 {
        self.from_client.load(Ordering::Relaxed)
    }

    /// Bytes that came from the machine.
    pub(super) fn machine_bytes(&self) -> u64 {
        self.from_machine.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Joins the ends. An end that closes its sending side can still receive.
pub(super) async fn join(client: End, machine: End, idle_max: Duration, moved: &Moved) -> Outcome {
    let mut to_client = Metered { socket: client.socket, read: &moved.from_client, moved };
    let mut to_machine = Metered { socket: machine.socket, read: &moved.from_machine, moved };
    let joined = async {
        moved.from_client.fetch_add(client.early.len() as u64, Ordering::Relaxed);
        moved.from_machine.fetch_add(machine.early.len() as u64, Ordering::Relaxed);
        to_client.write_all(&machine.early).await?;
        to_machine.write_all(&client.early).await?;
        copy_bidirectional(&mut to_client, &mut to_machine).await
    };
    tokio::select! {
        joined = joined => match joined {
            Ok(_) => Outcome::Complete,
            // WebSocket clients commonly end by a reset; which side it was makes no difference to anybody.
            Err(_) => Outcome::ClientGone,
        },
        () = idle(moved, idle_max) => Outcome::Idle,
    }
}

/// Ends once nothing has moved for so long.
async fn idle(moved: &Moved, idle_max: Duration) {
    loop {
        let deadline = moved.last() + idle_max;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}

/// A socket that notes what moves.
struct Metered<'a> {
    socket: TcpStream,
    read: &'a AtomicU64,
    moved: &'a Moved,
}

impl AsyncRead for Metered<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            this.read.fetch_add(count as u64, Ordering::Relaxed);
            this.moved.touch();
        }
        polled
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        if polled.is_ready() {
            this.moved.touch();
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
