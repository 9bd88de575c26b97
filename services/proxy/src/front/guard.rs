//! Stands between the socket and hyper and lets through only what [`proxy_domain::framing`] approves.
//!
//! ```text
//!   socket ──> [held: not approved yet] ──approved──> hyper
//!                     │ refused
//!                     └──> a made-up request that asks for the refusal, so that it is answered in its turn,
//!                          after the requests before it, and in the same form as every other error
//! ```
//!
//! It also keeps the clock for what only the socket shows: a head that does not end, a connection without requests, a
//! client that does not take its answer. Once the connection turns out to be HTTP/2 it lets everything through.

mod clock;
mod greet;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use proxy_domain::framing::{Framing, Next, Violation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::line::{Line, REFUSED_REQUEST};
use super::settings::Settings;
use clock::{Linger, ReadClock, Waiting, WriteClock};
pub(super) use greet::Protocol;

/// What is read at once while bytes must be held back.
const READ_BYTES: usize = 8 * 1024;

/// A client's socket, guarded.
#[derive(Debug)]
pub(super) struct Guard {
    socket: TcpStream,
    line: Arc<Line>,
    framing: Framing,
    stage: Stage,
    /// Received and not passed on: first what is approved, then what is not.
    held: BytesMut,
    /// How much of `held` is approved.
    approved: usize,
    /// Whether `held` has bytes that were not judged since the framing changed its mind.
    unjudged: bool,
    /// Heads that were passed on.
    heads: u64,
    read_clock: ReadClock,
    write_clock: WriteClock,
    linger: Linger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// An upgrade was asked for: nothing passes until that request was answered like any other, which declines it, or
    /// the socket is taken out of here.
    Holding,
    /// So much of the made-up request has been passed on.
    Refusing(usize),
    /// Nothing passes any more.
    Silent,
}

impl Guard {
    pub(super) fn new(socket: TcpStream, line: Arc<Line>, settings: &Settings) -> Self {
        Self {
            socket,
            line,
            framing: Framing::new(settings.limits.head),
            stage: Stage::Open,
            held: BytesMut::new(),
            approved: 0,
            unjudged: false,
            heads: 0,
            read_clock: ReadClock::new(&settings.timeouts),
            write_clock: WriteClock::new(settings.pace),
            linger: Linger::default(),
        }
    }

    /// Takes the socket out for a tunnel, with what the client sent after the request that asked for it.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket, self.held.freeze())
    }

    /// Acts on a judgement; `unpassed` tells whether bytes are left over.
    fn follow(&mut self, heads: u64, next: Next) {
        self.heads += heads;
        if heads > 0 {
            self.read_clock.head_ended();
        }
        match next {
            Next::More => {}
            Next::Hold => self.stage = Stage::Holding,
            Next::Refuse(violation) => self.refuse(violation),
        }
    }

    fn refuse(&mut self, violation: Violation) {
        self.line.refuse(violation);
        self.stage = Stage::Refusing(0);
    }

    fn judge_held(&mut self) {
        self.unjudged = false;
        let approval = self.framing.approve(&self.held);
        self.approved = approval.passed;
        self.follow(approval.heads, approval.next);
    }

    /// Reads straight into the caller's buffer, and takes back what must be held. Ready(false): nothing passed yet.
    fn read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let approval = self.framing.approve(new);
        self.held.extend_from_slice(&new[approval.passed..]);
        buf.set_filled(before + approval.passed);
        self.follow(approval.heads, approval.next);
        Poll::Ready(Ok(approval.passed > 0))
    }

    /// Reads behind what is held. Ready(true): the client has ended.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.held.reserve(READ_BYTES);
        let count = ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.held))?;
        self.judge_held();
        Poll::Ready(Ok(count == 0))
    }

    /// Nothing came. Ready: nothing will, the connection is to end.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.framing.in_head() || self.line.answered() < self.heads {
            self.read_clock.pause();
            return Poll::Pending;
        }
        let waiting = match (self.held.is_empty(), self.heads) {
            (false, _) | (true, 0) => Waiting::ForHead,
            (true, _) => Waiting::ForRequest,
        };
        ready!(self.read_clock.poll(cx, waiting));
        if self.held.is_empty() {
            return Poll::Ready(());
        }
        self.refuse(Violation::HeadTooSlow);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        loop {
            if guard.approved > 0 {
                let count = guard.approved.min(buf.remaining());
                buf.put_slice(&guard.held[..count]);
                guard.held.advance(count);
                guard.approved -= count;
                return Poll::Ready(Ok(()));
            }
            match guard.stage {
                Stage::Open => {}
                Stage::Holding => {
                    ready!(guard.line.poll_answered(cx, guard.heads));
                    guard.framing.resume();
                    guard.stage = Stage::Open;
                    guard.unjudged = !guard.held.is_empty();
                }
                Stage::Refusing(passed) => {
                    let rest = &REFUSED_REQUEST[passed..];
                    let count = rest.len().min(buf.remaining());
                    buf.put_slice(&rest[..count]);
                    guard.stage =
                        if count == rest.len() { Stage::Silent } else { Stage::Refusing(passed + count) };
                    return Poll::Ready(Ok(()));
                }
                Stage::Silent => return Poll::Pending,
            }
            if guard.unjudged {
                guard.judge_held();
                continue;
            }
            let read = if guard.held.is_empty() { guard.read_through(cx, buf) } else { guard.read_more(cx) };
            match read {
                Poll::Ready(Ok(false)) => {}
                // Bytes have passed, or the client has ended; half a head is then of no use to anybody.
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(guard.wait(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.socket).poll_write(cx, bytes);
        guard.write_clock.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.socket).poll_write_vectored(cx, slices);
        guard.write_clock.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        ready!(guard.linger.poll_shutdown(cx, &mut guard.socket))?;
        // A client that is still sending would lose our answer to a reset if we closed on it.
        if guard.framing.in_head() && guard.stage == Stage::Open {
            return Poll::Ready(Ok(()));
        }
        guard.linger.poll_read_off(cx, &mut guard.socket)
    }
}
