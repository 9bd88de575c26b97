//! The trace of one request: its span, its id, and the context sent to the upstream.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use proxy_domain::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use telemetry::TraceContext;
use tracing::Span;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// One request's trace.
#[derive(Debug)]
pub(super) struct RequestTrace {
    pub(super) span: Span,
    /// The parent that the upstream gets.
    context: TraceParent,
    state: Option<HeaderValue>,
    trusted: bool,
}

impl RequestTrace {
    /// Starts the span of a request. The trace of a trusted peer is continued, that of others is not.
    pub(super) fn begin(head: &Parts, trusted: bool) -> Self {
        let span = tracing::info_span!(
            "http_request",
            otel.kind = "server",
            http.request.method = %head.method,
            url.path = head.uri.path(),
            server.address = tracing::field::Empty,
            http.response.status_code = tracing::field::Empty,
            vm = tracing::field::Empty,
        );
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let parent = trusted.then(|| text(TRACEPARENT)).flatten();
        if let Some(parent) = parent {
            let state = text(TRACESTATE).map(|state| (TRACESTATE.to_owned(), state.to_owned()));
            let carried = [(TRACEPARENT.to_owned(), parent.to_owned())].into_iter().chain(state);
            telemetry::continue_trace(&span, &carried.collect::<TraceContext>());
        }
        let mut carried = telemetry::inject(&span);
        let recorded = carried.get(TRACEPARENT).and_then(|text| TraceParent::parse(text));
        // Without a recorder the request still needs an id, for the log and for the upstream.
        let context = recorded.unwrap_or_else(|| unrecorded(parent.and_then(TraceParent::parse)));
        let state = carried.remove(TRACESTATE).and_then(|state| HeaderValue::try_from(state).ok());
        Self { span, context, state, trusted }
    }

    /// The request id of error pages and access records: the trace id, 32 hexadecimal digits.
    pub(super) fn id(&self) -> String {
        format!("{:032x}", self.context.trace_id)
    }

    /// Replaces the trace context in a head that goes to an upstream.
    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        let parent =
            HeaderValue::try_from(self.context.to_string()).expect("digits and hyphens are a valid value");
        headers.insert(TRACEPARENT, parent);
        match &self.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            None => drop(headers.remove(TRACESTATE)),
        }
        if !self.trusted {
            headers.remove(BAGGAGE);
        }
    }
}

fn unrecorded(parent: Option<TraceParent>) -> TraceParent {
    TraceParent {
        trace_id: parent.map_or_else(|| rand::random::<u128>().max(1), |parent| parent.trace_id),
        span_id: rand::random::<u64>().max(1),
        sampled: parent.is_some_and(|parent| parent.sampled),
    }
}
