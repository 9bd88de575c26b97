//! The body of a request on its way to a machine: streamed, paced, and kept for a second try while it is small.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use proxy_domain::hygiene::clean_trailers;
use proxy_domain::pace::{Pace, PaceLimits};
use proxy_domain::retry::{REPLAY_BYTES_MAX, Replay};
use tokio::time::{Instant, Sleep, sleep};

/// The body of one try.
#[derive(Debug)]
pub(super) enum RequestBody {
    Empty,
    Streamed(ClientBody),
}

/// Reads the source from its beginning, or goes on where it is.
#[derive(Debug)]
pub(super) struct ClientBody {
    source: Arc<Source>,
    /// Kept frames that this try has sent.
    replayed: usize,
}

/// Where the body comes from; outlives a try.
#[derive(Debug)]
pub(super) struct Source {
    flow: Mutex<Flow>,
    length: SizeHint,
    taken: AtomicU64,
    fate: AtomicU8,
}

#[derive(Debug)]
struct Flow {
    incoming: Incoming,
    /// What was taken so far, unless it became too much to keep.
    kept: Option<Vec<Bytes>>,
    limits: PaceLimits,
    pace: Pace,
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// What became of the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Sound = 0,
    Broken = 1,
    TooSlow = 2,
}

impl Source {
    /// `keep`: whether a second try could ever be made.
    pub(super) fn new(incoming: Incoming, keep: bool, limits: PaceLimits) -> Arc<Self> {
        let length = incoming.size_hint();
        let flow = Flow { incoming, kept: keep.then(Vec::new), limits, pace: Pace::default(), stalled: None };
        Arc::new(Self {
            flow: Mutex::new(flow),
            length,
            taken: AtomicU64::new(0),
            fate: AtomicU8::new(Fate::Sound as u8),
        })
    }

    /// The body, from its beginning as long as that is kept.
    pub(super) fn body(self: &Arc<Self>) -> RequestBody {
        RequestBody::Streamed(ClientBody { source: self.clone(), replayed: 0 })
    }

    /// Bytes taken from the client.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Relaxed) {
            fate if fate == Fate::Broken as u8 => Fate::Broken,
            fate if fate == Fate::TooSlow as u8 => Fate::TooSlow,
            _ => Fate::Sound,
        }
    }

    pub(super) fn replay(&self) -> Replay {
        if self.taken() == 0 || self.flow().kept.is_some() { Replay::Whole } else { Replay::Lost }
    }

    /// One try at a time holds the body, so nobody ever waits here.
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, fate: Fate, error: io::Error) -> io::Error {
        self.fate.store(fate as u8, Ordering::Relaxed);
        error
    }
}

impl Flow {
    /// Takes note of a frame, and keeps it if all of the body so far can be kept.
    fn keep(&mut self, frame: &Frame<Bytes>, taken_before: u64) -> u64 {
        let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        let count = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.pace.moved(count, waited);
        match (frame.data_ref(), &mut self.kept) {
            (Some(data), Some(kept)) if taken_before + count <= REPLAY_BYTES_MAX => kept.push(data.clone()),
            _ => self.kept = None,
        }
        count
    }

    fn too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.pace.patience(&self.limits);
        let (_, timer) = self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
        timer.as_mut().poll(cx)
    }
}

impl ClientBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let source = self.source.clone();
        let mut flow = source.flow();
        if let Some(frame) = flow.kept.as_ref().and_then(|kept| kept.get(self.replayed)) {
            self.replayed += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        match Pin::new(&mut flow.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let count = flow.keep(&frame, source.taken());
                source.taken.fetch_add(count, Ordering::Relaxed);
                self.replayed += 1;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(source.fail(Fate::Broken, io::Error::other(error)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(flow.too_slow(cx));
                let error = io::Error::new(io::ErrorKind::TimedOut, "the client sends its body too slowly");
                Poll::Ready(Some(Err(source.fail(Fate::TooSlow, error))))
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
                let flow = body.source.flow();
                let replaying = flow.kept.as_ref().is_some_and(|kept| body.replayed < kept.len());
                !replaying && flow.incoming.is_end_stream()
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
