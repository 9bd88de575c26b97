//! The trace of one request: its span, its id, and what is passed on to the machine.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use proxy_domain::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use telemetry::TraceContext;
use tracing::Span;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// One request's trace.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) span: Span,
    /// What the machine gets as its caller.
    context: TraceParent,
    state: Option<HeaderValue>,
    trusted: bool,
}

impl Trace {
    /// Begins the span of a request; a trusted peer's trace is continued, anybody else's is not.
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
        let caller = trusted.then(|| text(TRACEPARENT)).flatten();
        if let Some(caller) = caller {
            let state = text(TRACESTATE).map(|state| (TRACESTATE.to_owned(), state.to_owned()));
            let carried = [(TRACEPARENT.to_owned(), caller.to_owned())].into_iter().chain(state);
            telemetry::continue_trace(&span, &carried.collect::<TraceContext>());
        }
        let mut carried = telemetry::inject(&span);
        let recorded = carried.get(TRACEPARENT).and_then(|text| TraceParent::parse(text));
        // Where nothing is recorded the trace still has to be named, for the log and for the machine.
        let context = recorded.unwrap_or_else(|| unrecorded(caller.and_then(TraceParent::parse)));
        let state = carried.remove(TRACESTATE).and_then(|state| HeaderValue::try_from(state).ok());
        Self { span, context, state, trusted }
    }

    /// The request id that errors and log lines carry: the trace id, 32 hexadecimal digits.
    pub(super) fn id(&self) -> String {
        format!("{:032x}", self.context.trace_id)
    }

    /// Replaces the trace context in a head that goes to a machine.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let parent = HeaderValue::try_from(self.context.to_string()).expect("digits and hyphens are a value");
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

fn unrecorded(caller: Option<TraceParent>) -> TraceParent {
    TraceParent {
        trace_id: caller.map_or_else(|| rand::random::<u128>().max(1), |caller| caller.trace_id),
        span_id: rand::random::<u64>().max(1),
        sampled: caller.is_some_and(|caller| caller.sampled),
    }
}
