//! The body of a request on its way to the upstream: streamed, with a minimum rate, and kept for a second attempt
//! while it is small.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use proxy_domain::headers::clean_trailers;
use proxy_domain::retry::{BodyReplay, REPLAY_BYTES_MAX};
use proxy_domain::transfer::{MeasuredTransferRate, SlowTransferLimits};
use tokio::time::{Instant, Sleep, sleep};

/// The body of one attempt.
#[derive(Debug)]
pub(super) enum RequestBody {
    Empty,
    Streamed(StreamedBody),
}

/// Reads the source from its beginning, or from where it is.
#[derive(Debug)]
pub(super) struct StreamedBody {
    source: Arc<BodySource>,
    /// Kept frames that this attempt has sent.
    replayed: usize,
}

/// The client's body; outlives an attempt.
#[derive(Debug)]
pub(super) struct BodySource {
    state: Mutex<SourceState>,
    length: SizeHint,
    bytes_read: AtomicU64,
    status: AtomicU8,
}

#[derive(Debug)]
struct SourceState {
    incoming: Incoming,
    /// What was read so far, unless it became too much to keep.
    kept: Option<Vec<Bytes>>,
    limits: SlowTransferLimits,
    rate: MeasuredTransferRate,
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// Whether the client has sent its body as it should, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyStatus {
    Intact = 0,
    /// Incomplete or malformed.
    Invalid = 1,
    TooSlow = 2,
}

impl BodySource {
    /// `keep`: whether a second attempt could be made.
    pub(super) fn new(incoming: Incoming, keep: bool, limits: SlowTransferLimits) -> Arc<Self> {
        let length = incoming.size_hint();
        let kept = keep.then(Vec::new);
        let state =
            SourceState { incoming, kept, limits, rate: MeasuredTransferRate::default(), stalled: None };
        Arc::new(Self {
            state: Mutex::new(state),
            length,
            bytes_read: AtomicU64::new(0),
            status: AtomicU8::new(BodyStatus::Intact as u8),
        })
    }

    /// The body, from its beginning as long as that is kept.
    pub(super) fn body(self: &Arc<Self>) -> RequestBody {
        RequestBody::Streamed(StreamedBody { source: self.clone(), replayed: 0 })
    }

    /// Bytes read from the client.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> BodyStatus {
        match self.status.load(Ordering::Relaxed) {
            status if status == BodyStatus::Invalid as u8 => BodyStatus::Invalid,
            status if status == BodyStatus::TooSlow as u8 => BodyStatus::TooSlow,
            _ => BodyStatus::Intact,
        }
    }

    pub(super) fn replay(&self) -> BodyReplay {
        if self.bytes_read() == 0 || self.state().kept.is_some() {
            BodyReplay::Whole
        } else {
            BodyReplay::Lost
        }
    }

    /// One attempt at a time holds the body, so the lock is never contended.
    fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, status: BodyStatus, error: io::Error) -> io::Error {
        self.status.store(status as u8, Ordering::Relaxed);
        error
    }
}

impl SourceState {
    /// Records a frame, and keeps it if all of the body so far can be kept. Returns the frame's bytes.
    fn record(&mut self, frame: &Frame<Bytes>, bytes_before: u64) -> u64 {
        let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        let count = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.rate.record(count, waited);
        match (frame.data_ref(), &mut self.kept) {
            (Some(data), Some(kept)) if bytes_before + count <= REPLAY_BYTES_MAX => kept.push(data.clone()),
            _ => self.kept = None,
        }
        count
    }

    /// Ready when the client has been too slow.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wait_max = self.rate.wait_max(&self.limits);
        let (_, timer) = self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(wait_max))));
        timer.as_mut().poll(cx)
    }
}

impl StreamedBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let source = self.source.clone();
        let mut state = source.state();
        if let Some(frame) = state.kept.as_ref().and_then(|kept| kept.get(self.replayed)) {
            self.replayed += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        match Pin::new(&mut state.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let count = state.record(&frame, source.bytes_read());
                source.bytes_read.fetch_add(count, Ordering::Relaxed);
                self.replayed += 1;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(source.fail(BodyStatus::Invalid, io::Error::other(error)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(state.poll_timeout(cx));
                let error = io::Error::new(io::ErrorKind::TimedOut, "the client sends its body too slowly");
                Poll::Ready(Some(Err(source.fail(BodyStatus::TooSlow, error))))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => {
                let state = body.source.state();
                let replaying = state.kept.as_ref().is_some_and(|kept| body.replayed < kept.len());
                !replaying && state.incoming.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.source.length,
        }
    }
}
