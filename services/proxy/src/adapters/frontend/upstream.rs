//! One connection to an upstream. It has no task: whoever sends a request on it polls it.

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

use super::error_page::ProxyError;
use super::request_body::RequestBody;
use super::settings::BUFFER_BYTES;
use crate::metrics::Metrics;

/// An HTTP/1.1 connection to an upstream.
#[derive(Debug)]
pub(super) struct UpstreamConnection {
    pub(super) address: SocketAddr,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    close_after_response: bool,
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    /// The connection has come to its end and must not be polled again.
    ended: bool,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// No connection.
    Connect(io::Error),
    /// No connection within the timeout.
    ConnectTimeout,
    /// The upstream had closed the connection; no byte of this request was sent.
    ClosedBeforeSend(Box<Request<RequestBody>>),
    /// The connection failed, or the response was not HTTP.
    NoValidResponse(hyper::Error),
    /// No response within the timeout.
    ResponseTimeout,
}

impl UpstreamError {
    /// The label of the metric and of the log line.
    fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::ClosedBeforeSend(_) => "closed",
            Self::NoValidResponse(_) => "aborted",
            Self::ResponseTimeout => "response_timeout",
        }
    }

    fn page(&self) -> ProxyError {
        match self {
            Self::Connect(_) => ProxyError::UpstreamUnreachable,
            Self::ClosedBeforeSend(_) | Self::NoValidResponse(_) => ProxyError::UpstreamAborted,
            Self::ConnectTimeout | Self::ResponseTimeout => ProxyError::UpstreamTimeout,
        }
    }

    /// Logs the failure within the request's span, counts it, and returns the error page for it.
    pub(super) fn report(&self, span: &Span, address: SocketAddr, metrics: &Metrics) -> ProxyError {
        let cause: Option<&dyn std::error::Error> = match self {
            Self::Connect(error) => Some(error),
            Self::NoValidResponse(error) => Some(error),
            Self::ConnectTimeout | Self::ClosedBeforeSend(_) | Self::ResponseTimeout => None,
        };
        tracing::warn!(parent: span, %address, reason = self.reason(), error = cause, "the upstream did not respond");
        metrics.upstream_failed(self.reason());
        self.page()
    }
}

impl UpstreamConnection {
    /// Connects to an upstream; a failure is logged and counted.
    pub(super) async fn connect(
        address: SocketAddr,
        timeout: Duration,
        metrics: &Metrics,
        span: &Span,
    ) -> Result<Box<Self>, ProxyError> {
        Self::open(address, timeout).await.map_err(|error| error.report(span, address, metrics))
    }

    async fn open(address: SocketAddr, connect_max: Duration) -> Result<Box<Self>, UpstreamError> {
        let socket = match timeout(connect_max, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(UpstreamError::Connect)?,
            Err(_) => return Err(UpstreamError::ConnectTimeout),
        };
        socket.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let handshake = Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(socket));
        let (sender, connection) = handshake.await.map_err(UpstreamError::NoValidResponse)?;
        Ok(Box::new(Self {
            address,
            reused: false,
            close_after_response: false,
            sender,
            connection,
            ended: false,
        }))
    }

    /// Sends and receives what is possible now.
    pub(super) fn poll_connection(&mut self, cx: &mut Context<'_>) {
        // hyper reports an error to whoever waits for the response or its body.
        if !self.ended && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Whether another request can be sent: the last exchange is over, and the upstream has not closed the connection.
    pub(super) fn is_ready(&mut self) -> bool {
        self.poll_connection(&mut Context::from_waker(Waker::noop()));
        !self.close_after_response && !self.ended && self.sender.is_ready()
    }

    /// Closes the connection after this exchange: an upgrade was requested on it, and the two ends may disagree on
    /// whether it was granted.
    pub(super) fn close_after_response(&mut self) {
        self.close_after_response = true;
    }

    /// Sends a request and waits for the head of its response. `first_byte_max` starts again whenever `progress`
    /// changes, so that a long upload is not an upstream's timeout.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        first_byte_max: Duration,
        progress: impl Fn() -> u64,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut response = pin!(self.sender.try_send_request(request));
        let mut timer = pin!(sleep(first_byte_max));
        let mut seen = progress();
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        poll_fn(|cx| {
            if !*ended && Pin::new(&mut *connection).poll(cx).is_ready() {
                *ended = true;
            }
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(|mut error| match error.take_message() {
                    Some(request) => UpstreamError::ClosedBeforeSend(Box::new(request)),
                    None => UpstreamError::NoValidResponse(error.into_error()),
                }));
            }
            let now = progress();
            if now != seen {
                seen = now;
                timer.as_mut().reset(Instant::now() + first_byte_max);
            }
            ready!(timer.as_mut().poll(cx));
            Poll::Ready(Err(UpstreamError::ResponseTimeout))
        })
        .await
    }

    /// After a 101: the socket, and what the upstream sent after its response.
    pub(super) async fn into_socket(
        mut self: Box<Self>,
        end_max: Duration,
    ) -> Result<(TcpStream, Bytes), UpstreamError> {
        let ended = poll_fn(|cx| {
            self.poll_connection(cx);
            if self.ended { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(end_max, ended).await.map_err(|_| UpstreamError::ResponseTimeout)?;
        let parts = self.connection.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}
