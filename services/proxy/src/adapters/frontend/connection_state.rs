//! The state that a client connection shares with the requests on it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use http::request::Parts;
use proxy_domain::framing::FramingViolation;

use super::connection_limit::ConnectionPermit;
use super::response_deadlines::ClientReadDeadlines;

/// The method of [`REFUSAL_REQUEST`]. When a client uses it, its request is like any other.
const REFUSAL_METHOD: &str = "LOAM-REFUSED";
/// What hyper reads instead of bytes that were refused. Its response is the error page, which so comes after the
/// responses to earlier requests.
pub(super) const REFUSAL_REQUEST: &[u8] =
    b"LOAM-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// One client connection: `ClientSocket` reads its bytes, exchanges respond to its requests, a tunnel may take it over.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) peer: SocketAddr,
    _permit: ConnectionPermit,
    /// Why `ClientSocket` refused the rest of the stream.
    refused: OnceLock<FramingViolation>,
    /// Requests over HTTP/2; `ClientSocket` counts those over HTTP/1, as heads.
    requests: AtomicU64,
    /// Requests whose response has ended.
    completed: AtomicU64,
    pub(super) response_deadlines: ClientReadDeadlines,
    /// Woken when a request is completed: `ClientSocket` waits for the response to an upgrade request.
    completed_waker: AtomicWaker,
}

impl ConnectionState {
    pub(super) fn new(peer: SocketAddr, permit: ConnectionPermit) -> Self {
        Self {
            peer,
            _permit: permit,
            refused: OnceLock::new(),
            requests: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            response_deadlines: ClientReadDeadlines::default(),
            completed_waker: AtomicWaker::new(),
        }
    }

    /// Records why the rest of the stream is refused. The first reason stands: nothing is checked after it.
    pub(super) fn refuse(&self, violation: FramingViolation) {
        self.refused.get_or_init(|| violation);
    }

    /// Why the stream was refused, if this is the head of [`REFUSAL_REQUEST`].
    pub(super) fn refusal(&self, head: &Parts) -> Option<FramingViolation> {
        if head.method.as_str() == REFUSAL_METHOD { self.refused.get().copied() } else { None }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    pub(super) fn count_completed(&self) {
        self.completed.fetch_add(1, Ordering::AcqRel);
        self.completed_waker.wake();
    }

    /// Ready once `count` requests are completed.
    pub(super) fn poll_completed(&self, cx: &mut Context<'_>, count: u64) -> Poll<()> {
        self.completed_waker.register(cx.waker());
        if self.completed() >= count { Poll::Ready(()) } else { Poll::Pending }
    }
}
