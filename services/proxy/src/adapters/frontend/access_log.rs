//! The access log: one record for each request, written when its response has ended, however it ended.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, Uri, Version};
use proxy_domain::transfer::SlowTransferLimits;
use proxy_domain::{Host, Route};
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::request_body::BodySource;
use super::response_deadlines::ResponseDeadline;
use super::trace::RequestTrace;
use crate::metrics::Metrics;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExchangeOutcome {
    /// The response, or the tunnel, came to its own end.
    Complete,
    /// The client closed the connection, or did not read the response.
    ClientClosed,
    /// The upstream closed the connection within its response, or stopped sending.
    UpstreamAborted,
    /// No byte moved through the tunnel for too long.
    TunnelIdleTimeout,
    /// The tunnel's route was removed, or the frontend stopped.
    TunnelTerminated,
}

impl ExchangeOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientClosed => "client_closed",
            Self::UpstreamAborted => "upstream_aborted",
            Self::TunnelIdleTimeout => "idle_timeout",
            Self::TunnelTerminated => "terminated",
        }
    }
}

/// What is logged of an exchange. Dropping it writes the record and counts the request.
#[derive(Debug)]
pub(super) struct AccessRecord {
    pub(super) trace: RequestTrace,
    pub(super) host: Option<Host>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) attempts: u32,
    pub(super) status: u16,
    /// The request's body, where it has one: its bytes are counted when the record is written.
    pub(super) request_body: Option<Arc<BodySource>>,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) outcome: ExchangeOutcome,
    began: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    client: IpAddr,
    connection: Arc<ConnectionState>,
    metrics: Metrics,
}

impl AccessRecord {
    pub(super) fn begin(
        trace: RequestTrace,
        head: &http::request::Parts,
        client: IpAddr,
        connection: Arc<ConnectionState>,
        metrics: Metrics,
    ) -> Self {
        Self {
            trace,
            host: None,
            route: None,
            upstream: None,
            attempts: 0,
            status: 0,
            request_body: None,
            bytes_received: 0,
            bytes_sent: 0,
            // Until it is set: an exchange is dropped half way because the client closed the connection.
            outcome: ExchangeOutcome::ClientClosed,
            began: Instant::now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            client,
            connection,
            metrics,
        }
    }

    /// Over HTTP/2, a deadline by which the client must read each part of the response.
    pub(super) fn response_deadline(&self, limits: SlowTransferLimits) -> Option<ResponseDeadline> {
        (self.version == Version::HTTP_2).then(|| self.connection.response_deadlines.register(limits))
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        // As nginx counts a client that closed the connection before the response; nobody receives this status.
        const CLIENT_CLOSED_REQUEST: u16 = 499;
        let status = if self.status == 0 { CLIENT_CLOSED_REQUEST } else { self.status };
        let bytes_received = self.request_body.as_ref().map_or(self.bytes_received, |body| body.bytes_read());
        let span = &self.trace.span;
        span.record("http.response.status_code", status);
        let vm = self.route.as_ref().map(|route| route.vm.as_str());
        if let Some(vm) = vm {
            span.record("vm", vm);
        }
        if let Some(host) = &self.host {
            span.record("server.address", tracing::field::display(host));
        }
        // The query may hold secrets and is not logged.
        tracing::info!(
            target: "loam::access",
            parent: span,
            client = %self.client,
            peer = %self.connection.peer,
            method = %self.method,
            host = self.host.as_ref().map(tracing::field::display),
            path = self.uri.path(),
            protocol = ?self.version,
            status,
            bytes_received,
            bytes_sent = self.bytes_sent,
            duration_ms = duration.as_secs_f64() * 1000.0,
            vm,
            upstream = self.upstream.as_ref().map(tracing::field::display),
            attempts = self.attempts,
            outcome = self.outcome.as_str(),
            request_id = %self.trace.id(),
        );
        self.metrics.request_completed(status, duration);
        self.connection.count_completed();
    }
}
