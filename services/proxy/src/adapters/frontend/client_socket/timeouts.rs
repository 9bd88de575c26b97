//! The timeouts of a client's socket, and its lingering close.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_domain::transfer::{MeasuredTransferRate, SlowTransferLimits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::adapters::frontend::settings::Timeouts;

/// What is awaited between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadTimeoutKind {
    /// The connection is idle.
    ForRequest,
    /// A head has begun, or the connection is new.
    RequestHead,
}

/// How long a client may take to send a request.
#[derive(Debug)]
pub(super) struct ReadTimeout {
    head_read: Duration,
    keep_alive_idle: Duration,
    waiting: Option<ReadTimeoutKind>,
    /// Kept between waits: resetting a timer is cheaper than creating one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ReadTimeout {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Self {
            head_read: timeouts.head_read,
            keep_alive_idle: timeouts.keep_alive_idle,
            waiting: None,
            timer: None,
        }
    }

    /// Ends the wait: a head is complete, or the client is not what is awaited. The next wait has its full time.
    pub(super) fn reset(&mut self) {
        self.waiting = None;
    }

    /// Ready when the wait has lasted too long. Waits for the same thing add up from call to call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, waiting: ReadTimeoutKind) -> Poll<()> {
        if self.waiting != Some(waiting) {
            self.waiting = Some(waiting);
            let limit = match waiting {
                ReadTimeoutKind::ForRequest => self.keep_alive_idle,
                ReadTimeoutKind::RequestHead => self.head_read,
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

/// How slowly a client may read its response.
#[derive(Debug)]
pub(super) struct WriteTimeout {
    limits: SlowTransferLimits,
    rate: MeasuredTransferRate,
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl WriteTimeout {
    pub(super) fn new(limits: SlowTransferLimits) -> Self {
        Self { limits, rate: MeasuredTransferRate::default(), stalled: None }
    }

    /// Returns the result of a write, or an error once the client has been too slow.
    pub(super) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
                self.rate.record(count as u64, waited);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let wait_max = self.rate.wait_max(&self.limits);
                let (_, timer) =
                    self.stalled.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(wait_max))));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read its response",
                )))
            }
        }
    }
}

/// Keeps reading for a moment after the last byte sent, so that the client receives the response and not a reset
/// (nginx: `lingering_close`).
#[derive(Debug, Default)]
pub(super) struct LingeringClose {
    shut_down: bool,
    discarded: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Long enough for the response to arrive over a slow connection.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// A client that sends more than this after an error is not reading.
const LINGER_BYTES_MAX: usize = 256 * 1024;

impl LingeringClose {
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

    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(LINGER_MAX)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        while self.discarded < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.discarded += buf.filled().len(),
                // The client has closed the connection.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
