//! The guard's clocks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_domain::pace::{Pace, PaceLimits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::front::settings::Timeouts;

/// What the guard waits for between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The connection is idle.
    ForRequest,
    /// A head has begun, or the first one is due.
    ForHead,
}

/// How long a client may take to ask.
#[derive(Debug)]
pub(super) struct ReadClock {
    head_read: Duration,
    keep_alive_idle: Duration,
    waiting: Option<Waiting>,
    /// Kept between waits: setting it anew is cheaper than making it anew.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ReadClock {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Self {
            head_read: timeouts.head_read,
            keep_alive_idle: timeouts.keep_alive_idle,
            waiting: None,
            timer: None,
        }
    }

    /// The wait for a head, or between requests, is over; the next one begins from nothing.
    pub(super) fn head_ended(&mut self) {
        self.waiting = None;
    }

    /// Somebody else is being waited for.
    pub(super) fn pause(&mut self) {
        self.waiting = None;
    }

    /// Ready when the wait has lasted too long. A wait for the same thing goes on from call to call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, waiting: Waiting) -> Poll<()> {
        if self.waiting != Some(waiting) {
            self.waiting = Some(waiting);
            let limit = match waiting {
                Waiting::ForRequest => self.keep_alive_idle,
                Waiting::ForHead => self.head_read,
            };
            let deadline = Instant::now() + limit;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                timer => *timer = Some(Box::pin(sleep_until(deadline))),
            }
        }
        let timer = self.timer.as_mut().expect("set above, or when this wait began");
        timer.as_mut().poll(cx)
    }
}

/// Whether the client takes what it asked for.
#[derive(Debug)]
pub(super) struct WriteClock {
    limits: PaceLimits,
    pace: Pace,
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl WriteClock {
    pub(super) fn new(limits: PaceLimits) -> Self {
        Self { limits, pace: Pace::default(), stalled: None }
    }

    /// Passes on the outcome of a write, or an error once the client has been too slow.
    pub(super) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
                self.pace.moved(count as u64, waited);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let patience = self.pace.patience(&self.limits);
                let (_, timer) =
                    self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not take its answer",
                )))
            }
        }
    }
}

/// Reads on for a moment after our last byte, so that the client sees the answer and not a reset.
#[derive(Debug, Default)]
pub(super) struct Linger {
    shut_down: bool,
    read_off: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Long enough for the answer to arrive on a slow line.
const LINGER: Duration = Duration::from_secs(2);
/// Whoever sends more than this after an error does not listen.
const LINGER_BYTES_MAX: usize = 256 * 1024;

impl Linger {
    pub(super) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        if !self.shut_down {
            ready!(Pin::new(socket).poll_shutdown(cx))?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read_off(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        while self.read_off < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.read_off += buf.filled().len(),
                // The client has ended, or hung up; either way it needs no more of our patience.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
