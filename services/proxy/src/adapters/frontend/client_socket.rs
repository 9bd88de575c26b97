//! A client's socket as hyper sees it: only bytes that [`proxy_domain::framing`] accepts pass.
//!
//! ```text
//!   socket ──> [held: not accepted yet] ──accepted──> hyper
//!                     │ refused
//!                     └──> hyper reads REFUSAL_REQUEST instead
//! ```
//!
//! Why a synthetic request: hyper owns the order of responses. Its response is an error page like every other, after
//! the responses to earlier requests, with trace, metrics and access log. The alternative, writing the page to the
//! socket from here, would need all of these here, and a second serialiser of responses.
//!
//! It also has the timeouts that only a socket shows: an incomplete head, a connection without requests, a client
//! that does not read its response. Once the connection turns out to be HTTP/2, everything passes.

mod protocol;
mod timeouts;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use proxy_domain::framing::{FramingAction, FramingParser, FramingViolation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::connection_state::{ConnectionState, REFUSAL_REQUEST};
use super::settings::Settings;
pub(super) use protocol::Protocol;
use timeouts::{LingeringClose, ReadTimeout, ReadTimeoutKind, WriteTimeout};

/// The size of a read while bytes are held back.
const READ_BYTES: usize = 8 * 1024;

/// A client's socket whose bytes are checked before hyper reads them.
#[derive(Debug)]
pub(super) struct ClientSocket {
    socket: TcpStream,
    state: Arc<ConnectionState>,
    framing: FramingParser,
    stage: Stage,
    /// Received and not passed on: first the accepted bytes, then the rest.
    held: BytesMut,
    /// How many bytes of `held` are accepted.
    accepted: usize,
    /// Whether `held` must be checked again: the framing's state has changed.
    unchecked: bool,
    /// Request heads that were accepted.
    heads: u64,
    read_timeout: ReadTimeout,
    write_timeout: WriteTimeout,
    linger: LingeringClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// An upgrade was requested: nothing passes until that request has an ordinary response, which declines the
    /// upgrade, or until the socket is taken for a tunnel.
    UpgradePending,
    /// So many bytes of [`REFUSAL_REQUEST`] have been passed on.
    Refusing(usize),
    /// Nothing passes any more.
    Refused,
}

impl ClientSocket {
    pub(super) fn new(socket: TcpStream, state: Arc<ConnectionState>, settings: &Settings) -> Self {
        Self {
            socket,
            state,
            framing: FramingParser::new(settings.limits.head),
            stage: Stage::Open,
            held: BytesMut::new(),
            accepted: 0,
            unchecked: false,
            heads: 0,
            read_timeout: ReadTimeout::new(&settings.timeouts),
            write_timeout: WriteTimeout::new(settings.slow_transfer),
            linger: LingeringClose::default(),
        }
    }

    /// The socket, for a tunnel, with what the client sent after its upgrade request.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket, self.held.freeze())
    }

    /// Acts on the result of a check.
    fn follow(&mut self, heads: u64, next: FramingAction) {
        self.heads += heads;
        if heads > 0 {
            self.read_timeout.reset();
        }
        match next {
            FramingAction::ReadMore => {}
            FramingAction::HoldForUpgrade => self.stage = Stage::UpgradePending,
            FramingAction::Refuse(violation) => self.refuse(violation),
        }
    }

    fn refuse(&mut self, violation: FramingViolation) {
        self.state.refuse(violation);
        self.stage = Stage::Refusing(0);
    }

    fn check_held(&mut self) {
        self.unchecked = false;
        let checked = self.framing.check(&self.held);
        self.accepted = checked.passed_bytes;
        self.follow(checked.complete_heads, checked.next);
    }

    /// Reads straight into the caller's buffer, and moves what does not pass to `held`. Ready(false): nothing passed
    /// yet.
    fn read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let checked = self.framing.check(new);
        self.held.extend_from_slice(&new[checked.passed_bytes..]);
        buf.set_filled(before + checked.passed_bytes);
        self.follow(checked.complete_heads, checked.next);
        Poll::Ready(Ok(checked.passed_bytes > 0))
    }

    /// Reads behind what is held. Ready(true): end of stream.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.held.reserve(READ_BYTES);
        let count = ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.held))?;
        self.check_held();
        Poll::Ready(Ok(count == 0))
    }

    /// Nothing was received. Ready: the timeout has passed, the connection must end.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.framing.in_head() || self.state.completed() < self.heads {
            self.read_timeout.reset();
            return Poll::Pending;
        }
        let waiting = match (self.held.is_empty(), self.heads) {
            (false, _) | (true, 0) => ReadTimeoutKind::RequestHead,
            (true, _) => ReadTimeoutKind::ForRequest,
        };
        ready!(self.read_timeout.poll(cx, waiting));
        if self.held.is_empty() {
            return Poll::Ready(());
        }
        self.refuse(FramingViolation::HeadTimeout);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.accepted > 0 {
                let count = this.accepted.min(buf.remaining());
                buf.put_slice(&this.held[..count]);
                this.held.advance(count);
                this.accepted -= count;
                return Poll::Ready(Ok(()));
            }
            match this.stage {
                Stage::Open => {}
                Stage::UpgradePending => {
                    ready!(this.state.poll_completed(cx, this.heads));
                    this.framing.resume();
                    this.stage = Stage::Open;
                    this.unchecked = !this.held.is_empty();
                }
                Stage::Refusing(passed) => {
                    let rest = &REFUSAL_REQUEST[passed..];
                    let count = rest.len().min(buf.remaining());
                    buf.put_slice(&rest[..count]);
                    this.stage =
                        if count == rest.len() { Stage::Refused } else { Stage::Refusing(passed + count) };
                    return Poll::Ready(Ok(()));
                }
                Stage::Refused => return Poll::Pending,
            }
            if this.unchecked {
                this.check_held();
                continue;
            }
            let read = if this.held.is_empty() { this.read_through(cx, buf) } else { this.read_more(cx) };
            match read {
                Poll::Ready(Ok(false)) => {}
                // Bytes have passed, or the stream has ended; half a head is then dropped.
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(this.wait(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.write_timeout.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.write_timeout.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.linger.poll_shutdown(cx, &mut this.socket))?;
        // Closing at once would reset the connection of a client that is still sending, and lose the response.
        if this.framing.in_head() && this.stage == Stage::Open {
            return Poll::Ready(Ok(()));
        }
        this.linger.poll_discard(cx, &mut this.socket)
    }
}
