//! The body of an answer on its way to the client. It carries the connection that it comes from, and gives it back to
//! the pool after the last byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use proxy_domain::hygiene::clean_trailers;
use tokio::time::{Sleep, sleep};

use super::access::{Outcome, Record};
use super::shared::Shared;
use super::stall::Taking;
use super::upstream::Upstream;

/// What the client gets as a body.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// Nothing, and nothing to note: the head of a tunnel.
    Empty,
    /// A page of ours.
    Page(Option<Bytes>, Box<Record>),
    /// A machine's answer.
    Streamed(Box<UpstreamBody>),
}

/// A machine's answer, streamed.
#[derive(Debug)]
pub(super) struct UpstreamBody {
    incoming: Incoming,
    /// Gone once the last byte has come.
    upstream: Option<Box<Upstream>>,
    shared: Arc<Shared>,
    idle_max: Duration,
    silent: Option<Pin<Box<Sleep>>>,
    taking: Option<Taking>,
    record: Record,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        upstream: Box<Upstream>,
        shared: Arc<Shared>,
        idle_max: Duration,
        record: Record,
    ) -> Self {
        let taking = record.watch_taking(shared.settings.pace);
        let mut body =
            Self { incoming, upstream: Some(upstream), shared, idle_max, silent: None, taking, record };
        if body.incoming.is_end_stream() {
            body.complete();
        }
        body
    }

    fn complete(&mut self) {
        self.record.outcome = Outcome::Complete;
        if let Some(upstream) = self.upstream.take() {
            self.shared.pool.keep(upstream);
        }
    }

    fn break_off(&mut self, error: io::Error) -> io::Error {
        self.record.outcome = Outcome::UpstreamBroke;
        self.upstream = None;
        error
    }

    /// Drives the connection and takes what came of it. Asking for a frame is what makes the connection read the next
    /// one, so it is driven once more before giving up.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        for _ in 0..2 {
            if let Some(upstream) = &mut self.upstream {
                upstream.drive(cx);
            }
            if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
                return Poll::Ready(frame);
            }
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(taking) = &self.taking {
            taking.came();
        }
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.silent = None;
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let count = frame.data_ref().map_or(0, Bytes::len);
                self.record.bytes_out += count as u64;
                if let Some(taking) = &self.taking {
                    taking.handed(count);
                }
                if self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.break_off(io::Error::other(error))))),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle_max = self.idle_max;
                let timer = self.silent.get_or_insert_with(|| Box::pin(sleep(idle_max)));
                ready!(timer.as_mut().poll(cx));
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "the machine fell silent within its answer");
                Poll::Ready(Some(Err(self.break_off(error))))
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Page(page, record) => Poll::Ready(page.take().map(|page| {
                record.bytes_out = page.len() as u64;
                Ok(Frame::data(page))
            })),
            Self::Streamed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Page(page, _) => page.is_none(),
            Self::Streamed(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Page(page, _) => SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64)),
            Self::Streamed(body) => body.incoming.size_hint(),
        }
    }
}
