//! The access line: one for each request, written when its answer has ended, however it ended.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, Uri, Version};
use proxy_domain::pace::PaceLimits;
use proxy_domain::{Host, Route};
use tokio::time::Instant;

use super::client_body::Source;
use super::line::Line;
use super::metrics::Metrics;
use super::stall::Taking;
use super::trace::Trace;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer, or the tunnel, came to its own end.
    Complete,
    /// The client went away, or did not take the answer.
    ClientGone,
    /// The machine broke off in the middle of its answer, or fell silent.
    UpstreamBroke,
    /// Nothing moved through the tunnel for too long.
    Idle,
    /// The tunnel's route was taken away, or the front ended.
    Cut,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroke => "upstream_broke",
            Self::Idle => "idle",
            Self::Cut => "cut",
        }
    }
}

/// What is known of an exchange. Dropping it writes the line and counts the request.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) trace: Trace,
    pub(super) host: Option<Host>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) tries: u32,
    pub(super) status: u16,
    /// The request's body, where it has one: counted when the line is written.
    pub(super) request_body: Option<Arc<Source>>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) outcome: Outcome,
    began: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    client: IpAddr,
    line: Arc<Line>,
    metrics: Metrics,
}

impl Record {
    pub(super) fn begin(
        trace: Trace,
        head: &http::request::Parts,
        client: IpAddr,
        line: Arc<Line>,
        metrics: Metrics,
    ) -> Self {
        Self {
            trace,
            host: None,
            route: None,
            upstream: None,
            tries: 0,
            status: 0,
            request_body: None,
            bytes_in: 0,
            bytes_out: 0,
            // Until somebody says otherwise: whoever drops us half way does so because the client is gone.
            outcome: Outcome::ClientGone,
            began: Instant::now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            client,
            line,
            metrics,
        }
    }

    /// Over HTTP/2, watches whether the client takes the answer.
    pub(super) fn watch_taking(&self, limits: PaceLimits) -> Option<Taking> {
        (self.version == Version::HTTP_2).then(|| self.line.stalls.watch(limits))
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        // A client that went before there was an answer is counted as nginx does; it saw nothing of the number.
        const CLIENT_CLOSED: u16 = 499;
        let status = if self.status == 0 { CLIENT_CLOSED } else { self.status };
        let bytes_in = self.request_body.as_ref().map_or(self.bytes_in, |body| body.taken());
        let span = &self.trace.span;
        span.record("http.response.status_code", status);
        let owner = self.route.as_ref().map(|route| route.owner.as_str());
        if let Some(owner) = owner {
            span.record("vm", owner);
        }
        if let Some(host) = &self.host {
            span.record("server.address", tracing::field::display(host));
        }
        // The query may hold secrets; it is no business of the log.
        tracing::info!(
            target: "loam::access",
            parent: span,
            client = %self.client,
            peer = %self.line.peer,
            method = %self.method,
            host = self.host.as_ref().map(tracing::field::display),
            path = self.uri.path(),
            protocol = ?self.version,
            status,
            bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = took.as_secs_f64() * 1000.0,
            vm = owner,
            upstream = self.upstream.as_ref().map(tracing::field::display),
            tries = self.tries,
            outcome = self.outcome.as_str(),
            request_id = %self.trace.id(),
        );
        self.metrics.answered(status, took);
        self.line.count_answered();
    }
}
