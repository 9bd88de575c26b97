//! One connection to a machine. It has no task: whoever asks drives it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use super::answer::Problem;
use super::client_body::RequestBody;
use super::metrics::Metrics;
use super::settings::BUFFER_BYTES;

/// A connection, and hyper's end of it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    once_only: bool,
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    /// The connection has come to its end and must not be polled again.
    ended: bool,
}

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(io::Error),
    /// No connection in time.
    ConnectTimeout,
    /// The connection was found closed; here is the request, none of it was sent.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke, or what came was no HTTP.
    Broke(hyper::Error),
    /// Nothing came in time.
    Silent,
}

impl Failure {
    /// For the metric.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unsent(_) => "closed",
            Self::Broke(_) => "broke_off",
            Self::Silent => "silent",
        }
    }

    /// What the client is told.
    fn problem(&self) -> Problem {
        match self {
            Self::Connect(_) => Problem::Unreachable,
            Self::Unsent(_) | Self::Broke(_) => Problem::BrokeOff,
            Self::ConnectTimeout | Self::Silent => Problem::Silent,
        }
    }

    /// Logs the failure within the request's span, counts it, and returns what the client is told.
    pub(super) fn report(&self, span: &Span, address: SocketAddr, metrics: &Metrics) -> Problem {
        let cause: Option<&dyn std::error::Error> = match self {
            Self::Connect(error) => Some(error),
            Self::Broke(error) => Some(error),
            Self::ConnectTimeout | Self::Unsent(_) | Self::Silent => None,
        };
        tracing::warn!(parent: span, %address, kind = self.kind(), error = cause, "asking a machine failed");
        metrics.upstream_failed(self.kind());
        self.problem()
    }
}

impl Upstream {
    /// Connects to a machine; a failure is logged and counted.
    pub(super) async fn connect(
        address: SocketAddr,
        within: Duration,
        metrics: &Metrics,
        span: &Span,
    ) -> Result<Box<Self>, Problem> {
        Self::open(address, within).await.map_err(|failure| failure.report(span, address, metrics))
    }

    async fn open(address: SocketAddr, within: Duration) -> Result<Box<Self>, Failure> {
        let socket = match timeout(within, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(Failure::Connect)?,
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        socket.set_nodelay(true).map_err(Failure::Connect)?;
        let handshake = Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(socket));
        let (sender, connection) = handshake.await.map_err(Failure::Broke)?;
        Ok(Box::new(Self { address, reused: false, once_only: false, sender, connection, ended: false }))
    }

    /// Moves the connection's work on: bytes out, bytes in.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        // An error comes to whoever waits for the answer or its body; there is nothing else to do with it.
        if !self.ended && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Whether another request can be sent: the last one is over, and the machine has not hung up.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.once_only && !self.ended && self.sender.is_ready()
    }

    /// Closes the connection after this exchange: an upgrade was asked on it, and the two ends may differ on whether
    /// it was granted.
    pub(super) fn once_only(&mut self) {
        self.once_only = true;
    }

    /// Sends a request and waits for the head of its answer. `within` is counted anew whenever `progress` changes, so
    /// that a long upload is not held against the machine.
    pub(super) async fn ask(
        &mut self,
        request: Request<RequestBody>,
        within: Duration,
        progress: impl Fn() -> u64,
    ) -> Result<Response<Incoming>, Failure> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let mut clock = pin!(sleep(within));
        let mut seen = progress();
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        poll_fn(|cx| {
            if !*ended && Pin::new(&mut *connection).poll(cx).is_ready() {
                *ended = true;
            }
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                    Some(request) => Failure::Unsent(Box::new(request)),
                    None => Failure::Broke(error.into_error()),
                }));
            }
            let now = progress();
            if now != seen {
                seen = now;
                clock.as_mut().reset(Instant::now() + within);
            }
            ready!(clock.as_mut().poll(cx));
            Poll::Ready(Err(Failure::Silent))
        })
        .await
    }

    /// After a 101: the socket, and what the machine sent behind its answer.
    pub(super) async fn into_tunnel(
        mut self: Box<Self>,
        within: Duration,
    ) -> Result<(TcpStream, Bytes), Failure> {
        let ended = poll_fn(|cx| {
            self.drive(cx);
            if self.ended { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(within, ended).await.map_err(|_| Failure::Silent)?;
        let parts = self.connection.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}
