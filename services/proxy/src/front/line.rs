//! What a client's connection and the requests on it tell each other.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use http::request::Parts;
use proxy_domain::framing::Violation;

use super::admission::Place;
use super::stall::Stalls;

/// The method of the request that the guard makes up. A client that uses it has a request like any other.
const REFUSED_METHOD: &str = "LOAM-REFUSED";
/// That request.
pub(super) const REFUSED_REQUEST: &[u8] =
    b"LOAM-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// One client connection: the guard reads its bytes, exchanges answer its requests, a tunnel may inherit it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) peer: SocketAddr,
    _place: Place,
    /// Why the guard refused the rest of the stream. The request it made up to say so is answered with this.
    refused: OnceLock<Violation>,
    /// Requests that came over HTTP/2; those over HTTP/1 are counted by the guard, as heads.
    asked: AtomicU64,
    /// Requests that were answered to the last byte.
    answered: AtomicU64,
    /// Answers over HTTP/2 that are to be taken.
    pub(super) stalls: Stalls,
    /// Waits for the answer to a request for an upgrade.
    guard: AtomicWaker,
}

impl Line {
    pub(super) fn new(peer: SocketAddr, place: Place) -> Self {
        Self {
            peer,
            _place: place,
            refused: OnceLock::new(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stalls: Stalls::default(),
            guard: AtomicWaker::new(),
        }
    }

    /// Notes why the rest of the stream is refused. The first reason stands: nothing is judged after it.
    pub(super) fn refuse(&self, violation: Violation) {
        self.refused.get_or_init(|| violation);
    }

    /// The reason, if this is the request that the guard made up to have it sent.
    pub(super) fn refusal(&self, head: &Parts) -> Option<Violation> {
        if head.method.as_str() == REFUSED_METHOD { self.refused.get().copied() } else { None }
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn count_asked(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
        self.guard.wake();
    }

    /// Ready once so many requests were answered.
    pub(super) fn poll_answered(&self, cx: &mut Context<'_>, count: u64) -> Poll<()> {
        self.guard.register(cx.waker());
        if self.answered() >= count { Poll::Ready(()) } else { Poll::Pending }
    }
}
