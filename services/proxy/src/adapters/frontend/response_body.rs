//! The body of a response on its way to the client. It owns the upstream connection that it comes from, and returns it
//! to the pool after the last byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use proxy_domain::headers::clean_trailers;
use tokio::time::{Sleep, sleep};

use super::access_log::{AccessRecord, ExchangeOutcome};
use super::response_deadlines::ResponseDeadline;
use super::shared::FrontendShared;
use super::upstream::UpstreamConnection;

/// What the client gets as a body.
#[derive(Debug)]
pub(super) enum ResponseBody {
    /// No body, and no access record: the head of a tunnel.
    Empty,
    /// The proxy's own page.
    ErrorPage(Option<Bytes>, Box<AccessRecord>),
    /// An upstream's body.
    Proxied(Box<ProxiedBody>),
}

/// An upstream's body, streamed.
#[derive(Debug)]
pub(super) struct ProxiedBody {
    incoming: Incoming,
    /// `None` once the last byte has arrived.
    upstream: Option<Box<UpstreamConnection>>,
    shared: Arc<FrontendShared>,
    idle_max: Duration,
    idle_timer: Option<Pin<Box<Sleep>>>,
    deadline: Option<ResponseDeadline>,
    record: AccessRecord,
}

impl ProxiedBody {
    pub(super) fn new(
        incoming: Incoming,
        upstream: Box<UpstreamConnection>,
        shared: Arc<FrontendShared>,
        idle_max: Duration,
        record: AccessRecord,
    ) -> Self {
        let deadline = record.response_deadline(shared.settings.slow_transfer);
        let upstream = Some(upstream);
        let mut body = Self { incoming, upstream, shared, idle_max, idle_timer: None, deadline, record };
        if body.incoming.is_end_stream() {
            body.complete();
        }
        body
    }

    fn complete(&mut self) {
        self.record.outcome = ExchangeOutcome::Complete;
        if let Some(upstream) = self.upstream.take() {
            self.shared.pool.put(upstream);
        }
    }

    fn abort(&mut self, error: io::Error) -> io::Error {
        self.record.outcome = ExchangeOutcome::UpstreamAborted;
        self.upstream = None;
        error
    }

    /// Polls the connection, then its body. Polling the body is what makes the connection read the next frame, so the
    /// connection is polled once more before this is pending.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        for _ in 0..2 {
            if let Some(upstream) = &mut self.upstream {
                upstream.poll_connection(cx);
            }
            if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
                return Poll::Ready(frame);
            }
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(deadline) = &self.deadline {
            deadline.clear();
        }
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.idle_timer = None;
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let count = frame.data_ref().map_or(0, Bytes::len);
                self.record.bytes_sent += count as u64;
                if let Some(deadline) = &self.deadline {
                    deadline.set(count);
                }
                if self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.abort(io::Error::other(error))))),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle_max = self.idle_max;
                let timer = self.idle_timer.get_or_insert_with(|| Box::pin(sleep(idle_max)));
                ready!(timer.as_mut().poll(cx));
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "the upstream stopped sending its response");
                Poll::Ready(Some(Err(self.abort(error))))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::ErrorPage(page, record) => Poll::Ready(page.take().map(|page| {
                record.bytes_sent = page.len() as u64;
                Ok(Frame::data(page))
            })),
            Self::Proxied(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::ErrorPage(page, _) => page.is_none(),
            Self::Proxied(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::ErrorPage(page, _) => {
                SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64))
            }
            Self::Proxied(body) => body.incoming.size_hint(),
        }
    }
}
